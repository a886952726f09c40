//! What `sql/timeseries` leaves for the planner in the condition of a join: a call of a function that no statement can name.

use sqlparser::ast::{Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Value};

/// The condition of a join: a marker with its arguments, or what the user wrote as MATCH_CONDITION.
pub struct Marker {
    /// Its name; empty for what the user wrote.
    pub name: String,
    /// Its arguments.
    pub args: Vec<SqlExpr>,
}

impl Marker {
    /// Reads a condition.
    pub fn read(condition: SqlExpr) -> Self {
        match condition {
            SqlExpr::Function(call) if call.name.to_string().starts_with("__zepto") => {
                let name = call.name.to_string();
                Self { name, args: arguments(call.args) }
            }
            plain => Self { name: String::new(), args: vec![plain] },
        }
    }

    /// Returns an argument that is a text; empty for another one.
    pub fn text(&self, at: usize) -> &str {
        match self.args.get(at) {
            Some(SqlExpr::Value(value)) => match &value.value {
                Value::SingleQuotedString(text) => text,
                _ => "",
            },
            _ => "",
        }
    }

    /// Returns an argument that is not NULL.
    pub fn given(&self, at: usize) -> Option<&SqlExpr> {
        self.args.get(at).filter(|arg| !matches!(arg, SqlExpr::Value(value) if value.value == Value::Null))
    }
}

fn arguments(args: FunctionArguments) -> Vec<SqlExpr> {
    let FunctionArguments::List(list) = args else { return Vec::new() };
    let plain = list.args.into_iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    plain.collect()
}
