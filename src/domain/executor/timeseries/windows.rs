//! Window functions of a series: `ema`, `delta`, `ratio`.
//!
//! They go from row to row in the order of their window and ignore its frame. NULL takes no part: an average stays what it
//! was, and there is no difference to it.

use crate::domain::executor::error::refused;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimeUnit, TimestampNanosecondType};
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
        let series = match self.kind {
            Kind::Delta => Series::Delta,
            Kind::Ratio => Series::Ratio,
            Kind::Ema => Series::Ema(weight(constants.get(1))?),
            Kind::EmaBy => Series::Ema(weight_by(constants)?),
        };
        Ok(Box::new(series))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

/// How much a new value weighs.
#[derive(Debug, Clone, Copy)]
enum Weight {
    /// The same for each row, above 0 and at most 1.
    Fixed(f64),
    /// `1 - exp(-Δt / constant)`, for the time since the value before.
    Decay { constant_ns: f64 },
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

#[derive(Debug)]
enum Series {
    Ema(Weight),
    Delta,
    Ratio,
}

impl PartitionEvaluator for Series {
    fn evaluate_all(&mut self, values: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        match self {
            Self::Delta if *values[0].data_type() == DataType::Int64 => delta_whole(values[0].as_primitive()),
            Self::Delta => {
                Ok(Arc::new(pairs(&cast(&values[0], &DataType::Float64)?, |first| first, |x, before| Some(x - before))))
            }
            Self::Ratio => {
                let quotient = |x: f64, before: f64| (before != 0.0).then(|| x / before);
                Ok(Arc::new(pairs(&cast(&values[0], &DataType::Float64)?, |_| 1.0, quotient)))
            }
            Self::Ema(weight) => {
                let times =
                    values.get(3).map(|times| times.as_primitive::<TimestampNanosecondType>().values().as_ref());
                ema(values[0].as_primitive(), *weight, times)
            }
        }
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

/// Combines each value with the one before it.
fn pairs(values: &ArrayRef, first: impl Fn(f64) -> f64, next: impl Fn(f64, f64) -> Option<f64>) -> Float64Array {
    let mut before = None;
    let pair = |(at, value): (usize, Option<f64>)| {
        let made = match (value, before) {
            (Some(value), _) if at == 0 => Some(first(value)),
            (Some(value), Some(before)) => next(value, before),
            _ => None,
        };
        before = value;
        made
    };
    values.as_primitive::<Float64Type>().iter().enumerate().map(pair).collect()
}

fn ema(values: &Float64Array, weight: Weight, times: Option<&[i64]>) -> Result<ArrayRef> {
    let mut state: Option<(f64, i64)> = None;
    let step = |(at, value): (usize, Option<f64>)| {
        let Some(value) = value else { return state.map(|(average, _)| average) };
        let time = times.map_or(0, |times| times[at]);
        let average = match (state, weight) {
            (None, _) => value,
            (Some((average, _)), Weight::Fixed(alpha)) => average + alpha * (value - average),
            (Some((average, before)), Weight::Decay { constant_ns }) => {
                let alpha = -(-(time.saturating_sub(before) as f64) / constant_ns).exp_m1();
                average + alpha * (value - average)
            }
        };
        state = Some((average, time));
        Some(average)
    };
    Ok(Arc::new(values.iter().enumerate().map(step).collect::<Float64Array>()))
}
