//! `locf(x)` and `interpolate(x)`: how an aggregate is filled. They mean something only beside a bucket that fills gaps.

use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// Returns the functions.
pub fn fill_functions() -> Vec<Arc<ScalarUDF>> {
    [("locf", 1), ("interpolate", 1), ("__zepto_fill", 2)]
        .map(|(name, count)| {
            let signature = Signature::any(count, Volatility::Immutable);
            Arc::new(ScalarUDF::from(FillFunction { name, signature }))
        })
        .to_vec()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FillFunction {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for FillFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.name, types) {
            ("interpolate", [number]) if number.is_integer() || number.is_decimal() => Ok(DataType::Float64),
            ("interpolate", [number]) if !number.is_floating() => plan_err!("interpolate takes a number, not {number}"),
            (_, [first, ..]) => Ok(first.clone()),
            (name, []) => plan_err!("{name} takes an aggregate"),
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("{} stands only beside a bucket that fills gaps, around an aggregate", self.name)
    }
}
