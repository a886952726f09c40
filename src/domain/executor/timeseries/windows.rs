//! Window functions of a series: `ema`, `delta`, `ratio`.
//!
//! They go from row to row in the order of their window and ignore its frame. NULL takes no part: an average stays what it
//! was, and there is no difference to it.

use crate::domain::executor::error::refused;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema, TimeUnit, TimestampNanosecondType};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Literal};
use std::sync::Arc;

/// Returns the functions.
pub fn windows() -> Vec<Arc<WindowUDF>> {
    [Kind::Ema, Kind::EmaBy, Kind::Delta, Kind::Ratio]
        .map(|kind| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(WindowUDF::from(SeriesFunction { kind, signature }))
        })
        .to_vec()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// `ema(x, n)`: an integer is a period, a number with a point the weight of a new value (ZeptoDB).
    Ema,
    /// What `avg(x, 'kind', p)` becomes (QuestDB): with a unit of time for a kind, the time is the last argument.
    EmaBy,
    /// `delta(x)`: the difference to the row before; of the first row, its value.
    Delta,
    /// `ratio(x)`: the quotient with the row before; of the first row, 1.
    Ratio,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SeriesFunction {
    kind: Kind,
    signature: Signature,
}

impl WindowUDFImpl for SeriesFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Ema => "ema",
            Kind::EmaBy => "__zepto_ema_by",
            Kind::Delta => "delta",
            Kind::Ratio => "ratio",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let number = |data_type: &DataType| data_type.is_numeric() || *data_type == DataType::Null;
        match (self.kind, types) {
            (Kind::Delta, [DataType::Int64]) => Ok(vec![DataType::Int64]),
            (Kind::Delta, [x]) if x.is_integer() && x.primitive_width() < Some(8) => Ok(vec![DataType::Int64]),
            (Kind::Delta | Kind::Ratio, [x]) if number(x) => Ok(vec![DataType::Float64]),
            (Kind::Ema, [x, weight]) if number(x) && number(weight) => Ok(vec![DataType::Float64, weight.clone()]),
            (Kind::EmaBy, [x, kind, weight, rest @ ..]) if number(x) && number(weight) && rest.len() <= 1 => {
                let mut taken = vec![DataType::Float64, kind.clone(), weight.clone()];
                taken.extend(rest.iter().map(|_| DataType::Timestamp(TimeUnit::Nanosecond, None)));
                Ok(taken)
            }
            (Kind::Ema, _) => plan_err!("ema takes a number, and a period or the weight of a new value"),
            (Kind::EmaBy, _) => plan_err!("avg over a window takes a number, a kind and its parameter"),
            _ => plan_err!("{} takes one number", self.name()),
        }
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let is_whole =
            self.kind == Kind::Delta && args.get_input_field(0).is_some_and(|x| *x.data_type() == DataType::Int64);
        let data_type = if is_whole { DataType::Int64 } else { DataType::Float64 };
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let constants = args.input_exprs();
        let is_whole = args.input_fields().first().is_some_and(|x| *x.data_type() == DataType::Int64);
        let step = match self.kind {
            Kind::Delta if is_whole => return Ok(Box::new(Series::WholeDelta)),
            Kind::Delta => Step::Delta,
            Kind::Ratio => Step::Ratio,
            Kind::Ema => Step::Ema(weight(constants.get(1))?),
            Kind::EmaBy => Step::Ema(weight_by(constants)?),
        };
        Ok(Box::new(Series::Step(step)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

/// How much a new value weighs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weight {
    /// The same for each row, above 0 and at most 1.
    Fixed(f64),
    /// `1 - exp(-Δt / constant)`, for the time since the value before.
    Decay {
        /// The time constant.
        constant_ns: f64,
    },
}

fn constant(expr: Option<&Arc<dyn PhysicalExpr>>) -> Result<&ScalarValue> {
    let mut expr = expr;
    while let Some(cast) = expr.and_then(|expr| expr.downcast_ref::<CastExpr>()) {
        expr = Some(cast.expr());
    }
    match expr.and_then(|expr| expr.downcast_ref::<Literal>()) {
        Some(literal) => Ok(literal.value()),
        None => Err(refused("the parameters of a moving average have to be constants".to_owned())),
    }
}

fn weight(expr: Option<&Arc<dyn PhysicalExpr>>) -> Result<Weight> {
    let value = constant(expr)?;
    if value.data_type().is_integer() { by_period(value) } else { by_alpha(value) }
}

fn by_period(value: &ScalarValue) -> Result<Weight> {
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(periods))) if periods > 0 => Ok(Weight::Fixed(2.0 / (periods as f64 + 1.0))),
        _ => Err(refused(format!("a moving average over {value} periods; it has to be a whole number above 0"))),
    }
}

fn by_alpha(value: &ScalarValue) -> Result<Weight> {
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(Some(alpha))) if alpha > 0.0 && alpha <= 1.0 => Ok(Weight::Fixed(alpha)),
        _ => Err(refused(format!(
            "a new value cannot weigh {value} in a moving average; it weighs more than 0 and at most 1"
        ))),
    }
}

fn weight_by(args: &[Arc<dyn PhysicalExpr>]) -> Result<Weight> {
    let (kind, value) = (constant(args.get(1))?, constant(args.get(2))?);
    let kind = kind.try_as_str().flatten().unwrap_or_default();
    let unit_ns = match kind {
        "alpha" => return by_alpha(value),
        "period" => return by_period(value),
        "nanosecond" => 1.0,
        "microsecond" => 1e3,
        "millisecond" => 1e6,
        "second" => 1e9,
        "minute" => 60e9,
        "hour" => 3_600e9,
        "day" => 86_400e9,
        "week" => 604_800e9,
        _ => {
            let text = format!(
                "unknown kind {kind:?} of moving average; expected alpha, period, or a unit from nanosecond to week"
            );
            return Err(refused(text));
        }
    };
    if args.len() < 4 {
        return Err(refused("a moving average by time needs ORDER BY a time in its window".to_owned()));
    }
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(Some(count))) if count > 0.0 && count.is_finite() => {
            Ok(Weight::Decay { constant_ns: count * unit_ns })
        }
        _ => Err(refused(format!("the time constant of a moving average is {value}; it has to be above 0"))),
    }
}

/// What goes from row to row of doubles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// A moving average.
    Ema(Weight),
    /// The difference to the row before.
    Delta,
    /// The quotient with the row before.
    Ratio,
}

impl Step {
    /// Returns whether it looks at times.
    pub fn needs_time(self) -> bool {
        matches!(self, Self::Ema(Weight::Decay { .. }))
    }
}

/// Where a series stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Running {
    has_begun: bool,
    /// The average so far, or the value of the row before.
    before: Option<f64>,
    time: i64,
}

impl Running {
    /// Takes the next row in, and returns the answer for it.
    pub fn next(&mut self, step: Step, value: Option<f64>, time: i64) -> Option<f64> {
        let (is_first, before) = (!self.has_begun, self.before);
        self.has_begun = true;
        match step {
            Step::Ema(weight) => {
                let Some(value) = value else { return before };
                let average = match (before, weight) {
                    (None, _) => value,
                    (Some(before), Weight::Fixed(alpha)) => before + alpha * (value - before),
                    (Some(before), Weight::Decay { constant_ns }) => {
                        let alpha = -(-(time.abs_diff(self.time) as f64) / constant_ns).exp_m1();
                        before + alpha * (value - before)
                    }
                };
                (self.before, self.time) = (Some(average), time);
                self.before
            }
            Step::Delta | Step::Ratio => {
                self.before = value;
                let value = value?;
                match (step, before) {
                    (Step::Delta, _) if is_first => Some(value),
                    (Step::Delta, Some(before)) => Some(value - before),
                    (_, _) if is_first => Some(1.0),
                    (_, Some(before)) => (before != 0.0).then(|| value / before),
                    (_, None) => None,
                }
            }
        }
    }
}

/// Returns what a call of one of the functions computes of doubles, by its function and arguments; none for another function, or
/// one of whole numbers.
///
/// # Errors
///
/// `InvalidQuery` for parameters that are wrong.
pub fn step_of(function: &WindowUDF, args: &[Arc<dyn PhysicalExpr>], schema: &Schema) -> Result<Option<Step>> {
    let Some(function) = function.inner().downcast_ref::<SeriesFunction>() else { return Ok(None) };
    let is_double = args.first().map(|arg| arg.data_type(schema)).transpose()? == Some(DataType::Float64);
    Ok(match function.kind {
        _ if !is_double => None,
        Kind::Delta => Some(Step::Delta),
        Kind::Ratio => Some(Step::Ratio),
        Kind::Ema => Some(Step::Ema(weight(args.get(1))?)),
        Kind::EmaBy => Some(Step::Ema(weight_by(args)?)),
    })
}

#[derive(Debug)]
enum Series {
    Step(Step),
    /// The difference of whole numbers.
    WholeDelta,
}

impl PartitionEvaluator for Series {
    fn evaluate_all(&mut self, values: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let Self::Step(step) = self else { return delta_whole(values[0].as_primitive()) };
        let times = values.get(3).map(|times| times.as_primitive::<TimestampNanosecondType>().values().as_ref());
        let numbers = cast(&values[0], &DataType::Float64)?;
        let mut running = Running::default();
        let rows = numbers.as_primitive::<Float64Type>().iter().enumerate();
        let answers = rows.map(|(row, value)| running.next(*step, value, times.map_or(0, |times: &[i64]| times[row])));
        Ok(Arc::new(answers.collect::<Float64Array>()))
    }
}

fn delta_whole(values: &Int64Array) -> Result<ArrayRef> {
    let mut before = None;
    let delta = |(at, value): (usize, Option<i64>)| {
        let delta = match (value, before) {
            (Some(value), _) if at == 0 => Some(value),
            (Some(value), Some(before)) => {
                Some(i64::checked_sub(value, before).ok_or_else(|| refused("delta overflows 64 bits".to_owned()))?)
            }
            _ => None,
        };
        before = value;
        Ok(delta)
    };
    Ok(Arc::new(values.iter().enumerate().map(delta).collect::<Result<Int64Array>>()?))
}
