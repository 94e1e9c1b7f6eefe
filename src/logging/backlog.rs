//! A queue of log lines, bounded in bytes, with a writer thread.
//!
//! Logging never blocks: if standard error is blocked, lines are dropped and counted. (The writers of tracing-appender
//! only bound the number of lines, and a line of etcd may have 16 KiB.)

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait.
const MAX_QUEUED_BYTES: usize = 4 << 20;
/// The timeout of writing the last lines when the program ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that were dropped because standard error was blocked.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of these, and of the line being written.
    bytes: usize,
}

#[derive(Debug, Default)]
struct LineQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl LineQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes lines. Each `write` is one.
#[derive(Clone, Debug)]
pub struct Backlog(Arc<LineQueue>);

/// When dropped, waits briefly until everything is written.
#[derive(Debug)]
pub struct Guard(Arc<LineQueue>);

/// Starts the thread that writes to `out`, which lives until the process ends; without a thread, all lines are dropped.
#[must_use]
pub fn start(mut out: impl Write + Send + 'static) -> (Backlog, Guard) {
    let queue = Arc::new(LineQueue::default());
    let theirs = queue.clone();
    let _ = std::thread::Builder::new().name("quorate-log".into()).spawn(move || {
        loop {
            let mut waiting = theirs.lock();
            while waiting.lines.is_empty() {
                waiting = theirs.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(line) = waiting.lines.pop_front() else { continue };
            drop(waiting);
            // Errors cannot be reported elsewhere.
            let _ = out.write_all(&line);
            theirs.lock().bytes -= line.len();
            theirs.changed.notify_all();
        }
    });
    (Backlog(queue.clone()), Guard(queue))
}

impl Write for Backlog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        if waiting.bytes + line.len() > MAX_QUEUED_BYTES {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        } else {
            waiting.bytes += line.len();
            waiting.lines.push_back(line.to_vec());
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.changed.wait_timeout_while(self.0.lock(), DRAIN_TIMEOUT, |waiting| waiting.bytes > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes nothing until it is allowed.
    struct Gate(Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_written_in_order_at_the_end() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut backlog, guard) = start(Gate(seen.clone()));
        for number in 0..1000 {
            backlog.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(guard);
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(seen.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn a_writer_that_hangs_costs_lines_and_not_memory_or_time() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hanging = seen.lock().unwrap();
        let (mut backlog, guard) = start(Gate(seen.clone()));
        let before = dropped_lines();
        for _ in 0..1000 {
            backlog.write_all(&[b'x'; 16 << 10]).unwrap();
        }
        assert!(backlog.0.lock().bytes <= MAX_QUEUED_BYTES);
        assert!(dropped_lines() - before >= 1000 - (MAX_QUEUED_BYTES >> 14) as u64);
        drop(hanging);
        drop(guard);
    }
}
