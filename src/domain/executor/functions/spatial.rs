//! Distances on the earth: `haversine`, `st_distance`, `st_within`, of degrees of latitude and longitude.
//!
//! By the haversine formula (R. W. Sinnott, "Virtues of the Haversine", Sky & Telescope 68, 1984) on a sphere of the earth's mean
//! radius, in metres: up to half a percent beside the ellipsoid. NULL where an argument is NULL.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// Mean radius of the earth (IUGG).
const RADIUS_M: f64 = 6_371_008.8;

/// Returns the functions.
pub fn spatial() -> [Arc<ScalarUDF>; 2] {
    [Kind::Distance, Kind::Within].map(|kind| {
        let arguments = if kind == Kind::Distance { 4 } else { 5 };
        let signature = Signature::exact(vec![DataType::Float64; arguments], Volatility::Immutable);
        let aliases = if kind == Kind::Distance { vec!["st_distance".to_owned()] } else { Vec::new() };
        Arc::new(ScalarUDF::from(Spatial { kind, signature, aliases }))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// `haversine(latitude, longitude, latitude, longitude)` in metres.
    Distance,
    /// `st_within(latitude, longitude, latitude, longitude, metres)`.
    Within,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Spatial {
    kind: Kind,
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Spatial {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Distance => "haversine",
            Kind::Within => "st_within",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Distance => DataType::Float64,
            Kind::Within => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let columns: Option<Vec<&Float64Array>> = columns.iter().map(|column| column.as_primitive_opt()).collect();
        let Some([a, b, c, d, rest @ ..]) = columns.as_deref() else { return internal_err!("degrees are doubles") };
        let at = |column: &Float64Array, row: usize| column.is_valid(row).then(|| column.value(row));
        let distance = |row: usize| Some(distance_m([at(a, row)?, at(b, row)?], [at(c, row)?, at(d, row)?]));
        let rows = 0..a.len();
        let answer: ArrayRef = match rest.first() {
            None => Arc::new(rows.map(distance).collect::<arrow::array::PrimitiveArray<Float64Type>>()),
            Some(radius) => {
                let within = |row: usize| Some(distance(row)? <= at(radius, row)?);
                Arc::new(rows.map(within).collect::<BooleanArray>())
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}

/// Returns the distance of two places, given by latitude and longitude in degrees.
fn distance_m(from: [f64; 2], to: [f64; 2]) -> f64 {
    let ([from_lat, from_lon], [to_lat, to_lon]) = (from.map(f64::to_radians), to.map(f64::to_radians));
    let half = |angle: f64| (angle / 2.0).sin().powi(2);
    let chord = half(to_lat - from_lat) + from_lat.cos() * to_lat.cos() * half(to_lon - from_lon);
    // Digits that are lost may bring it above 1 for places opposite to each other. NaN stays.
    let chord = if chord > 1.0 { 1.0 } else { chord };
    2.0 * RADIUS_M * chord.sqrt().asin()
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::functions::spatial::distance_m;

    #[test]
    fn a_degree_and_half_the_earth() {
        let degree = std::f64::consts::PI * 6_371_008.8 / 180.0;
        for (from, to, expected) in [
            ([0.0, 0.0], [0.0, 0.0], 0.0),
            ([0.0, 0.0], [1.0, 0.0], degree),
            ([60.0, 10.0], [60.0, 11.0], degree * 0.499_993),
            ([0.0, 179.5], [0.0, -179.5], degree),
            ([90.0, 0.0], [-90.0, 77.0], 180.0 * degree),
        ] {
            let found = distance_m(from, to);
            assert!((found - expected).abs() < 1.0, "{from:?} {to:?}: {found} {expected}");
        }
        assert!(distance_m([f64::NAN, 0.0], [0.0, 0.0]).is_nan());
    }
}
