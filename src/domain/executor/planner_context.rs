//! Everything the planner may look up: the tables of one snapshot, functions, options and type names.

use crate::domain::catalog::Snapshot;
use crate::domain::executor::error::to_datafusion;
use crate::domain::executor::functions::is_table_function;
use crate::domain::executor::scan::scan_schema;
use crate::domain::sql::{ResolvedTables, TARGET, arrow_type};
use crate::domain::storage::Table;
use crate::ports::{Error, ErrorKind};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::{DFSchema, Result, TableReference, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableProviderFilterPushDown, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use sqlparser::ast;
use std::sync::Arc;

/// The planner's catalog while it plans one statement.
pub struct SnapshotContext<'a> {
    /// Functions and options.
    pub state: &'a SessionState,
    /// Tables.
    pub tables: &'a ResolvedTables,
    /// Types by name.
    pub types: Arc<dyn TypePlanner>,
}

/// A table by name and schema, which stands in a plan until the plan is bound to data.
#[derive(Debug)]
pub struct NamedTable {
    name: String,
    schema: SchemaRef,
    declared_time: Option<String>,
}

impl NamedTable {
    fn new(name: &str, table: &Arc<Table>) -> Self {
        let declared_time = table.declared_time().map(str::to_owned);
        Self { name: name.to_owned(), schema: scan_schema(table, name == TARGET), declared_time }
    }

    /// Returns the time column that the definition of the table names.
    pub fn declared_time(&self) -> Option<&str> {
        self.declared_time.as_deref()
    }

    /// Returns whether it is the table of a change, which has row numbers.
    pub fn is_numbered(&self) -> bool {
        self.name == TARGET
    }

    /// Returns the state of the table that is to be read.
    ///
    /// # Errors
    ///
    /// `NotFound` where `snapshot` does not have it.
    pub fn find(&self, snapshot: &Snapshot, target: Option<&Arc<Table>>) -> Result<Arc<Table>, Error> {
        match target.filter(|_| self.is_numbered()) {
            Some(target) => Ok(target.clone()),
            None => snapshot.table(&self.name).cloned(),
        }
    }
}

impl TableSource for NamedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

impl ContextProvider for SnapshotContext<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let Some(table) = self.tables.by_name.get(name.table()) else {
            let error = Error::new(ErrorKind::NotFound, format!("table {:?} not found", name.to_string()));
            return Err(to_datafusion(error));
        };
        Ok(Arc::new(NamedTable::new(name.table(), table)))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let function = self
            .state
            .table_functions()
            .get(name)
            .filter(|_| is_table_function(name))
            .ok_or_else(|| plan_datafusion_err!("table function {name:?} not found"))?;
        let context = SimplifyContext::builder()
            .with_config_options(self.state.config_options().clone())
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let nothing = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| simplifier.coerce(arg, &nothing).and_then(|arg| simplifier.simplify(arg)))
            .collect::<Result<Vec<_>>>()?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(self.types.clone())
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

/// Our type names, in CAST and wherever else a statement names a type.
#[derive(Debug)]
pub struct SqlTypes;

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let found = arrow_type(sql_type).map_err(to_datafusion)?;
        Ok(found.map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}
