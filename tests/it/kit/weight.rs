//! How many servers run at a time on this machine, over all test processes: a fixed number of slots, each a locked file.
//!
//! A test that has a slot never waits for another one, because two such tests could wait for each other: it takes what is free, and runs
//! with less. A test with several servers therefore takes their slots at once, as a [`super::Cluster`] does. Tests that wait are in a queue,
//! made by a second lock: only the first one collects slots, so a large cluster cannot be overtaken for ever.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::POLL;

/// Servers at a time, unless `QUORATE_TEST_SLOTS` says otherwise.
const SLOTS: usize = 6;
/// Other test processes may be before this one.
const LIMIT: Duration = Duration::from_secs(900);

thread_local! {
    /// How many weights the test of this thread has.
    static HOLDER: RefCell<Arc<AtomicUsize>> = RefCell::default();
}

/// Slots that are taken for as long as this lives. The kernel frees them if the process is killed.
#[derive(Debug)]
pub struct Weight {
    slots: Vec<Flock<File>>,
    holder: Arc<AtomicUsize>,
}

impl Weight {
    /// Takes `wanted` slots, or all there are if that is less.
    ///
    /// # Panics
    /// If they are not free in time.
    #[track_caller]
    pub fn take(wanted: usize) -> Self {
        let total = std::env::var("QUORATE_TEST_SLOTS").map_or(SLOTS, |text| text.parse().unwrap());
        Self::take_from(&std::env::temp_dir().join("quorate-test-slots"), total, wanted, LIMIT)
            .unwrap_or_else(|| panic!("{wanted} of {total} slots were not free within {LIMIT:?}"))
    }

    /// As [`Self::take`], of `total` slots in `dir`; `None` after `limit`.
    fn take_from(dir: &Path, total: usize, wanted: usize, limit: Duration) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let begun = Instant::now();
        let holder = HOLDER.with_borrow(Arc::clone);
        let may_wait = holder.load(Ordering::Relaxed) == 0;
        let turn = if may_wait { Some(lock_until(&dir.join("turn"), begun + limit)?) } else { None };
        let mut slots = Vec::new();
        loop {
            let free = (0..total).filter_map(|slot| try_lock(&dir.join(slot.to_string())));
            slots.extend(free.take(wanted.min(total) - slots.len()));
            if slots.len() == wanted.min(total) || !may_wait {
                drop(turn);
                holder.fetch_add(1, Ordering::Relaxed);
                return Some(Self { slots, holder });
            }
            if begun.elapsed() > limit {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.holder.fetch_sub(1, Ordering::Relaxed);
    }
}

fn try_lock(path: &Path) -> Option<Flock<File>> {
    let file = File::options().create(true).append(true).open(path).unwrap();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
}

fn lock_until(path: &Path, end: Instant) -> Option<Flock<File>> {
    loop {
        if let Some(lock) = try_lock(path) {
            return Some(lock);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(dir: &Path, wanted: usize) -> Option<Weight> {
        let dir = dir.to_path_buf();
        // Each thread is a test of its own.
        std::thread::spawn(move || Weight::take_from(&dir, 3, wanted, Duration::from_millis(200))).join().unwrap()
    }

    #[test]
    fn slots_are_given_all_at_once_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let one = take(dir.path(), 1).unwrap();
        assert!(take(dir.path(), 3).is_none());
        let two = take(dir.path(), 2).expect("slots that were not enough are released");
        assert!(take(dir.path(), 1).is_none());
        drop((one, two));
        assert_eq!(take(dir.path(), 5).unwrap().slots.len(), 3, "more than there are");
    }

    #[test]
    fn a_test_that_has_a_slot_never_waits() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(60);
        let first = Weight::take_from(dir.path(), 1, 1, limit).unwrap();
        let second = Weight::take_from(dir.path(), 1, 1, limit).unwrap();
        assert_eq!((first.slots.len(), second.slots.len()), (1, 0));
    }

    #[test]
    fn the_first_in_the_queue_is_not_overtaken() {
        let dir = tempfile::tempdir().unwrap();
        let holder = take(dir.path(), 1).unwrap();
        let path = dir.path().to_path_buf();
        let large = std::thread::spawn(move || Weight::take_from(&path, 3, 3, Duration::from_secs(60)).unwrap());
        while try_lock(&dir.path().join("turn")).is_some() {
            std::thread::sleep(POLL);
        }
        assert!(take(dir.path(), 1).is_none(), "two slots are free, but the cluster is first in the queue");
        drop(holder);
        assert_eq!(large.join().unwrap().slots.len(), 3);
    }
}
