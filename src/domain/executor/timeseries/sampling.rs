//! Which rows are in a sample: those whose hash is below a share of all hashes, so that the same query answers the same.

use crate::domain::executor::error::refused;
use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::{Arc, LazyLock};

/// Returns the function; it takes a share and the columns of a row.
pub fn sampling() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        Arc::new(ScalarUDF::from(Sampled { signature: Signature::variadic_any(Volatility::Immutable) }))
    });
    FUNCTION.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sampled {
    signature: Signature,
}

impl ScalarUDFImpl for Sampled {
    fn name(&self) -> &str {
        "__zepto_sampled"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(ColumnarValue::Scalar(ScalarValue::Float64(Some(share)))) = args.args.first() else {
            return Err(refused("a sample has a share".to_owned()));
        };
        let rows = args.number_rows;
        let columns = args.args[1..].iter().map(|column| column.to_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let mut hashes = vec![0; rows];
        create_hashes(&columns, &RandomState::with_seed(0x5a65_7074_6f53_616d), &mut hashes)?;
        let below = |hash: &u64| (mixed(*hash) >> 11) as f64 / (1_u64 << 53) as f64 <= *share && *share > 0.0;
        let sampled: BooleanArray = hashes.iter().map(|hash| Some(below(hash))).collect();
        Ok(ColumnarValue::Array(Arc::new(sampled)))
    }
}

/// Spreads a hash over all bits (the finaliser of SplitMix64).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
