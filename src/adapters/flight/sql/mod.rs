//! Flight SQL beyond statements: the catalogue, types, the server's description of itself, prepared statements.

pub(super) mod catalog;
pub(super) mod prepared;
pub(super) mod sql_info;
pub(super) mod type_info;
