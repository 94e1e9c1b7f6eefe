//! When a failed upload is retried.

use std::time::{Duration, Instant};

const MIN_PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// The pause after this many failures in a row. `jitter`, from 0 to 1, spreads servers that failed together over the
/// second half of the time.
#[must_use]
pub fn pause(failures: u32, first: Duration, jitter: f64) -> Duration {
    let doubled = first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(20))).min(MAX_PAUSE);
    doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// The facts that decide which upload is next.
#[derive(Clone, Copy, Debug)]
pub struct QueueEntry {
    pub is_waited_for: bool,
    /// Not before this time; at once, if `None`.
    pub due: Option<Instant>,
}

/// Which one is next, if one is due: first those that a client waits for, then those never attempted, then those due
/// the longest. Among equals, the first.
#[must_use]
pub fn next(turns: &[QueueEntry], now: Instant) -> Option<usize> {
    let due = turns.iter().enumerate().filter(|(_, turn)| turn.due.is_none_or(|due| due <= now));
    due.min_by_key(|(_, turn)| (!turn.is_waited_for, turn.due)).map(|(index, _)| index)
}

/// The pause after the first failure.
#[must_use]
pub fn first_pause() -> Duration {
    MIN_PAUSE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        for (failures, longest) in [(0, 30), (1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (1000, 3600)] {
            assert_eq!(pause(failures, MIN_PAUSE, 1.0), Duration::from_secs(longest), "{failures}");
            assert_eq!(pause(failures, MIN_PAUSE, 0.0), Duration::from_secs(longest) / 2, "{failures}");
        }
    }

    #[test]
    fn waiting_clients_come_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (now, turn) = (at(100), |is_waited_for, due: Option<u64>| QueueEntry { is_waited_for, due: due.map(at) });
        for (turns, expected) in [
            (&[][..], None),
            (&[turn(false, Some(101))], None),
            (&[turn(true, Some(101)), turn(false, Some(99))], Some(1)),
            (&[turn(false, None), turn(true, Some(100))], Some(1)),
            (&[turn(false, Some(50)), turn(false, None)], Some(1)),
            (&[turn(false, Some(99)), turn(false, Some(50)), turn(false, Some(80))], Some(1)),
            (&[turn(false, None), turn(false, None)], Some(0)),
        ] {
            assert_eq!(next(turns, now), expected, "{turns:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_never_nothing_and_never_longer_than_an_hour(failures: u32, jitter: f64) {
            let pause = pause(failures, MIN_PAUSE, if jitter.is_nan() { 0.5 } else { jitter });
            prop_assert!(pause >= MIN_PAUSE / 2 && pause <= MAX_PAUSE);
        }
    }
}
