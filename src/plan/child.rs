//! When to restart the child after an unexpected exit, and when to stop trying.

use std::time::Duration;

pub const MIN_BACKOFF: Duration = Duration::from_secs(1);
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// After this long in good health, earlier exits are forgotten.
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(60);
/// An exit within this time of the start counts as a failed start.
pub const FAST_EXIT_WINDOW: Duration = Duration::from_secs(1);
/// The supervisor stops trying after this many failed starts in a row.
pub const MAX_FAST_EXITS: u32 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitHistory {
    exits: u32,
    at_once: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub lived: Duration,
    /// The part of it since it was ready.
    pub healthy: Duration,
}

/// What to do after an unexpected exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Retry(Duration),
    GiveUp,
}

impl ExitHistory {
    /// Records an exit and decides. `jitter`, from 0 to 1, shortens the wait by up to a tenth, so that servers that
    /// failed together do not restart together.
    pub fn exited(&mut self, life: Run, jitter: f64) -> Next {
        if life.healthy >= BACKOFF_RESET_AFTER {
            *self = Self::default();
        }
        self.at_once = if life.lived <= FAST_EXIT_WINDOW { self.at_once + 1 } else { 0 };
        if self.at_once >= MAX_FAST_EXITS {
            return Next::GiveUp;
        }
        let doublings = self.exits.min(16);
        self.exits = self.exits.saturating_add(1);
        let wait = MIN_BACKOFF.saturating_mul(1 << doublings).min(MAX_BACKOFF);
        Next::Retry(wait.mul_f64(1.0 - 0.1 * jitter.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run_for(lived: u64, healthy: u64) -> Run {
        Run { lived: Duration::from_secs(lived), healthy: Duration::from_secs(healthy) }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_health_forgives() {
        let mut history = ExitHistory::default();
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(history.exited(run_for(10, 5), 0.0), Next::Retry(Duration::from_secs(expected)));
        }
        assert_eq!(history.exited(run_for(100, 60), 0.0), Next::Retry(MIN_BACKOFF));
    }

    #[test]
    fn five_exits_at_once_in_a_row_are_enough() {
        let mut history = ExitHistory::default();
        for _ in 0..4 {
            assert!(matches!(history.exited(run_for(0, 0), 0.0), Next::Retry(_)));
        }
        assert_eq!(history.exited(run_for(0, 0), 0.0), Next::GiveUp);
    }

    #[test]
    fn one_longer_life_starts_the_count_again() {
        let mut history = ExitHistory::default();
        for _ in 0..4 {
            history.exited(run_for(1, 0), 0.0);
        }
        assert!(matches!(history.exited(run_for(2, 0), 0.0), Next::Retry(_)));
        assert!(matches!(history.exited(run_for(0, 0), 0.0), Next::Retry(_)));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_zero_and_never_too_long(
            lives in proptest::collection::vec((0u64..5000, 0u64..5000), 0..200),
            jitter in -1.0f64..2.0,
        ) {
            let mut history = ExitHistory::default();
            for (lived, healthy) in lives {
                if let Next::Retry(wait) = history.exited(run_for(lived, healthy.min(lived)), jitter) {
                    prop_assert!(wait >= MIN_BACKOFF.mul_f64(0.9) && wait <= MAX_BACKOFF);
                }
            }
        }

        #[test]
        fn a_child_that_lives_longer_than_a_moment_is_always_restarted(lives in proptest::collection::vec(2u64..5000, 0..200)) {
            let mut history = ExitHistory::default();
            for lived in lives {
                prop_assert!(history.exited(run_for(lived, 0), 0.5) != Next::GiveUp);
            }
        }
    }
}
