//! What Flight SQL says of a result's columns in their fields' metadata, and who takes it off again.
//!
//! It is true of one result. A caller that sends a result back as rows of its own sends that along, and a table that is made of
//! them must not say it for ever, whichever protocol they came by.

use crate::adapters::ipc::Presentation;
use crate::ports::BatchStream;
use arrow::datatypes::{Field, FieldRef, Schema};
use std::sync::Arc;

/// The keys (FlightSql.proto, "CommandStatementQuery").
pub const DESCRIPTIONS: [&str; 7] = [
    "ARROW:FLIGHT:SQL:TYPE_NAME",
    "ARROW:FLIGHT:SQL:PRECISION",
    "ARROW:FLIGHT:SQL:SCALE",
    "ARROW:FLIGHT:SQL:IS_AUTO_INCREMENT",
    "ARROW:FLIGHT:SQL:IS_CASE_SENSITIVE",
    "ARROW:FLIGHT:SQL:IS_READ_ONLY",
    "ARROW:FLIGHT:SQL:IS_SEARCHABLE",
];

/// `batches`, whose fields say nothing of that. Where none did, nothing is touched.
pub fn undescribed(batches: BatchStream) -> BatchStream {
    let bare = |field: &FieldRef| {
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| !DESCRIPTIONS.contains(&key.as_str()));
        Field::clone(field).with_metadata(metadata)
    };
    let schema = batches.schema();
    let fields: Vec<_> = schema.fields().iter().map(bare).collect();
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    Presentation::default().present(batches, Arc::new(schema))
}

#[cfg(test)]
mod tests {
    use crate::adapters::ipc::undescribed;
    use crate::ports::BatchStream;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    #[test]
    fn what_was_said_of_a_result_is_taken_off_and_the_rest_stays() {
        let said = [("ARROW:FLIGHT:SQL:SCALE", "2"), ("ARROW:FLIGHT:SQL:REMARKS", "mine"), ("unit", "EUR")];
        let said = said.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let field = Field::new("a", DataType::Int64, true).with_metadata(said.clone().into());
        let bare = undescribed(BatchStream::empty(Arc::new(Schema::new(vec![field])))).schema();
        assert_eq!(*bare.field(0).metadata(), said[1..].iter().cloned().collect());
    }
}
