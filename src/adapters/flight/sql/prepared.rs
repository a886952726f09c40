//! Prepared statements: their creation and their end.
//!
//! A prepared statement is its handle: the server keeps nothing for it but the parameters that are bound to it.

use crate::adapters::flight::call::CallContext;
use crate::adapters::flight::command::no_transaction;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::ipc::encode_schema;
use crate::ports::{Access, Result, StatementKind};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, ProstMessageExt,
};
use bytes::Bytes;
use prost::Message as _;

/// `ActionCreatePreparedStatementResult` with the field that arrow-flight does not have yet.
#[derive(Clone, PartialEq, prost::Message)]
struct Prepared {
    #[prost(bytes = "bytes", tag = "1")]
    handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    is_update: Option<bool>,
}

/// Prepares a statement, and returns the body of the answer.
///
/// # Errors
///
/// `Unsupported` for a transaction, and those of describing the statement.
pub async fn create(request: ActionCreatePreparedStatementRequest, call: &CallContext) -> Result<Bytes> {
    no_transaction(request.transaction_id.as_ref())?;
    // The handle has no result options: they are taken with each execution, as the session may change them.
    let handle = Handle { sql: request.query, may_change: true, ..Handle::default() };
    let described = call.state.query.describe(call.query(handle.clone(), Access::Change)).await?;
    let is_read = described.kind == StatementKind::Read;
    let schema = call.for_sql_client(handle.clone()).result_schema(&described.schema);
    let has_params = !described.params.fields().is_empty();
    let handle = Handle { prepared: has_params.then(|| uuid::Uuid::new_v4().as_u128()), ..handle };
    let prepared = Prepared {
        handle: handle.encode()?,
        dataset_schema: if is_read { encode_schema(&schema) } else { Bytes::new() },
        parameter_schema: encode_schema(&described.params),
        is_update: Some(!is_read),
    };
    let type_url = <ActionCreatePreparedStatementResult as ProstMessageExt>::type_url();
    let any = Any { type_url: type_url.to_owned(), value: prepared.encode_to_vec().into() };
    Ok(any.encode_to_vec().into())
}

/// Closes a prepared statement. Closing one that is closed already, or was never open, is not an error.
pub fn close(request: &ActionClosePreparedStatementRequest, call: &CallContext) {
    if let Ok(handle) = Handle::decode(&request.prepared_statement_handle) {
        call.state.bound_parameters.close(&handle);
    }
}
