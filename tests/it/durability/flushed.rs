//! A server whose rows leave memory after every change: whatever it answers, it read from the disk.

use crate::durability::random::Random;
use crate::harness::url_of;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zepto_flight::app;
use zepto_flight::domain::{Engine, EngineOptions};
use zepto_flight::ports::{
    Access, Append, BatchStream, Caller, Description, IngestPort, IngestSummary, Query, QueryPort, Reply, Result,
    SnapshotId, TableInfo, WriterState,
};

#[derive(Debug)]
pub struct Flushed {
    engine: Engine,
    _directory: TempDir,
}

impl Flushed {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = app::engine(&url_of(directory.path()), EngineOptions::default()).unwrap().0;
        Self { engine, _directory: directory }
    }

    async fn flush(&self) {
        self.engine.flush().await.unwrap();
        self.engine.evict();
    }
}

#[async_trait]
impl QueryPort for Flushed {
    async fn describe(&self, query: Query) -> Result<Description> {
        self.engine.describe(query).await
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let changes = query.access == Access::Change;
        let Reply { kind, batches } = self.engine.query(query).await?;
        if !changes {
            self.engine.evict();
            return Ok(Reply { kind, batches });
        }
        let schema = batches.schema();
        let answer = batches.collect().await?;
        self.flush().await;
        Ok(Reply { kind, batches: BatchStream::from_batches(schema, answer) })
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        self.engine.exchange(query, input).await
    }

    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId> {
        self.engine.snapshot(caller).await
    }

    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>> {
        self.engine.tables(caller).await
    }

    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo> {
        self.engine.table(name, caller).await
    }
}

#[async_trait]
impl IngestPort for Flushed {
    async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary> {
        let summary = self.engine.append(request, batches).await?;
        self.flush().await;
        Ok(summary)
    }

    async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState> {
        self.engine.writer(table, writer, caller).await
    }
}

/// Rows of every kind that a part may have, in several batches and with different dictionaries.
async fn fill(engine: &Engine) {
    for number in 0..4 {
        let sql = format!(
            "SELECT n, n * 0.5 AS x, 's' || (n % 7) AS s, arrow_cast('d' || ((n + {number}) % 3), 'Dictionary(Int8, Utf8)') AS d, \
             [n, n + 1] AS l, NULL AS nothing FROM generate_series({number}000, {number}400) AS g(n)"
        );
        let answer = engine.query(Query::read(sql)).await.unwrap().batches;
        let request = Append { table: "t".into(), ..Append::default() };
        engine.append(request, answer).await.unwrap();
        engine.flush().await.unwrap();
    }
    let delete = Query::change("DELETE FROM t WHERE n % 5 = 0");
    engine.query(delete).await.unwrap().batches.collect().await.unwrap();
    engine.flush().await.unwrap();
}

async fn rows(engine: &Engine) -> Result<RecordBatch> {
    let batches = engine.query(Query::read("SELECT * FROM t")).await?.batches;
    let schema = batches.schema();
    Ok(concat_batches(&schema, &batches.collect().await?).unwrap())
}

fn open(path: &Path) -> Result<Engine> {
    app::engine(&url_of(path), EngineOptions::default()).map(|(engine, _)| engine)
}

/// Copies a directory of folders of files.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let folders = ["parts", "lists", "manifest"].map(|folder| path.join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Reads a damaged directory: the same rows, or a refusal that names the file; returns whether it was refused.
async fn check(path: &Path, rows_before: &RecordBatch, file: &Path) -> bool {
    let name = file.file_name().unwrap().to_str().unwrap();
    let refused = |error: zepto_flight::ports::Error| {
        assert!(error.message().contains(name), "{name}: {error}");
        true
    };
    match open(path) {
        Err(error) => refused(error),
        Ok(engine) => match rows(&engine).await {
            Ok(found) => {
                assert!(found == *rows_before, "{name}: other rows");
                false
            }
            Err(error) => refused(error),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_parts_lists_and_manifests_are_found_or_mean_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (original, damaged) = (directory.path().join("original"), directory.path().join("damaged"));
    let engine = open(&original).unwrap();
    fill(&engine).await;
    let before = rows(&engine).await.unwrap();
    drop(engine);
    let mut random = Random::new(5);
    let mut refused = 0;
    for file in files(&original) {
        let target = damaged.join(file.strip_prefix(&original).unwrap());
        for attempt in 0..12 {
            copy(&original, &damaged);
            let mut bytes = std::fs::read(&target).unwrap();
            match attempt {
                0 => std::fs::remove_file(&target).unwrap(),
                1 => std::fs::write(&target, &bytes[..bytes.len() / 2]).unwrap(),
                _ => {
                    // At the ends, where heads and footers are, and anywhere.
                    let within = if attempt < 7 { 400 } else { bytes.len() };
                    let at = random.below(within.min(bytes.len()));
                    let at = if attempt % 2 == 0 { at } else { bytes.len() - 1 - at };
                    bytes[at] ^= 1 << random.below(8);
                    std::fs::write(&target, &bytes).unwrap();
                }
            }
            refused += usize::from(check(&damaged, &before, &target).await);
        }
    }
    assert!(refused > 20, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_leaves_what_is_needed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path()).unwrap();
    for _ in 0..3 {
        fill(&engine).await;
        let drop_table = Query::change("DROP TABLE t");
        engine.query(drop_table).await.unwrap().batches.collect().await.unwrap();
        // The one after the next has nothing of it any more.
        engine.flush().await.unwrap();
        engine.flush().await.unwrap();
        engine.flush().await.unwrap();
    }
    let left: Vec<_> = files(directory.path());
    assert!(left.len() <= 2, "{left:?}");
}
