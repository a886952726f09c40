//! Translates between DataFusion's errors and the service's.

use crate::domain::catalog::closest;
use crate::domain::executor::messages::plain;
use crate::ports::{Error, ErrorKind};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

/// Returns the service's error for one of DataFusion's.
pub fn from_datafusion(error: DataFusionError) -> Error {
    let mapped = from_datafusion_ref(&error);
    if mapped.kind() == ErrorKind::Internal { mapped.with_source(error) } else { mapped }
}

/// Wraps one of our errors for its way through DataFusion; [`from_datafusion`] unwraps it unchanged.
pub fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Makes the error of a call that is refused as it stands, as DataFusion carries it.
pub fn refused(text: String) -> DataFusionError {
    to_datafusion(Error::invalid(text))
}

/// Makes the error of something that is never supported, as DataFusion carries it.
pub fn unsupported(text: String) -> DataFusionError {
    to_datafusion(Error::unsupported(text))
}

fn from_datafusion_ref(error: &DataFusionError) -> Error {
    use DataFusionError as D;
    match error {
        D::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::invalid(lowercase_first(&inner.to_string())),
        },
        D::Context(_, inner) | D::Diagnostic(_, inner) => from_datafusion_ref(inner),
        D::Shared(inner) => from_datafusion_ref(inner),
        D::Collection(errors) if !errors.is_empty() => from_datafusion_ref(&errors[0]),
        D::SchemaError(inner, _) => schema_error(inner),
        D::ResourcesExhausted(text) => Error::limit(format!("out of query memory (query_memory_bytes_max): {text}")),
        D::NotImplemented(text) => Error::unsupported(lowercase_first(&plain(text))),
        D::SQL(..) | D::Plan(_) | D::Configuration(_) | D::Execution(_) | D::ArrowError(..) => {
            Error::invalid(lowercase_first(&plain(without_advice(&without_prefix(error)))))
        }
        // Calls that fit no signature come as internal errors, too.
        D::Internal(text) if text.contains("failed to match any signature") => {
            Error::invalid(lowercase_first(&plain(without_advice(text))))
        }
        // Two things that plan and do not run in DataFusion 55.2.
        D::Internal(text) if text.contains("ScalarSubqueryExpr evaluated before") => {
            Error::unsupported("a subquery is not supported here; join with it, or put it into a SELECT")
        }
        D::Internal(text) if text.contains("Cannot run range queries on datatype") => {
            Error::unsupported("RANGE over a key of this type is not supported; use ROWS")
        }
        _ => Error::internal("internal error"),
    }
}

/// Cuts off what DataFusion advises its own users to do.
fn without_advice(text: &str) -> &str {
    let text = text.split("This issue was likely caused by a bug in DataFusion").next().unwrap_or(text);
    text.trim_start_matches("Internal error: ").trim_end_matches(['\n', '.', ' '])
}

fn schema_error(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let hint = match closest(&field.name, valid_fields.iter().map(|valid| valid.name.as_str())) {
                Some(close) => format!("; did you mean {close:?}?"),
                None => String::new(),
            };
            Error::invalid(format!("column {:?} not found{hint}", field.flat_name()))
        }
        other => Error::invalid(lowercase_first(&plain(&other.to_string()))),
    }
}

/// Returns the message without the name of DataFusion's class of errors.
fn without_prefix(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Plan(text) | DataFusionError::Configuration(text) | DataFusionError::Execution(text) => {
            text.clone()
        }
        DataFusionError::ArrowError(inner, _) => inner.to_string(),
        other => other.strip_backtrace(),
    }
}

fn lowercase_first(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // Acronyms and code keep their case.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}
