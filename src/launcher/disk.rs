//! Measures how long the disk under the data takes to sync a small write.

use std::fs;
use std::io::{self, Write as _};
use std::time::Duration;

use crate::clock;
use crate::durable::{self, DirHandle};

/// etcd's recommended 99th percentile (its documentation, "What does the etcd warning 'failed to send out heartbeat'
/// mean").
pub const SLOW: Duration = Duration::from_millis(10);

const MAX_SAMPLES: usize = 100;
const MIN_SAMPLES: usize = 5;
/// Enough samples once this has passed …
const BUDGET: Duration = Duration::from_millis(15);
/// … and few samples are enough once this has passed: a start must not wait for a slow disk.
const MAX_DURATION: Duration = Duration::from_secs(1);
/// The approximate size of a write of etcd for a small request.
const WRITE: [u8; 2048] = [0; 2048];

/// The file that is written meanwhile.
const PROBE: &str = "fsync-probe";

/// Measures in `dir`: the 99th percentile of write and fdatasync, from up to 100 samples.
///
/// # Errors
/// If the file cannot be written, which etcd would not survive either.
pub fn fsync_p99(dir: &DirHandle) -> Result<Duration, durable::WriteError> {
    let mut samples = Vec::with_capacity(MAX_SAMPLES);
    let measured = dir.write_with(PROBE, durable::PRIVATE_FILE, |file| {
        let begun = clock::monotonic();
        while is_slow(samples.len(), begun.elapsed()) {
            let start = clock::monotonic();
            one_write(file)?;
            samples.push(start.elapsed());
        }
        Ok(())
    });
    let removed = dir.remove_file(PROBE);
    measured?;
    removed?;
    Ok(percentile_99(&mut samples))
}

fn is_slow(samples: usize, elapsed: Duration) -> bool {
    match samples {
        0 => true,
        1..MIN_SAMPLES => elapsed < MAX_DURATION,
        MIN_SAMPLES..MAX_SAMPLES => elapsed < BUDGET,
        _ => false,
    }
}

fn one_write(file: &mut fs::File) -> io::Result<()> {
    file.write_all(&WRITE)?;
    file.sync_data()
}

fn percentile_99(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    let index = (samples.len() * 99).div_ceil(100).saturating_sub(1);
    samples.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_the_rank_that_it_says() {
        let mut samples: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile_99(&mut samples), Duration::from_millis(99));
        assert_eq!(percentile_99(&mut samples[..5]), Duration::from_millis(5));
        assert_eq!(percentile_99(&mut []), Duration::ZERO);
    }

    #[test]
    fn a_slow_disk_is_measured_less() {
        for (samples, elapsed_ms, expected) in
            [(0, 60_000, true), (4, 900, true), (4, 10_000, false), (5, 10, true), (5, 20, false), (100, 0, false)]
        {
            assert_eq!(is_slow(samples, Duration::from_millis(elapsed_ms)), expected, "{samples} {elapsed_ms}");
        }
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fsync_p99(&DirHandle::open(dir.path()).unwrap()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
