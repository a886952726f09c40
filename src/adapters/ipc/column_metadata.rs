//! Flight SQL's metadata of a result's columns, and its removal from ingested streams.
//!
//! It holds for one result. A client that sends a result back as rows to ingest sends the metadata along, and a table
//! that is created from them must not keep it, whichever protocol they arrive by.

use crate::ports::{BatchStream, Error, Result};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use futures::StreamExt;
use std::future::ready;
use std::sync::Arc;

/// Keys of the metadata (FlightSql.proto, "CommandStatementQuery").
pub const SQL_METADATA_KEYS: [&str; 7] = [
    "ARROW:FLIGHT:SQL:TYPE_NAME",
    "ARROW:FLIGHT:SQL:PRECISION",
    "ARROW:FLIGHT:SQL:SCALE",
    "ARROW:FLIGHT:SQL:IS_AUTO_INCREMENT",
    "ARROW:FLIGHT:SQL:IS_CASE_SENSITIVE",
    "ARROW:FLIGHT:SQL:IS_READ_ONLY",
    "ARROW:FLIGHT:SQL:IS_SEARCHABLE",
];

/// Removes that metadata from the fields of `batches`. Where there is none, no batch is touched.
pub fn strip_sql_metadata(batches: BatchStream) -> BatchStream {
    let bare = |field: &FieldRef| {
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| !SQL_METADATA_KEYS.contains(&key.as_str()));
        Field::clone(field).with_metadata(metadata)
    };
    let given = batches.schema();
    let fields: Vec<_> = given.fields().iter().map(bare).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, given.metadata().clone()));
    if schema == given {
        return batches;
    }
    let target = schema.clone();
    // A batch without rows carries nothing, and is left out.
    let batches = batches.filter(|batch| ready(batch.as_ref().map_or(true, |batch| batch.num_rows() > 0)));
    BatchStream::new(schema, batches.map(move |batch| with_schema(batch?, &target)))
}

fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal("a batch does not fit its schema without metadata").with_source(error))
}

#[cfg(test)]
mod tests {
    use crate::adapters::ipc::column_metadata::strip_sql_metadata;
    use crate::ports::BatchStream;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    #[test]
    fn metadata_of_a_result_is_removed_and_the_rest_stays() {
        let given = [("ARROW:FLIGHT:SQL:SCALE", "2"), ("ARROW:FLIGHT:SQL:REMARKS", "mine"), ("unit", "EUR")];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let field = Field::new("a", DataType::Int64, true).with_metadata(given.clone().into());
        let bare = strip_sql_metadata(BatchStream::empty(Arc::new(Schema::new(vec![field])))).schema();
        assert_eq!(*bare.field(0).metadata(), given[1..].iter().cloned().collect());
    }
}
