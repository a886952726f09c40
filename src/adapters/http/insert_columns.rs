//! ZeptoDB's options of an insertion: which columns of the body become the table's `symbol`, `price`, `volume` and
//! `timestamp`, and by what prices and volumes are multiplied.

use crate::ports::{BatchStream, Error, Result};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::kernels::numeric::mul;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;

/// A column of the table, and the options that name the body's column for it.
const NAMES: [(&str, &[&str]); 5] = [
    ("symbol", &["sym_col", "symbol_col"]),
    ("price", &["price_col"]),
    ("volume", &["vol_col", "volume_col"]),
    ("timestamp", &["ts_col", "timestamp_col"]),
    ("msg_type", &["msg_type_col"]),
];

/// A column of the table, and the options that give its factor.
const SCALES: [(&str, &[&str]); 2] = [("price", &["price_scale"]), ("volume", &["volume_scale", "vol_scale"])];

/// How to rename and scale the columns of a body.
#[derive(Debug, Clone, Default)]
pub struct InsertColumns {
    /// Name in the body, name in the table.
    names: Vec<(String, &'static str)>,
    /// Name in the table, factor.
    scales: Vec<(&'static str, f64)>,
}

impl InsertColumns {
    /// Reads the options of a request's query.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a factor that is not a finite number.
    pub fn from_query(query: &HashMap<String, String>) -> Result<Self> {
        let given = |options: &[&str]| options.iter().find_map(|option| query.get(*option));
        let names = NAMES.iter().filter_map(|(column, options)| Some((given(options)?.clone(), *column))).collect();
        let mut scales = Vec::new();
        for (column, options) in SCALES {
            if let Some(text) = given(options) {
                let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite());
                let wrong = || Error::invalid(format!("invalid value {text:?} for {}; expected a number", options[0]));
                let factor = factor.ok_or_else(wrong)?;
                scales.push((column, factor));
            }
        }
        Ok(Self { names, scales })
    }

    /// Returns whether columns stay as they are.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.scales.is_empty()
    }

    /// Returns the schema to read the body with: the table's columns under the body's names, as plain numbers where they
    /// are yet to be multiplied. A column that an option names has to be in the first row, so it is not nullable.
    pub fn body_schema(&self, table: &Schema) -> SchemaRef {
        let field = |field: &FieldRef| {
            let mut found = Field::clone(field);
            if self.scales.iter().any(|(column, _)| column == field.name()) {
                found = found.with_data_type(DataType::Float64);
            }
            match self.names.iter().find(|(_, column)| column == field.name()) {
                Some((name, _)) => found.with_name(name).with_nullable(false),
                None => found,
            }
        };
        Arc::new(Schema::new(table.fields().iter().map(field).collect::<Vec<_>>()))
    }

    /// Renames and scales the columns of `batches`. A scaled column takes its type from `table`, if that exists, so that
    /// integers stay integers.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a column that the body does not have.
    pub fn apply(self, batches: BatchStream, table: Option<&Schema>) -> Result<BatchStream> {
        if self.is_empty() {
            return Ok(batches);
        }
        let mut fields: Vec<Field> = batches.schema().fields().iter().map(|field| Field::clone(field)).collect();
        let names: Vec<_> = fields.iter().map(|field| field.name().clone()).collect();
        for (name, column) in &self.names {
            let at = names.iter().position(|known| known == name);
            let at = at.ok_or_else(|| {
                Error::invalid(format!("the body has no column {name:?}, which was to become {column:?}"))
            })?;
            fields[at] = fields[at].clone().with_name(*column);
        }
        let mut factors = vec![None; fields.len()];
        for (column, factor) in &self.scales {
            let at = fields.iter().position(|field| field.name() == column);
            let at = at.ok_or_else(|| {
                Error::invalid(format!("the body has no column {column:?}, which was to be multiplied"))
            })?;
            let own = table.and_then(|table| table.field_with_name(column).ok()).map(Field::data_type);
            let data_type = own.filter(|own| own.is_numeric()).cloned().unwrap_or(DataType::Float64);
            factors[at] = Some(*factor);
            fields[at] = fields[at].clone().with_data_type(data_type).with_metadata(HashMap::new());
        }
        let schema = Arc::new(Schema::new(fields));
        let made = schema.clone();
        Ok(BatchStream::new(schema, batches.map(move |batch| scaled(&batch?, &made, &factors))))
    }
}

fn scaled(batch: &RecordBatch, schema: &SchemaRef, factors: &[Option<f64>]) -> Result<RecordBatch> {
    let unfit = |error| Error::invalid(format!("a column of the body cannot be multiplied: {error}"));
    let mut columns = Vec::new();
    for ((column, field), factor) in batch.columns().iter().zip(schema.fields()).zip(factors) {
        columns.push(match factor {
            None => column.clone(),
            Some(factor) => multiplied(column, *factor, field.data_type()).map_err(unfit)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| Error::internal("renamed columns do not fit").with_source(error))
}

fn multiplied(
    column: &ArrayRef,
    factor: f64,
    into: &DataType,
) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let product = mul(&cast_with_options(column, &DataType::Float64, &strict)?, &Float64Array::new_scalar(factor))?;
    if !into.is_integer() {
        return cast_with_options(&product, into, &strict);
    }
    let product: &Float64Array = arrow::array::AsArray::as_primitive(&product);
    let rounded: Float64Array = product.unary(f64::round);
    cast_with_options(&rounded, into, &strict)
}
