//! SELECT, and EXPLAIN of one: planned, cached, bound to the data of a snapshot, run.

use crate::domain::catalog::Snapshot;
use crate::domain::engine::Inner;
use crate::domain::engine::parameters::parameter_schema;
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::executor::{BoundPlan, Parameters, PlanInput, PlanRequest, Prepared, QueryLimits};
use crate::domain::sql::ReadStatement;
use crate::domain::storage::Table;
use crate::ports::{BatchStream, Description, Query, Result, StatementKind};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use std::sync::Arc;

/// A statement that reads.
pub struct Select(pub ReadStatement);

#[async_trait]
impl Operation for Select {
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description> {
        let system = engine.with_system_tables(&self.0, &request.snapshot)?;
        if let (Some(snapshot), false) = (&system, request.is_unbound()) {
            let parameters = Parameters::Bound(request.query.params.clone());
            let plan = PlanRequest { statement: self.0, target: None, parameters };
            let prepared = engine.prepare_once(plan, snapshot, &request.query).await?;
            return engine.describe_prepared(&prepared, snapshot.clone(), &request.query).await;
        }
        let request = Request { snapshot: system.unwrap_or(request.snapshot), ..request };
        if request.is_unbound() {
            let hints = vec![None; request.parameters.len()];
            let (params, prepared) = engine.prepare_unbound(self.0, None, hints, &request).await?;
            let plan = engine.bind(&prepared, request.snapshot.clone(), &request.query).await?;
            return Ok(Description { params, ..Description::new(StatementKind::Read, plan.schema, None) });
        }
        let prepared = engine.prepare(self.0, &request).await?;
        engine.describe_prepared(&prepared, request.snapshot, &request.query).await
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        if let Some(snapshot) = engine.with_system_tables(&self.0, &request.snapshot)? {
            let limits = engine.query_limits(&request.query);
            let parameters = Parameters::Bound(request.query.params.clone());
            let plan = PlanRequest { statement: self.0, target: None, parameters };
            let prepared = engine.prepare_once(plan, &snapshot, &request.query).await?;
            return engine.run_prepared(&prepared, snapshot, &request.query, limits).await;
        }
        let limits = engine.query_limits(&request.query);
        let prepared = engine.prepare(self.0, &request).await?;
        engine.run_prepared(&prepared, request.snapshot, &request.query, limits).await
    }
}

impl Inner {
    /// Describes a read whose plan is there.
    pub(in crate::domain::engine) async fn describe_prepared(
        &self,
        prepared: &Prepared,
        snapshot: Arc<Snapshot>,
        query: &Query,
    ) -> Result<Description> {
        let plan = self.bind(prepared, snapshot, query).await?;
        Ok(Description::new(StatementKind::Read, plan.schema, plan.rows))
    }

    /// Runs a read whose plan is there.
    pub(in crate::domain::engine) async fn run_prepared(
        &self,
        prepared: &Prepared,
        snapshot: Arc<Snapshot>,
        query: &Query,
        limits: QueryLimits,
    ) -> Result<BatchStream> {
        let plan = self.bind(prepared, snapshot, query).await?;
        self.executor.run(plan, limits).await
    }

    /// Plans and runs a read whose plan is of no use to others.
    pub(in crate::domain::engine) async fn read_once(
        self: &Arc<Self>,
        statement: ReadStatement,
        snapshot: Arc<Snapshot>,
        query: &Query,
    ) -> Result<BatchStream> {
        let limits = self.query_limits(query);
        let snapshot = self.with_system_tables(&statement, &snapshot)?.unwrap_or(snapshot);
        let plan = PlanRequest { statement, target: None, parameters: Parameters::Bound(query.params.clone()) };
        let prepared = self.prepare_once(plan, &snapshot, query).await?;
        self.run_prepared(&prepared, snapshot, query, limits).await
    }

    /// Plans a statement whose parameters have no values, with the types that are known of them; returns the schema of the
    /// parameters and the plan.
    pub(in crate::domain::engine) async fn prepare_unbound(
        self: &Arc<Self>,
        statement: ReadStatement,
        target: Option<Arc<Table>>,
        hints: Vec<Option<DataType>>,
        request: &Request,
    ) -> Result<(SchemaRef, Prepared)> {
        let plan = PlanRequest { statement, target, parameters: Parameters::Unbound(hints) };
        let prepared = self.prepare_once(plan, &request.snapshot, &request.query).await?;
        Ok((parameter_schema(&request.parameters, prepared.params()), prepared))
    }

    /// Plans what is of no use to others.
    pub(in crate::domain::engine) async fn prepare_once(
        self: &Arc<Self>,
        plan: PlanRequest,
        snapshot: &Arc<Snapshot>,
        query: &Query,
    ) -> Result<Prepared> {
        let snapshot = snapshot.clone();
        self.planning(self.time_limit(query), move |inner| inner.executor.prepare(plan, &snapshot)).await
    }

    /// Plans a read, and caches the plan where it may serve again.
    async fn prepare(self: &Arc<Self>, statement: ReadStatement, request: &Request) -> Result<Arc<Prepared>> {
        let query = &request.query;
        let plan = PlanRequest { statement, target: None, parameters: Parameters::Bound(query.params.clone()) };
        let (sql, snapshot) = (query.sql.clone(), request.snapshot.clone());
        self.planning(self.time_limit(query), move |inner| inner.executor.prepare_and_cache(&sql, plan, &snapshot))
            .await
    }

    async fn bind(&self, prepared: &Prepared, snapshot: Arc<Snapshot>, query: &Query) -> Result<BoundPlan> {
        self.executor.bind(prepared, PlanInput { snapshot, target: None, part: query.part }).await
    }
}
