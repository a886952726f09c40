//! Makes times of different units, and dates, compare as what they are, however far away.
//!
//! DataFusion 55.2 casts both sides to the finer unit: the year 9999 fails beside nanoseconds, and its optimiser moves the cast to a
//! constant, which loses the part that the coarser unit cannot hold. Here a constant becomes one of the column's own type, and the
//! operator what is left of it: `seconds < '… 01.5'` is `seconds <= '… 01'`. Of two columns the coarser one is counted in
//! nanoseconds, and what those cannot hold is beyond all of them.

use crate::domain::executor::time_units::unit_ns;
use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    self, Between, BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, try_cast,
};
use std::sync::{Arc, LazyLock};

/// Rewrites comparisons, BETWEEN and IN.
#[derive(Debug)]
pub struct CompareTimes;

impl FunctionRewrite for CompareTimes {
    fn name(&self) -> &str {
        "compare_times"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match compared(&left, op, &right, schema) {
                Some(made) => Transformed::yes(made),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            },
            Expr::Between(between) => in_between(between, schema),
            Expr::InList(list) => in_list(list, schema),
            other => Transformed::no(other),
        })
    }
}

/// Returns a comparison of times as one that is exact; none where it is, or is not one.
fn compared(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    if !matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom) {
        return None;
    }
    let types = [left.get_type(schema).ok()?, right.get_type(schema).ok()?];
    if types[0] == types[1] && !is_far(left) && !is_far(right) {
        return None;
    }
    if let Some(at_ns) = plain_unit(&types[0]).and(written_ns(right)) {
        return Some(beside(left, &types[0], op, at_ns));
    }
    if let Some(at_ns) = plain_unit(&types[1]).and(written_ns(left)) {
        let mirrored = if matches!(op, IsDistinctFrom | IsNotDistinctFrom) { op } else { op.swap()? };
        return Some(beside(right, &types[1], mirrored, at_ns));
    }
    let units = [unit_ns(&types[0])?, unit_ns(&types[1])?];
    if units[0] == units[1] {
        return None;
    }
    // What is beyond nanoseconds is equal to none of them, and less or greater than all.
    let counted = |side: &Expr, data_type: &DataType, unit_ns: i64| match (unit_ns, op) {
        (1, _) => side.clone(),
        // A subquery is joined by a cast, and by no function; by one that may fail where it is an aggregate.
        (_, Eq) if left.contains_outer() || right.contains_outer() => {
            logical_expr::cast(side.clone(), in_nanoseconds(data_type))
        }
        (_, Eq) => try_cast(side.clone(), in_nanoseconds(data_type)),
        _ => clamped(side),
    };
    let left = Box::new(counted(left, &types[0], units[0]));
    let right = Box::new(counted(right, &types[1], units[1]));
    Some(Expr::BinaryExpr(BinaryExpr { left, op, right }))
}

/// Compares a time with an instant.
fn beside(time: &Expr, data_type: &DataType, op: Operator, at_ns: i128) -> Expr {
    use Operator::{Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    let compare = |op: Operator, value: ScalarValue| {
        let value = Box::new(Expr::Literal(value, None));
        Expr::BinaryExpr(BinaryExpr { left: Box::new(time.clone()), op, right: value })
    };
    let (floor, is_exact) = floor_of(data_type, at_ns);
    let literal = |floor: i128| value_of(data_type, floor);
    match (literal(floor), op) {
        (Some(value), _) if is_exact => compare(op, value),
        (Some(value), Lt | LtEq) => compare(LtEq, value),
        (Some(value), Gt | GtEq) => compare(Gt, value),
        (_, IsDistinctFrom) => Expr::Literal(ScalarValue::Boolean(Some(true)), None),
        (_, IsNotDistinctFrom) => Expr::Literal(ScalarValue::Boolean(Some(false)), None),
        (_, NotEq) => always(time, true),
        // Beyond what the column can hold.
        (None, Lt | LtEq) => always(time, floor > 0),
        (None, Gt | GtEq) => always(time, floor < 0),
        _ => always(time, false),
    }
}

/// Returns the same answer for every time, and NULL for NULL.
fn always(time: &Expr, answer: bool) -> Expr {
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    match answer {
        true => time.clone().is_not_null().or(null),
        false => time.clone().is_null().and(null),
    }
}

fn in_between(between: Between, schema: &DFSchema) -> Transformed<Expr> {
    let Between { expr, negated, low, high } = &between;
    let bounds = [(Operator::GtEq, low), (Operator::LtEq, high)];
    let made = bounds.map(|(op, bound)| compared(expr, op, bound, schema));
    if expr.is_volatile() || made.iter().all(Option::is_none) {
        return Transformed::no(Expr::Between(between));
    }
    let [low, high] = std::array::from_fn(|at| {
        let (op, bound) = bounds[at];
        let plain = || Expr::BinaryExpr(BinaryExpr { left: expr.clone(), op, right: bound.clone() });
        made[at].clone().unwrap_or_else(plain)
    });
    let both = low.and(high);
    Transformed::yes(if *negated { !both } else { both })
}

fn in_list(list: InList, schema: &DFSchema) -> Transformed<Expr> {
    let data_type = list.expr.get_type(schema).ok().filter(|data_type| plain_unit(data_type).is_some());
    let is_own = |item: &Expr, own: &DataType| item.get_type(schema).is_ok_and(|known| known == *own);
    let Some(data_type) = data_type.filter(|own| !list.list.iter().all(|item| is_own(item, own))) else {
        return Transformed::no(Expr::InList(list));
    };
    let mut items = Vec::with_capacity(list.list.len());
    for item in &list.list {
        match written_ns(item).map(|at_ns| floor_of(&data_type, at_ns)) {
            Some((floor, true)) => {
                let value = value_of(&data_type, floor).map(|value| Expr::Literal(value, None));
                items.extend(value);
            }
            // No time of the column is equal to it.
            Some((_, false)) => {}
            None if matches!(item, Expr::Literal(value, _) if value.is_null()) => items.push(item.clone()),
            None => return Transformed::no(Expr::InList(list)),
        }
    }
    Transformed::yes(match items.is_empty() {
        true => always(&list.expr, list.negated),
        false => Expr::InList(InList { list: items, ..list }),
    })
}

/// Returns the unit of a time without a zone, in which constants can be written.
fn plain_unit(data_type: &DataType) -> Option<i64> {
    match data_type {
        DataType::Timestamp(_, None) | DataType::Date32 => unit_ns(data_type),
        _ => None,
    }
}

/// Returns an instant in whole units of a type, rounded down, and whether nothing was lost.
fn floor_of(data_type: &DataType, at_ns: i128) -> (i128, bool) {
    let unit_ns = i128::from(unit_ns(data_type).unwrap_or(1));
    (at_ns.div_euclid(unit_ns), at_ns.rem_euclid(unit_ns) == 0)
}

fn value_of(data_type: &DataType, units: i128) -> Option<ScalarValue> {
    Some(match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(units).ok()?)),
        DataType::Timestamp(unit, _) => {
            let units = Some(i64::try_from(units).ok()?);
            match unit {
                TimeUnit::Second => ScalarValue::TimestampSecond(units, None),
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(units, None),
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(units, None),
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(units, None),
            }
        }
        _ => return None,
    })
}

/// Returns the nanoseconds since 1970 of a time that is written as it is, as a text, or as a text under a cast.
fn written_ns(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(text) => text_ns(text?),
            None => {
                let data_type = value.data_type();
                let unit_ns = plain_unit(&data_type)?;
                let whole =
                    if data_type == DataType::Date32 { value.cast_to(&DataType::Int32) } else { Ok(value.clone()) };
                match whole.and_then(|whole| whole.cast_to(&DataType::Int64)) {
                    Ok(ScalarValue::Int64(Some(units))) => Some(i128::from(units) * i128::from(unit_ns)),
                    _ => None,
                }
            }
        },
        Expr::Cast(Cast { expr: inner, field }) => {
            let unit_ns = i128::from(plain_unit(field.data_type())?);
            match inner.as_ref() {
                Expr::Literal(value, _) => Some(text_ns(value.try_as_str()??)?.div_euclid(unit_ns) * unit_ns),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns whether a time is written as a type that cannot hold it: TIMESTAMP '9999-12-31', which counts nanoseconds.
fn is_far(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(Cast { field, .. }) => {
            let units = written_ns(expr).map(|at_ns| floor_of(field.data_type(), at_ns).0);
            units.is_some_and(|units| value_of(field.data_type(), units).is_none())
        }
        _ => false,
    }
}

/// Reads a time, in microseconds where nanoseconds do not reach it.
fn text_ns(text: &str) -> Option<i128> {
    let text = ScalarValue::Utf8(Some(text.to_owned()));
    match text.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, None)) {
        Ok(ScalarValue::TimestampNanosecond(Some(ns), _)) => Some(i128::from(ns)),
        _ => match text.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None)) {
            Ok(ScalarValue::TimestampMicrosecond(Some(us), _)) => Some(i128::from(us) * 1_000),
            _ => None,
        },
    }
}

/// Returns the type of the same times in nanoseconds.
fn in_nanoseconds(data_type: &DataType) -> DataType {
    let zone = match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    DataType::Timestamp(TimeUnit::Nanosecond, zone)
}

/// Returns a time in nanoseconds; what those cannot hold becomes their first or last one.
fn clamped(time: &Expr) -> Expr {
    static CLAMPED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(Clamped { signature: Signature::any(1, Volatility::Immutable) })));
    Expr::ScalarFunction(ScalarFunction::new_udf(CLAMPED.clone(), vec![time.clone()]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Clamped {
    signature: Signature,
}

impl ScalarUDFImpl for Clamped {
    fn name(&self) -> &str {
        "__zepto_clamped_ns"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(in_nanoseconds(types.first().unwrap_or(&DataType::Null)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let to = args.return_type();
        match args.args.first() {
            Some(ColumnarValue::Array(times)) => Ok(ColumnarValue::Array(count(times, to)?)),
            Some(ColumnarValue::Scalar(time)) => {
                let counted = count(&time.to_array()?, to)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&counted, 0)?))
            }
            None => exec_err!("a time is made of one value"),
        }
    }
}

fn count(times: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let unit_ns = unit_ns(times.data_type()).unwrap_or(1);
    let whole = if *times.data_type() == DataType::Date32 { cast(times, &DataType::Int32)? } else { times.clone() };
    let units = cast(&whole, &DataType::Int64)?;
    let counted: Int64Array = units.as_primitive::<Int64Type>().unary(|units| units.saturating_mul(unit_ns));
    // A zone is a label: the instants stay.
    let instants = counted.reinterpret_cast::<TimestampNanosecondType>();
    Ok(Arc::new(instants.with_data_type(to.clone())))
}
