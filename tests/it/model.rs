//! Random sequences of definitions, ingestion, changes and queries against a model that is too simple to be wrong.

use crate::harness::{Sut, int, memory, one};
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use zepto_flight::ports::{Caller, ErrorKind, Query, SnapshotId};

/// A table is its rows: key and value.
type Rows = Vec<(i64, Option<i64>)>;

#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    CreateAs(usize, usize),
    Drop(usize),
    Put(usize, Vec<(i64, Option<i64>)>, usize),
    Insert(usize, i64, Option<i64>),
    InsertFrom(usize, usize),
    Delete(usize, i64),
    Update(usize, i64, i64),
    Truncate(usize),
    Query(usize, i64),
    Pin,
    ReadPinned(usize),
}

const TABLES: [&str; 3] = ["a", "b", "c"];

fn step() -> impl Strategy<Value = Step> {
    let table = || 0..TABLES.len();
    let key = || -5..20_i64;
    let value = || proptest::option::of(-3..3_i64);
    prop_oneof![
        table().prop_map(Step::Create),
        (table(), table()).prop_map(|(to, from)| Step::CreateAs(to, from)),
        table().prop_map(Step::Drop),
        (table(), proptest::collection::vec((key(), value()), 0..30), 1..6_usize)
            .prop_map(|(table, rows, size)| Step::Put(table, rows, size)),
        (table(), proptest::collection::vec((key(), value()), 0..30), 1..6_usize)
            .prop_map(|(table, rows, size)| Step::Put(table, rows, size)),
        (table(), key(), value()).prop_map(|(table, key, value)| Step::Insert(table, key, value)),
        (table(), table()).prop_map(|(to, from)| Step::InsertFrom(to, from)),
        (table(), key()).prop_map(|(table, key)| Step::Delete(table, key)),
        (table(), key(), key()).prop_map(|(table, key, by)| Step::Update(table, key, by)),
        table().prop_map(Step::Truncate),
        (table(), key()).prop_map(|(table, key)| Step::Query(table, key)),
        (table(), key()).prop_map(|(table, key)| Step::Query(table, key)),
        Just(Step::Pin),
        table().prop_map(Step::ReadPinned),
    ]
}

#[derive(Default)]
struct Model {
    tables: BTreeMap<&'static str, Rows>,
    pinned: Option<(SnapshotId, BTreeMap<&'static str, Rows>)>,
}

fn batch(rows: &[(i64, Option<i64>)]) -> RecordBatch {
    let keys = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let values = Int64Array::from_iter(rows.iter().map(|row| row.1));
    RecordBatch::try_from_iter_with_nullable([("k", Arc::new(keys) as _, true), ("v", Arc::new(values) as _, true)])
        .unwrap()
}

fn rows_of(batches: &[RecordBatch]) -> Rows {
    if batches.is_empty() {
        return Vec::new();
    }
    let all = one(batches);
    let column = |at: usize| all.column(at).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    column(0).into_iter().map(Option::unwrap).zip(column(1)).collect()
}

impl Model {
    /// Runs a change on the engine and on the model, and compares the counts.
    async fn change(&mut self, sut: &Sut, table: usize, sql: String, change: impl FnOnce(&mut Rows) -> usize) {
        match self.tables.get_mut(TABLES[table]) {
            Some(rows) => assert_eq!(sut.count(&sql).await, change(rows) as i64, "{sql}"),
            None => assert_eq!(sut.change(&sql).await.unwrap_err().kind(), ErrorKind::NotFound, "{sql}"),
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each kind of step")]
    async fn run(&mut self, sut: &Sut, step: Step) {
        match step {
            Step::Create(table) => {
                let made = sut.change(&format!("CREATE TABLE {} (k INT64, v INT64)", TABLES[table])).await;
                match self.tables.contains_key(TABLES[table]) {
                    true => assert_eq!(made.unwrap_err().kind(), ErrorKind::AlreadyExists),
                    false => {
                        made.unwrap();
                        self.tables.insert(TABLES[table], Vec::new());
                    }
                }
            }
            Step::CreateAs(to, from) => {
                let sql = format!("CREATE TABLE IF NOT EXISTS {} AS SELECT * FROM {}", TABLES[to], TABLES[from]);
                let made = sut.change(&sql).await;
                match (self.tables.contains_key(TABLES[to]), self.tables.get(TABLES[from]).cloned()) {
                    (true, _) => drop(made.unwrap()),
                    (false, None) => assert_eq!(made.unwrap_err().kind(), ErrorKind::NotFound),
                    (false, Some(rows)) => {
                        made.unwrap();
                        self.tables.insert(TABLES[to], rows);
                    }
                }
            }
            Step::Drop(table) => {
                let dropped = sut.change(&format!("DROP TABLE {}", TABLES[table])).await;
                assert_eq!(dropped.is_ok(), self.tables.remove(TABLES[table]).is_some());
            }
            Step::Put(table, rows, size) => {
                let batches: Vec<_> = rows.chunks(size).map(batch).collect();
                sut.append(TABLES[table], batch(&[]).schema(), batches).await.unwrap();
                self.tables.entry(TABLES[table]).or_default().extend(rows);
            }
            Step::Insert(table, key, value) => {
                let shown = value.map_or("NULL".to_owned(), |value| value.to_string());
                let sql = format!("INSERT INTO {} VALUES ({key}, {shown})", TABLES[table]);
                self.change(sut, table, sql, |rows| {
                    rows.push((key, value));
                    1
                })
                .await;
            }
            Step::InsertFrom(to, from) => {
                let Some(more) = self.tables.get(TABLES[from]).cloned().filter(|rows| rows.len() < 2_000) else {
                    return;
                };
                let sql = format!("INSERT INTO {} SELECT * FROM {}", TABLES[to], TABLES[from]);
                self.change(sut, to, sql, |rows| {
                    rows.extend(&more);
                    more.len()
                })
                .await;
            }
            Step::Delete(table, key) => {
                let sql = format!("DELETE FROM {} WHERE v > 0 AND k < {key}", TABLES[table]);
                self.change(sut, table, sql, |rows| {
                    let before = rows.len();
                    rows.retain(|(k, v)| !(v.is_some_and(|v| v > 0) && *k < key));
                    before - rows.len()
                })
                .await;
            }
            Step::Update(table, key, by) => {
                let sql = format!("UPDATE {} SET v = v + {by} WHERE k = {key}", TABLES[table]);
                self.change(sut, table, sql, |rows| {
                    let hit = rows.iter_mut().filter(|row| row.0 == key);
                    hit.map(|row| row.1 = row.1.map(|v| v + by)).count()
                })
                .await;
            }
            Step::Truncate(table) => {
                self.change(sut, table, format!("TRUNCATE {}", TABLES[table]), |rows| std::mem::take(rows).len()).await;
            }
            Step::Query(table, key) => self.query(sut, table, key).await,
            Step::Pin => {
                self.pinned = Some((sut.query.snapshot(Caller::default()).await.unwrap(), self.tables.clone()))
            }
            Step::ReadPinned(table) => {
                let Some((id, tables)) = &self.pinned else { return };
                let Some(rows) = tables.get(TABLES[table]) else { return };
                let query = Query { snapshot: Some(*id), ..Query::read(format!("SELECT * FROM {}", TABLES[table])) };
                let batches = sut.query.query(query).await.unwrap().batches.collect().await.unwrap();
                assert_eq!(rows_of(&batches), *rows);
            }
        }
    }

    async fn query(&self, sut: &Sut, table: usize, key: i64) {
        let Some(rows) = self.tables.get(TABLES[table]) else { return };
        let name = TABLES[table];
        assert_eq!(rows_of(&sut.read(&format!("SELECT * FROM {name}")).await.unwrap()), *rows);
        let filtered = sut.read(&format!("SELECT k, v FROM {name} WHERE k >= {key}")).await.unwrap();
        let expected: Rows = rows.iter().copied().filter(|row| row.0 >= key).collect();
        assert_eq!(rows_of(&filtered), expected);
        let count = sut.read(&format!("SELECT count(v) FROM {name} WHERE k <> {key}")).await.unwrap();
        let expected = rows.iter().filter(|row| row.0 != key && row.1.is_some()).count();
        assert_eq!(int(&count), expected as i64);
        let described = sut.query.describe(Query::read(format!("SELECT * FROM {name}"))).await.unwrap();
        assert_eq!(described.rows, Some(rows.len() as u64));
    }
}

#[test]
fn the_engine_does_what_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..60))| {
        runtime.block_on(async {
            let sut = Sut::of(memory(), Vec::new());
            let mut model = Model::default();
            for step in steps {
                model.run(&sut, step).await;
            }
            for table in 0..TABLES.len() {
                model.query(&sut, table, 0).await;
            }
        });
    });
}
