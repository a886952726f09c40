//! Crashes from seeds: the real journal over the simulated disk.
//!
//! The model is the list of entries that were handed in. After a crash what is read again is a prefix of it, which has every entry
//! that was acknowledged and none that was refused.

use crate::durability::random::Random;
use crate::durability::sim_disk::{Fault, Image, SimDisk, Weather};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zepto_flight::adapters::disk::{DiskJournal, JournalOptions, StoreId};
use zepto_flight::ports::{Durability, Effect, Entry, ErrorKind, Journal, Lsn, Result};

pub const ID: StoreId = StoreId { store: 77, before: 1_000 };

const OPTIONS: JournalOptions =
    JournalOptions { threads: 0, file_bytes_min: 16 << 10, file_bytes_max: 64 << 10, group_bytes: 8 << 10 };

/// What happened, and after how many operations of the disk. An entry's time is unique, its number is not: that of a refused one
/// is given again.
#[derive(Debug, Clone)]
enum Event {
    Appended(Entry),
    Acknowledged(i64),
    Refused(i64, ErrorKind),
}

type Events = Arc<Mutex<Vec<(usize, Event)>>>;

/// A journal at work.
struct Run {
    disk: SimDisk,
    journal: Option<DiskJournal>,
    /// What was there at the beginning.
    recorded: Vec<Entry>,
    next_lsn: Arc<Mutex<u64>>,
    serial: AtomicI64,
    events: Events,
}

pub fn open(disk: &SimDisk, threads: usize) -> Result<(DiskJournal, Vec<Entry>)> {
    let journal = DiskJournal::new(Arc::new(disk.clone()), ID, JournalOptions { threads, ..OPTIONS });
    let recorded = journal.recorded(None)?;
    assert_eq!(recorded.before, Lsn(ID.before));
    let entries = recorded.entries.collect::<Result<_>>()?;
    Ok((journal, entries))
}

pub fn entry(lsn: u64, durability: Durability, random: &mut Random) -> Entry {
    let batch = |rows: usize| {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| (lsn + row as u64) as i64)));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    };
    let effect = match random.below(8) {
        0 => Effect::Drop { table: lsn },
        1 => Effect::Erase { table: 1, rows: vec![lsn..lsn + 3, lsn + 10..lsn + 11] },
        2 => Effect::Append { table: 1, first_row: lsn, batches: vec![batch(1 + random.below(4_000)), batch(2)] },
        _ => Effect::Append { table: 1, first_row: lsn, batches: vec![batch(1 + random.below(40))] },
    };
    Entry { lsn: Lsn(lsn), time_us: lsn as i64, durability, effects: vec![effect] }
}

impl Run {
    fn begin(image: Image, threads: usize) -> Result<Self> {
        let disk = SimDisk::of(image);
        let (journal, recorded) = open(&disk, threads)?;
        let next_lsn = Arc::new(Mutex::new(ID.before + 1 + recorded.len() as u64));
        let serial = AtomicI64::new(recorded.iter().map(|entry| entry.time_us).max().unwrap_or(0) + 1);
        Ok(Self { disk, journal: Some(journal), recorded, next_lsn, serial, events: Events::default() })
    }

    /// Hands an entry in, as the catalogue does: after a refusal its number comes again.
    fn append(&self, durability: Durability, random: &mut Random) {
        let lsn = {
            let mut next = self.next_lsn.lock().unwrap();
            *next += 1;
            *next - 1
        };
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { time_us: serial, ..entry(lsn, durability, random) };
        self.events.lock().unwrap().push((self.disk.ops(), Event::Appended(entry.clone())));
        let (events, disk, next_lsn) = (self.events.clone(), self.disk.clone(), self.next_lsn.clone());
        let on_done = Box::new(move |result: Result<()>| {
            let event = match result {
                Ok(()) => Event::Acknowledged(serial),
                Err(error) => {
                    let mut next = next_lsn.lock().unwrap();
                    *next = lsn.min(*next);
                    Event::Refused(serial, error.kind())
                }
            };
            events.lock().unwrap().push((disk.ops(), event));
        });
        self.journal.as_ref().unwrap().append(entry, on_done);
    }

    /// Returns what may be read after a crash in operation `at`: the entries that there could be, and how many there have to be.
    fn expected(&self, at: usize, counts: impl Fn(Durability) -> bool) -> (Vec<Entry>, usize) {
        let mut entries = self.recorded.clone();
        let mut needed = entries.len();
        let events = self.events.lock().unwrap().clone();
        for event in events.into_iter().filter(|(ops, _)| *ops <= at).map(|(_, event)| event) {
            let place = |serial: i64, entries: &[Entry]| entries.iter().position(|entry| entry.time_us == serial);
            match event {
                Event::Appended(entry) => {
                    entries.truncate((entry.lsn.0 - ID.before - 1) as usize);
                    entries.push(entry);
                }
                Event::Acknowledged(serial) => {
                    let place = place(serial, &entries).expect("what was refused is not acknowledged");
                    if counts(entries[place].durability) {
                        needed = place + 1;
                    }
                }
                // Its number may have been given again before it is answered.
                Event::Refused(serial, ErrorKind::LimitExceeded) => {
                    if let Some(place) = place(serial, &entries) {
                        entries.truncate(place);
                    }
                }
                // Of this one nobody knows, and the journal takes no other.
                Event::Refused(..) => break,
            }
        }
        let read = |entry: Entry| Entry { durability: Durability::Fsync, ..entry };
        (entries.into_iter().map(read).collect(), needed)
    }

    /// Checks what is read after a crash, and returns the next run from there.
    fn check(&self, at: usize, image: Image) -> std::result::Result<Self, String> {
        let next = Self::begin(image, 0).map_err(|error| format!("refused: {error}"))?;
        let (entries, needed) = self.expected(at, |durability| durability == Durability::Fsync);
        let found = &next.recorded;
        if found.len() < needed {
            return Err(format!("{} entries were read, and {needed} were acknowledged", found.len()));
        }
        if found.len() > entries.len() || found[..] != entries[..found.len()] {
            return Err(format!("{} entries were read that are no prefix of {}", found.len(), entries.len()));
        }
        Ok(next)
    }
}

/// One history: commits in all weathers, then crashes in it, and crashes in what follows those.
fn history(seed: u64, threads: usize, crashes: usize, fault: Option<Fault>) -> std::result::Result<(), String> {
    let mut random = Random::new(seed);
    let mut run = Run::begin(Image::default(), threads).unwrap();
    for depth in 0..3 {
        for _ in 0..5 + random.below(40) {
            let weather = match random.below(40) {
                0 => Weather::NoSpaceOnce,
                1 => Weather::Full,
                _ => Weather::Fair,
            };
            run.disk.set_weather(weather);
            let durability =
                [Durability::Fsync, Durability::Fsync, Durability::Fsync, Durability::Wal][random.below(4)];
            run.append(durability, &mut random);
            if threads > 0 && random.below(4) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(200) as u64));
            }
            // Long enough for a mark.
            if threads > 0 && random.below(60) == 0 {
                run.disk.set_weather(Weather::Fair);
                std::thread::sleep(Duration::from_millis(70));
            }
        }
        if threads > 0 {
            // Marks are written, and the answers are given.
            run.journal = None;
        }
        let mut next = None;
        for _ in 0..crashes {
            let at = random.below(run.disk.ops() + 1);
            let image = run.disk.crash(at, &mut random, fault);
            let described = |why| format!("seed {seed}, depth {depth}, operation {at}: {why}");
            next = Some(run.check(at, image).map_err(described)?);
        }
        run = next.unwrap();
    }
    Ok(())
}

#[test]
fn what_is_acknowledged_survives_ten_thousand_crashes() {
    for seed in 0..250 {
        history(seed, 0, 10, None).unwrap_or_else(|why| panic!("{why}"));
    }
    for seed in 0..84 {
        history(seed, 3, 10, None).unwrap_or_else(|why| panic!("with threads, {why}"));
    }
}

#[test]
fn every_sync_is_needed() {
    for fault in [Fault::SyncedWritesAreNot, Fault::SyncDoesNothing, Fault::FoldersAreNotSynced] {
        let found = (0..300).find_map(|seed| history(seed, 0, 10, Some(fault)).err());
        assert!(found.is_some(), "{fault:?}");
    }
}

#[test]
fn a_refused_commit_never_comes_back_and_the_next_one_is_taken() {
    let mut random = Random::new(1);
    let run = Run::begin(Image::default(), 0).unwrap();
    for weather in [Weather::Fair, Weather::NoSpaceOnce, Weather::Fair, Weather::NoSpaceOnce, Weather::Fair] {
        run.disk.set_weather(weather);
        run.append(Durability::Fsync, &mut random);
    }
    let events = run.events.lock().unwrap().clone();
    let refused = events.iter().filter(|(_, event)| matches!(event, Event::Refused(_, ErrorKind::LimitExceeded)));
    assert_eq!(refused.count(), 2);
    let next = run.check(run.disk.ops(), run.disk.live()).unwrap();
    assert_eq!(next.recorded.len(), 3);
}

#[test]
fn after_an_error_of_a_write_nothing_is_taken_until_a_restart() {
    let mut random = Random::new(2);
    let run = Run::begin(Image::default(), 0).unwrap();
    run.append(Durability::Fsync, &mut random);
    run.disk.set_weather(Weather::ErrorOnce);
    run.append(Durability::Fsync, &mut random);
    run.append(Durability::Fsync, &mut random);
    let events = run.events.lock().unwrap().clone();
    let refused = events.iter().filter(|(_, event)| matches!(event, Event::Refused(_, ErrorKind::Unavailable)));
    assert_eq!(refused.count(), 2, "{events:?}");
    let next = run.check(run.disk.ops(), run.disk.live()).unwrap();
    assert!((1..=2).contains(&next.recorded.len()), "the one that nobody knows about may be there");
    next.append(Durability::Fsync, &mut random);
    assert!(matches!(next.events.lock().unwrap().last(), Some((_, Event::Acknowledged(_)))));
}

#[test]
fn starts_leave_no_files_behind() {
    let mut random = Random::new(3);
    let mut image = Image::default();
    for start in 0..200 {
        let run = Run::begin(image, 0).unwrap();
        if start % 50 == 0 {
            run.append(Durability::Fsync, &mut random);
        }
        image = run.disk.live();
    }
    assert!(image.paths().len() <= 4 + 2, "{:?}", image.paths());
}

#[test]
fn the_levels_say_when_a_commit_is_acknowledged() {
    let mut random = Random::new(4);
    let run = Run::begin(Image::default(), 0).unwrap();
    for durability in [Durability::Wal, Durability::Memory, Durability::Fsync, Durability::Wal] {
        run.append(durability, &mut random);
    }
    let (entries, _) = run.expected(usize::MAX, |_| true);
    assert_eq!(entries.len(), 4);
    // A kill loses nothing that was written, whatever it asked for; a crash loses what only asked for less than the disk.
    let killed = run.check(usize::MAX, run.disk.live()).unwrap();
    assert_eq!(killed.recorded.len(), 4);
    let kept = (0..50).map(|seed| {
        let image = run.disk.crash(run.disk.ops(), &mut Random::new(seed), None);
        run.check(usize::MAX, image).unwrap().recorded.len()
    });
    assert_eq!(kept.min(), Some(3));
}
