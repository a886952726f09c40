//! Filters that compare a column of doubles, whole numbers or times with a constant, in one pass over the column.
//!
//! DataFusion copies doubles to bring -0 and 0 together, and compares them by their total order. Here NaN is above every number and
//! equal to itself, whatever its sign, and -0 is 0: what the engine says of doubles anywhere, from one comparison of the processor.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Rows that are compared before their answers are packed into bits.
const LANES: usize = 64;

/// Replaces comparisons with constants in filters.
#[derive(Debug)]
pub struct CompareConstants;

impl PhysicalOptimizerRule for CompareConstants {
    fn name(&self) -> &str {
        "CompareConstants"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(Transformed::no(node)) };
            let schema = filter.input().schema();
            let predicate = filter.predicate().clone();
            let replaced = predicate.transform_up(|expr| {
                let made = expr.downcast_ref::<BinaryExpr>().map(|binary| compare(binary, &schema)).transpose()?;
                Ok(made.flatten().map_or_else(|| Transformed::no(expr), Transformed::yes))
            })?;
            if !replaced.transformed {
                return Ok(Transformed::no(node));
            }
            let builder = FilterExecBuilder::from(filter).with_predicate(replaced.data);
            Ok(Transformed::yes(Arc::new(builder.build()?)))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn compare(binary: &BinaryExpr, schema: &Schema) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let Some(literal) = binary.right().downcast_ref::<Literal>() else { return Ok(None) };
    let data_type = binary.left().data_type(schema)?;
    if binary.left().is::<Literal>() || literal.value().data_type() != data_type {
        return Ok(None);
    }
    let constant = match literal.value() {
        ScalarValue::Float64(Some(value)) if !value.is_nan() => Constant::Double(*value),
        ScalarValue::Int64(Some(value))
        | ScalarValue::TimestampSecond(Some(value), _)
        | ScalarValue::TimestampMillisecond(Some(value), _)
        | ScalarValue::TimestampMicrosecond(Some(value), _)
        | ScalarValue::TimestampNanosecond(Some(value), _) => Constant::Whole(*value),
        _ => return Ok(None),
    };
    let op = *binary.op();
    // Of an equality it follows that a column is constant, which plans rely on.
    if !matches!(op, Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq) {
        return Ok(None);
    }
    Ok(Some(Arc::new(CompareExpr { inner: binary.left().clone(), op, constant })))
}

/// A comparison with a constant.
#[derive(Debug, Clone)]
struct CompareExpr {
    inner: Arc<dyn PhysicalExpr>,
    op: Operator,
    constant: Constant,
}

#[derive(Debug, Clone, Copy)]
enum Constant {
    /// A number that is none of the NaNs.
    Double(f64),
    /// A whole number, or a time by its unit.
    Whole(i64),
}

impl Constant {
    fn bits(self) -> (bool, u64) {
        match self {
            Self::Double(value) => (true, value.to_bits()),
            Self::Whole(value) => (false, value.cast_unsigned()),
        }
    }
}

impl PartialEq for CompareExpr {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && self.op == other.op && self.constant.bits() == other.constant.bits()
    }
}

impl Eq for CompareExpr {}

impl Hash for CompareExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.op.hash(state);
        self.constant.bits().hash(state);
    }
}

impl fmt::Display for CompareExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.constant {
            Constant::Double(value) => write!(f, "{} {} {value}", self.inner, self.op),
            Constant::Whole(value) => write!(f, "{} {} {value}", self.inner, self.op),
        }
    }
}

impl PhysicalExpr for CompareExpr {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let values = self.inner.evaluate(batch)?.into_array(batch.num_rows())?;
        let answers = match self.constant {
            Constant::Double(constant) => doubles(&values, self.op, constant)?,
            Constant::Whole(constant) => wholes(&values, self.op, constant)?,
        };
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(answers, values.nulls().cloned()))))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(inner) if children.is_empty() => Ok(Arc::new(Self { inner, ..self.as_ref().clone() })),
            _ => internal_err!("a comparison with a constant has one child"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Written as they are so that NaN passes `>`, `>=` and `<>`, and nothing else.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
fn doubles(values: &ArrayRef, op: Operator, constant: f64) -> Result<BooleanBuffer> {
    let Some(values) = values.as_primitive_opt::<Float64Type>() else {
        return internal_err!("{} is compared with a double", values.data_type());
    };
    let values = values.values();
    Ok(match op {
        Operator::NotEq => packed(values, |value| value != constant),
        Operator::Lt => packed(values, |value| value < constant),
        Operator::LtEq => packed(values, |value| value <= constant),
        Operator::Gt => packed(values, |value| !(value <= constant)),
        _ => packed(values, |value| !(value < constant)),
    })
}

fn wholes(values: &ArrayRef, op: Operator, constant: i64) -> Result<BooleanBuffer> {
    let values = cast(values, &DataType::Int64)?;
    let values = values.as_primitive::<Int64Type>().values();
    Ok(match op {
        Operator::NotEq => packed(values, |value| value != constant),
        Operator::Lt => packed(values, |value| value < constant),
        Operator::LtEq => packed(values, |value| value <= constant),
        Operator::Gt => packed(values, |value| value > constant),
        _ => packed(values, |value| value >= constant),
    })
}

/// Tests every value, one bit for each: first a byte for each, which the compiler does for several at once.
fn packed<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> BooleanBuffer {
    let mut bits: Vec<u8> = Vec::with_capacity(values.len().div_ceil(LANES) * LANES / 8);
    for chunk in values.chunks(LANES) {
        let mut answers = [0_u8; LANES];
        for (answer, value) in answers.iter_mut().zip(chunk) {
            *answer = u8::from(test(*value));
        }
        for eight in answers.as_chunks::<8>().0 {
            // Moves the lowest bit of byte i to bit 56 + i; no two of them meet.
            bits.push((u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8);
        }
    }
    BooleanBuffer::new(Buffer::from_vec(bits), 0, values.len())
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::compare_constants::{doubles, packed, wholes};
    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    use datafusion::logical_expr::Operator;
    use std::sync::Arc;

    #[test]
    fn bits_stand_for_their_rows() {
        for rows in [0, 1, 63, 64, 65, 200] {
            let values: Vec<i64> = (0..rows).map(|row| row * 7 % 5).collect();
            let bits: Vec<bool> = packed(&values, |value| value > 2).iter().collect();
            assert_eq!(bits, values.iter().map(|value| *value > 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nan_is_above_all_numbers_and_zeros_are_equal() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, -f64::NAN, f64::INFINITY, 0.0, -0.0, -1.0]));
        let passing = |op| -> Vec<usize> { doubles(&values, op, 0.0).unwrap().set_indices().collect() };
        assert_eq!(passing(Operator::Gt), [0, 1, 2]);
        assert_eq!(passing(Operator::GtEq), [0, 1, 2, 3, 4]);
        assert_eq!(passing(Operator::Lt), [5]);
        assert_eq!(passing(Operator::LtEq), [3, 4, 5]);
        assert_eq!(passing(Operator::NotEq), [0, 1, 2, 5]);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, i64::MAX]));
        let passing = |op| -> Vec<usize> { wholes(&values, op, -1).unwrap().set_indices().collect() };
        assert_eq!((passing(Operator::Gt), passing(Operator::LtEq)), (vec![2, 3], vec![0, 1]));
    }
}
