//! Crashes from seeds of a whole engine: its journal, its parts and its checkpoints over one simulated disk.
//!
//! The model is what the tables were after each change. After a crash they are what they were after the last acknowledged change, or
//! after the one that was under way.

use crate::durability::crashes::ID;
use crate::durability::random::Random;
use crate::durability::sim_disk::{Fault, Image, SimDisk, Weather};
use crate::harness::numbers;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};
use zepto_flight::adapters::clock::SystemClock;
use zepto_flight::adapters::disk::{DiskJournal, DiskStore, JournalOptions};
use zepto_flight::domain::{Engine, EngineOptions, Foundation, Lanes};
use zepto_flight::ports::{Append, BatchStream, Error, IngestPort, MemoryAccount, Query, QueryPort, Result};

const OPTIONS: JournalOptions =
    JournalOptions { threads: 0, file_bytes_min: 16 << 10, file_bytes_max: 64 << 10, group_bytes: 8 << 10 };

/// The rows of each table in their order, and how far its writer has come.
type State = BTreeMap<String, (RecordBatch, Option<(u64, u64)>)>;

struct Run {
    disk: SimDisk,
    engine: Engine,
    /// What the tables were after each change that was acknowledged, and after how many operations of the disk that was.
    states: Vec<(usize, State)>,
    next: i64,
}

fn open(disk: &SimDisk, runtime: &Runtime) -> Result<Engine> {
    let foundation = Foundation {
        journal: Arc::new(DiskJournal::new(Arc::new(disk.clone()), ID, OPTIONS)),
        store: Some(Arc::new(DiskStore::new(Arc::new(disk.clone()), ID))),
        clock: Arc::new(SystemClock),
    };
    let lanes = Lanes { quick: runtime.handle().clone(), heavy: runtime.handle().clone() };
    Engine::open(lanes, EngineOptions::default(), MemoryAccount::default(), foundation)
}

async fn state(engine: &Engine) -> Result<State> {
    let mut state = State::new();
    for table in engine.tables(Default::default()).await? {
        let sql = format!("SELECT * FROM {}", table.name);
        let batches = engine.query(Query::read(sql)).await?.batches;
        let schema = batches.schema();
        let rows = concat_batches(&schema, &batches.collect().await?).unwrap();
        let writer = engine.writer(table.name.clone(), "w".into(), Default::default()).await.ok();
        state.insert(table.name, (rows, writer.map(|writer| (writer.sequence, writer.rows))));
    }
    Ok(state)
}

impl Run {
    fn begin(image: Image, runtime: &Runtime) -> Result<Self> {
        let disk = SimDisk::of(image);
        let engine = open(&disk, runtime)?;
        let state = runtime.block_on(state(&engine))?;
        Ok(Self { disk, engine, states: vec![(0, state)], next: 0 })
    }

    async fn change(&self, sql: String) -> Result<()> {
        self.engine.query(Query::change(sql)).await?.batches.collect().await.map(|_| ())
    }

    async fn append(&self, table: &str, rows: i64) -> Result<()> {
        let batch = numbers(self.next, rows);
        let writer = zepto_flight::ports::WriterCommit {
            writer: "w".into(),
            epoch: 0,
            sequence: match self.engine.writer(table.into(), "w".into(), Default::default()).await {
                Ok(state) => state.sequence + 1,
                Err(_) => 1,
            },
            offset: None,
        };
        let request = Append { table: table.into(), writer: Some(writer), ..Append::default() };
        self.engine.append(request, BatchStream::from_batches(batch.schema(), vec![batch])).await.map(|_| ())
    }

    async fn step(&mut self, random: &mut Random) -> Result<()> {
        self.next += 1_000;
        let table = ["a", "b"][random.below(2)];
        let (n, column) = (self.next, format!("c{}", self.next));
        let below = self.next - random.below(5_000) as i64;
        match random.below(16) {
            0..=5 => self.append(table, 1 + random.below(200) as i64).await,
            6 => self.change(format!("DELETE FROM {table} WHERE n % 7 < 3 AND n < {below}")).await,
            7 => self.change(format!("UPDATE {table} SET n = n + 1 WHERE n % 5 = 0 AND n < {below}")).await,
            8 => self.change(format!("ALTER TABLE {table} ADD COLUMN {column} BIGINT")).await,
            9 => self.change(format!("DROP TABLE {table}")).await,
            10 => self.change(format!("INSERT INTO {table} (n) VALUES ({n}), (NULL)")).await,
            11 => {
                self.engine.evict();
                Ok(())
            }
            _ => self.engine.flush().await,
        }
    }

    /// Checks what is there after a crash in operation `at`, and returns the next run from there.
    fn check(&self, at: usize, image: Image, runtime: &Runtime) -> std::result::Result<Self, String> {
        let next = Self::begin(image, runtime).map_err(|error| format!("refused: {error}"))?;
        let last = self.states.iter().rposition(|(ops, _)| *ops <= at).unwrap_or(0);
        let found = &next.states[0].1;
        let may_be = &self.states[last..self.states.len().min(last + 2)];
        match may_be.iter().any(|(_, state)| state == found) {
            true => Ok(next),
            false => Err(format!("after {last} changes: {found:#?}\ninstead of {may_be:#?}")),
        }
    }
}

fn history(seed: u64, crashes: usize, fault: Option<Fault>, runtime: &Runtime) -> std::result::Result<usize, String> {
    let mut random = Random::new(seed);
    let mut run = Run::begin(Image::default(), runtime).unwrap();
    let mut count = 0;
    for depth in 0..3 {
        for _ in 0..4 + random.below(24) {
            let weather = if random.below(25) == 0 { Weather::Full } else { Weather::Fair };
            run.disk.set_weather(weather);
            // A table that is not there, a full disk: nothing has changed then.
            let _ = runtime.block_on(run.step(&mut random));
            run.disk.set_weather(Weather::Fair);
            let state = runtime.block_on(state(&run.engine));
            let state = state.map_err(|error: Error| format!("seed {seed}, depth {depth}: {error}"))?;
            if run.states.last().is_none_or(|(_, last)| *last != state) {
                run.states.push((run.disk.ops(), state));
            }
        }
        let mut next = None;
        for _ in 0..crashes {
            let at = random.below(run.disk.ops() + 1);
            let image = run.disk.crash(at, &mut random, fault);
            let described = |why| format!("seed {seed}, depth {depth}, operation {at}: {why}");
            next = Some(run.check(at, image, runtime).map_err(described)?);
            count += 1;
        }
        let next_number = run.next;
        run = next.unwrap();
        run.next = next_number;
    }
    Ok(count)
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(zepto_flight::domain::STACK_BYTES)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn tables_on_the_disk_survive_crashes() {
    let (runtime, begun) = (runtime(), Instant::now());
    let mut crashes = 0;
    for seed in 0..40 {
        crashes += history(seed, 10, None, &runtime).unwrap_or_else(|why| panic!("{why}"));
    }
    println!("{crashes} crashes in {:?}", begun.elapsed());
}

#[test]
fn every_sync_of_parts_and_checkpoints_is_needed() {
    let runtime = runtime();
    for fault in [Fault::SyncDoesNothing, Fault::FoldersAreNotSynced] {
        let found = (0..40).find_map(|seed| history(seed, 10, Some(fault), &runtime).err());
        assert!(found.is_some(), "{fault:?}");
    }
}
