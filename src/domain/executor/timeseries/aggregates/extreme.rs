//! The value of the row whose key is least or greatest: `first`, `last`, `arg_min`, `arg_max`, `selector_first` and its kind.
//!
//! A batch is gone through for the rows that win; only of those is the value taken out, so that a series in order of time costs
//! a comparison for each row.

use crate::domain::executor::timeseries::aggregates::one_group::OneGroup;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Fields, Float64Type, Int64Type, UInt64Type};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use std::sync::Arc;

/// Returns the functions.
pub fn extremes() -> Vec<Arc<AggregateUDF>> {
    use Kind::{ArgMax, ArgMin, First, Last, SelectorFirst, SelectorLast, SelectorMax, SelectorMin};
    [First, Last, ArgMin, ArgMax, SelectorFirst, SelectorLast, SelectorMin, SelectorMax]
        .map(|kind| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(AggregateUDF::from(Extreme { kind, signature, aliases: kind.aliases() }))
        })
        .to_vec()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    First,
    Last,
    ArgMin,
    ArgMax,
    SelectorFirst,
    SelectorLast,
    SelectorMin,
    SelectorMax,
}

impl Kind {
    fn aliases(self) -> Vec<String> {
        let aliases: &[&str] = match self {
            Self::ArgMin => &["argmin", "min_by"],
            Self::ArgMax => &["argmax", "max_by"],
            _ => &[],
        };
        aliases.iter().map(|alias| (*alias).to_owned()).collect()
    }

    /// Returns whether the greatest key wins.
    fn is_greatest(self) -> bool {
        matches!(self, Self::Last | Self::ArgMax | Self::SelectorLast | Self::SelectorMax)
    }

    /// Returns whether the last to arrive of equal keys wins.
    fn is_last(self) -> bool {
        matches!(self, Self::Last | Self::SelectorLast)
    }

    fn is_selector(self) -> bool {
        matches!(self, Self::SelectorFirst | Self::SelectorLast | Self::SelectorMin | Self::SelectorMax)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    kind: Kind,
    signature: Signature,
    aliases: Vec<String>,
}

impl Extreme {
    /// Returns the type of the key, by those of the arguments; a value alone has its place for one.
    fn key_type(&self, types: &[DataType]) -> DataType {
        match (self.kind, types) {
            (Kind::SelectorMin | Kind::SelectorMax, [value, ..]) => value.clone(),
            (_, [_, key, ..]) => key.clone(),
            _ => DataType::Int64,
        }
    }

    fn groups(&self, types: &[DataType]) -> Groups {
        let value_type = self.return_type(types).unwrap_or(DataType::Null);
        Groups { kind: self.kind, value_type, key_type: self.key_type(types), best: Vec::new() }
    }
}

fn types_of(fields: &[FieldRef]) -> Vec<DataType> {
    fields.iter().map(|field| field.data_type().clone()).collect()
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        match self.kind {
            Kind::First => "first",
            Kind::Last => "last",
            Kind::ArgMin => "arg_min",
            Kind::ArgMax => "arg_max",
            Kind::SelectorFirst => "selector_first",
            Kind::SelectorLast => "selector_last",
            Kind::SelectorMin => "selector_min",
            Kind::SelectorMax => "selector_max",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let takes_one = matches!(self.kind, Kind::First | Kind::Last);
        if types.len() != 2 && !(takes_one && types.len() == 1) {
            let keys = if takes_one {
                "a value, and its time if it is to be another than the table's"
            } else {
                "a value and a key"
            };
            return plan_err!("{} takes {keys}", self.name());
        }
        // A dictionary's values are taken out one by one anyway.
        let plain = |data_type: &DataType| match data_type {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        };
        let types: Vec<_> = types.iter().map(plain).collect();
        let key = self.key_type(&types);
        let is_ordered = key.is_primitive() && !matches!(key, DataType::Interval(_) | DataType::Decimal256(..));
        match is_ordered || key.is_string() || matches!(key, DataType::Boolean | DataType::Null) {
            true => Ok(types),
            false => plan_err!("{} cannot order rows by {key}", self.name()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value, time] if self.kind.is_selector() => Ok(DataType::Struct(selected(value, time))),
            [value, ..] => Ok(value.clone()),
            [] => plan_err!("{} takes a value", self.name()),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let types = types_of(args.input_fields);
        let field = |part: &str, data_type| Arc::new(Field::new(format!("{}[{part}]", args.name), data_type, true));
        Ok(vec![field("value", self.return_type(&types)?), field("key", self.key_type(&types))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(self.groups(&types_of(args.expr_fields)))))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&types_of(args.expr_fields))))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The fields of what a selector answers (InfluxDB 3).
fn selected(value: &DataType, time: &DataType) -> Fields {
    Fields::from(vec![Field::new("value", value.clone(), true), Field::new("time", time.clone(), true)])
}

/// A key that orders rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i128),
    Row(OwnedRow),
}

/// The best row of a group so far.
#[derive(Debug, Clone)]
struct Best {
    key: Key,
    key_value: ScalarValue,
    value: ScalarValue,
}

#[derive(Debug, Clone)]
struct Groups {
    kind: Kind,
    value_type: DataType,
    key_type: DataType,
    best: Vec<Option<Best>>,
}

impl Groups {
    /// Takes rows in whose keys are `keys`.
    fn add(
        &mut self,
        values: &ArrayRef,
        key_values: &ArrayRef,
        group_indices: &[usize],
        passes: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let keys = Keys::new(key_values)?;
        // The best row of each group within this batch, and those groups.
        let mut winners: Vec<usize> = vec![usize::MAX; self.best.len()];
        let mut touched = Vec::new();
        for (row, group) in group_indices.iter().enumerate() {
            if !passes(row) || values.is_null(row) || key_values.is_null(row) {
                continue;
            }
            let best = winners[*group];
            if best == usize::MAX {
                touched.push(*group);
                winners[*group] = row;
            } else if self.beats(keys.compare(row, best)) {
                winners[*group] = row;
            }
        }
        for group in touched {
            let row = winners[group];
            let key = keys.key(row);
            let wins = self.best[group].as_ref().is_none_or(|best| self.beats(key.cmp(&best.key)));
            if wins {
                let value = ScalarValue::try_from_array(values, row)?;
                let key_value = ScalarValue::try_from_array(key_values, row)?;
                self.best[group] = Some(Best { key, key_value, value });
            }
        }
        Ok(())
    }

    /// Returns whether a row that came later takes the place of one, by how its key compares.
    fn beats(&self, later: std::cmp::Ordering) -> bool {
        match later {
            std::cmp::Ordering::Equal => self.kind.is_last(),
            std::cmp::Ordering::Greater => self.kind.is_greatest(),
            std::cmp::Ordering::Less => !self.kind.is_greatest(),
        }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Option<Best>> {
        emit_to.take_needed(&mut self.best)
    }
}

fn array_of(values: impl Iterator<Item = Option<ScalarValue>>, data_type: &DataType) -> Result<ArrayRef> {
    let null = ScalarValue::try_from(data_type)?;
    let values: Vec<_> = values.map(|value| value.unwrap_or_else(|| null.clone())).collect();
    if values.is_empty() {
        return Ok(arrow::array::new_empty_array(data_type));
    }
    ScalarValue::iter_to_array(values)
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.best.resize(group_count.max(self.best.len()), None);
        let passes = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let constant = |rows| Arc::new(arrow::array::Int64Array::from(vec![0; rows])) as ArrayRef;
        match (self.kind, values) {
            (_, []) => Ok(()),
            (_, [value]) => self.add(value, &constant(value.len()), group_indices, passes),
            (kind, [value, time]) if kind.is_selector() => {
                let key = if matches!(kind, Kind::SelectorMin | Kind::SelectorMax) { value } else { time };
                let fields = selected(value.data_type(), time.data_type());
                let both = StructArray::new(fields, vec![value.clone(), time.clone()], value.nulls().cloned());
                let both: ArrayRef = Arc::new(both);
                self.add(&both, key, group_indices, passes)
            }
            (_, [value, key, ..]) => self.add(value, key, group_indices, passes),
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let best = self.take(emit_to);
        array_of(best.into_iter().map(|best| best.map(|best| best.value)), &self.value_type)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (values, keys): (Vec<_>, Vec<_>) =
            self.take(emit_to).into_iter().map(|best| best.map(|best| (best.value, best.key_value)).unzip()).unzip();
        Ok(vec![array_of(values.into_iter(), &self.value_type)?, array_of(keys.into_iter(), &self.key_type)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], group_count: usize) -> Result<()> {
        self.best.resize(group_count.max(self.best.len()), None);
        let [values, keys] = states else { return internal_err!("an extreme has two states") };
        self.add(values, keys, group_indices, |_| true)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        // Each row is a group of its own.
        let rows = values.first().map_or(0, |values| values.len());
        let mut each = Self { best: Vec::new(), ..self.clone() };
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let values: usize = self.best.iter().flatten().map(|best| best.value.size() + best.key_value.size()).sum();
        values + self.best.capacity() * size_of::<Option<Best>>()
    }
}

/// The keys of a batch.
enum Keys {
    Signed(arrow::array::Int64Array),
    Unsigned(arrow::array::UInt64Array),
    Float(Float64Array),
    Decimal(arrow::array::Decimal128Array),
    Rows(arrow::row::Rows),
}

impl Keys {
    fn new(keys: &ArrayRef) -> Result<Self> {
        use DataType::{Decimal32, Decimal64, Decimal128, Float16, Float32, Float64, UInt8, UInt16, UInt32, UInt64};
        Ok(match keys.data_type() {
            Float16 | Float32 | Float64 => Self::Float(cast(keys, &Float64)?.as_primitive::<Float64Type>().clone()),
            UInt8 | UInt16 | UInt32 | UInt64 => {
                Self::Unsigned(cast(keys, &UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            Decimal32(..) | Decimal64(..) | Decimal128(..) => {
                let wide = match keys.data_type() {
                    Decimal32(_, scale) | Decimal64(_, scale) => Decimal128(38, *scale),
                    other => other.clone(),
                };
                Self::Decimal(cast(keys, &wide)?.as_primitive::<Decimal128Type>().clone())
            }
            other if other.is_primitive() => Self::Signed(integers(keys)?),
            other => {
                let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
                Self::Rows(converter.convert_columns(std::slice::from_ref(keys))?)
            }
        })
    }

    fn compare(&self, a: usize, b: usize) -> std::cmp::Ordering {
        match self {
            Self::Signed(keys) => keys.value(a).cmp(&keys.value(b)),
            Self::Unsigned(keys) => keys.value(a).cmp(&keys.value(b)),
            Self::Float(keys) => float_key(keys.value(a)).cmp(&float_key(keys.value(b))),
            Self::Decimal(keys) => keys.value(a).cmp(&keys.value(b)),
            Self::Rows(keys) => keys.row(a).cmp(&keys.row(b)),
        }
    }

    fn key(&self, row: usize) -> Key {
        match self {
            Self::Signed(keys) => Key::Number(keys.value(row).into()),
            Self::Unsigned(keys) => Key::Number(keys.value(row).into()),
            Self::Float(keys) => Key::Number(float_key(keys.value(row)).into()),
            Self::Decimal(keys) => Key::Number(keys.value(row)),
            Self::Rows(keys) => Key::Row(keys.row(row).owned()),
        }
    }
}

/// Returns whole numbers, dates, times and durations as their numbers.
fn integers(keys: &ArrayRef) -> Result<arrow::array::Int64Array> {
    let narrow = match keys.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(keys, &DataType::Int32)?,
        _ => keys.clone(),
    };
    Ok(cast(&narrow, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Maps a number to an integer of the same order; every NaN is above all others, and both zeros are one.
fn float_key(value: f64) -> i64 {
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bits = value.to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed())
}
