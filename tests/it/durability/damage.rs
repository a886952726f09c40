//! Damaged files: the same answer, or a refusal that names the file; never another answer.

use crate::durability::crashes::{entry, open};
use crate::durability::random::Random;
use crate::durability::sim_disk::{Image, SimDisk};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use zepto_flight::adapters::disk::Disk;
use zepto_flight::ports::{Durability, Entry, ErrorKind, Journal};

/// Makes a journal of several files, and returns it with its entries.
fn journal(commits: u64) -> (Image, Vec<Entry>) {
    let mut random = Random::new(9);
    let disk = SimDisk::of(Image::default());
    let (journal, _) = open(&disk, 2).unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    for lsn in 1_001..=1_000 + commits {
        let answered = answered.clone();
        let entry = entry(lsn, Durability::Fsync, &mut random);
        journal.append(
            entry,
            Box::new(move |result| {
                result.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }),
        );
    }
    // A stop in order: everything is written, and a mark behind it.
    drop(journal);
    assert_eq!(answered.load(Ordering::Relaxed), commits as usize);
    let image = disk.live();
    let (journal, entries) = open(&SimDisk::of(image.clone()), 0).unwrap();
    drop(journal);
    assert_eq!(entries.len(), commits as usize);
    (image, entries)
}

/// Reads a damaged journal: the same entries, or a refusal.
fn check(image: Image, entries: &[Entry], what: &str) -> bool {
    match open(&SimDisk::of(image), 0) {
        Ok((_, found)) => {
            assert!(found == entries, "{what}: {} entries instead of {}", found.len(), entries.len());
            true
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Internal | ErrorKind::Unavailable), "{what}: {error}");
            assert!(error.message().contains(".wal"), "{what}: {error}");
            false
        }
    }
}

fn used(image: &Image) -> Vec<String> {
    let disk = SimDisk::of(image.clone());
    image.paths().into_iter().filter(|path| disk.read(path, u64::MAX).unwrap().iter().any(|byte| *byte != 0)).collect()
}

#[test]
fn a_flipped_bit_anywhere_is_found_or_means_nothing() {
    let (image, entries) = journal(40);
    let mut random = Random::new(5);
    let (mut refused, mut read) = (0, 0);
    for path in used(&image) {
        let bytes = image.clone().bytes(&path).len();
        let anywhere: Vec<_> = (0..400).map(|_| random.below(bytes)).collect();
        for at in (0..96).chain(anywhere) {
            let mut damaged = image.clone();
            damaged.bytes(&path)[at] ^= 1 << random.below(8);
            match check(damaged, &entries, &format!("{path}, byte {at}")) {
                true => read += 1,
                false => refused += 1,
            }
        }
    }
    assert!(refused > 100 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn a_file_that_is_gone_or_in_the_place_of_another_is_found() {
    let (image, entries) = journal(60);
    let paths = used(&image);
    assert!(paths.len() > 2, "{paths:?}");
    for path in &paths {
        let mut damaged = image.clone();
        damaged.remove(path);
        // Of the last file nobody knows that it was there: what it had was in it alone.
        if path != paths.last().unwrap() {
            assert!(!check(damaged, &entries, &format!("{path} is gone")));
        }
    }
    let mut swapped = image.clone();
    swapped.rename(&paths[0], "journal/swap");
    swapped.rename(&paths[1], &paths[0]);
    swapped.rename("journal/swap", &paths[1]);
    assert!(!check(swapped, &entries, "two files have changed places"));
    let mut twice = image.clone();
    twice.copy(&paths[0], "journal/0000000099.wal");
    assert!(!check(twice, &entries, "a file is there twice"));
}

#[test]
fn a_journal_that_is_cut_off_in_its_last_commits_loses_nothing_in_silence() {
    let (image, entries) = journal(6);
    let path = used(&image).last().unwrap().clone();
    let bytes = image.clone().bytes(&path).clone();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for cut in (4096..end).step_by(37).chain([end, bytes.len()]) {
        for shortened in [false, true] {
            let mut damaged = image.clone();
            if shortened {
                damaged.bytes(&path).truncate(cut);
            } else {
                damaged.bytes(&path)[cut..].fill(0);
            }
            // What is behind the cut could never have been written: a prefix is the most that can be known.
            if let Ok((_, found)) = open(&SimDisk::of(damaged), 0) {
                assert_eq!(found[..], entries[..found.len()], "cut at {cut}");
            }
        }
    }
}
