//! When to defragment a database automatically, and when to disarm its NOSPACE alarm.
//!
//!
//!
//! The quota applies to the file including free pages, so a file that history has filled stays full after a compaction.
//! Defragmentation stops the member while it copies the pages in use: it runs automatically only if the database would
//! otherwise refuse writes, or if the operator has configured a threshold.

use std::time::Duration;

pub const MIN_INTERVAL: Duration = Duration::from_secs(3600);
/// The minimum interval if writes are refused anyway; failed attempts are retried then, too.
pub const MIN_INTERVAL_WHEN_FULL: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseStats {
    pub size: u64,
    pub in_use: u64,
    /// The quota in bytes; 0 if there is no limit.
    pub quota: u64,
    pub is_alarmed: bool,
    /// Number of members: with more than one, defragmentations have to be coordinated.
    pub members: usize,
    /// The configured threshold: reclaimable bytes that justify a defragmentation.
    pub threshold: Option<u64>,
    pub since_last: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefragAction {
    Nothing,
    /// Defragment: the database is near its quota, and half of it is free.
    NearQuota,
    /// Defragment: the reclaimable bytes have reached the threshold.
    Worth,
    /// Disarm the alarm: there is space again.
    Disarm,
}

#[must_use]
pub fn decide(seen: &DatabaseStats) -> DefragAction {
    let pause = if seen.is_alarmed { MIN_INTERVAL_WHEN_FULL } else { MIN_INTERVAL };
    let may_defragment = seen.members == 1 && seen.since_last.is_none_or(|since| since >= pause);
    let is_near = seen.quota > 0 && seen.size >= seen.quota / 10 * 8;
    if may_defragment && is_near && seen.in_use <= seen.size / 2 {
        return DefragAction::NearQuota;
    }
    if may_defragment && seen.threshold.is_some_and(|threshold| seen.size.saturating_sub(seen.in_use) >= threshold) {
        return DefragAction::Worth;
    }
    if seen.is_alarmed && has_room(seen.size, seen.quota) { DefragAction::Disarm } else { DefragAction::Nothing }
}

/// Whether `in_use` should be measured instead of taken from etcd, because it decides about a full database. etcd
/// accounts for freed pages when it commits the next transaction, and a database that refuses writes has no next one.
#[must_use]
pub fn should_count(seen: &DatabaseStats) -> bool {
    seen.is_alarmed
        && [0, seen.in_use].map(|in_use| decide(&DatabaseStats { in_use, ..*seen }) == DefragAction::NearQuota)
            == [true, false]
}

/// Whether a file of `size` bytes is far enough below `quota` that the next write would not raise the alarm again.
#[must_use]
pub fn has_room(size: u64, quota: u64) -> bool {
    quota == 0 || size < quota / 10 * 9
}

/// The timeout of a defragmentation of this many bytes in use, on a slow disk (4 MiB/s).
#[must_use]
pub fn retry_after(in_use: u64) -> Duration {
    Duration::from_secs(60 + in_use / (4 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: DatabaseStats = DatabaseStats {
        size: 7000,
        in_use: 6000,
        quota: 8000,
        is_alarmed: false,
        members: 1,
        threshold: None,
        since_last: None,
    };

    #[test]
    fn it_is_done_only_where_it_helps() {
        let hour = Some(Duration::from_secs(3600));
        let minute = Some(Duration::from_secs(60));
        let minutes = Some(Duration::from_secs(5 * 60));
        for (seen, expected) in [
            (USUAL, DefragAction::Nothing),
            (DatabaseStats { in_use: 3500, ..USUAL }, DefragAction::NearQuota),
            (DatabaseStats { in_use: 3500, since_last: minute, ..USUAL }, DefragAction::Nothing),
            (DatabaseStats { in_use: 3500, since_last: hour, ..USUAL }, DefragAction::NearQuota),
            (DatabaseStats { in_use: 3500, members: 3, ..USUAL }, DefragAction::Nothing),
            (DatabaseStats { in_use: 100, size: 6000, ..USUAL }, DefragAction::Nothing),
            (DatabaseStats { in_use: 100, size: 6000, threshold: Some(5900), ..USUAL }, DefragAction::Worth),
            (DatabaseStats { in_use: 101, size: 6000, threshold: Some(5900), ..USUAL }, DefragAction::Nothing),
            (DatabaseStats { in_use: 100, quota: 0, ..USUAL }, DefragAction::Nothing),
            (DatabaseStats { is_alarmed: true, ..USUAL }, DefragAction::Disarm),
            (DatabaseStats { is_alarmed: true, size: 7200, ..USUAL }, DefragAction::Nothing),
            (DatabaseStats { is_alarmed: true, size: 8000, in_use: 100, ..USUAL }, DefragAction::NearQuota),
            (
                DatabaseStats { is_alarmed: true, size: 8000, in_use: 100, since_last: minute, ..USUAL },
                DefragAction::Nothing,
            ),
            (
                DatabaseStats { is_alarmed: true, size: 8000, in_use: 100, since_last: minutes, ..USUAL },
                DefragAction::NearQuota,
            ),
            (DatabaseStats { size: 8000, in_use: 100, since_last: minutes, ..USUAL }, DefragAction::Nothing),
        ] {
            assert_eq!(decide(&seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn what_is_in_use_is_counted_only_if_it_keeps_a_full_database_full() {
        let full = DatabaseStats { is_alarmed: true, size: 8000, in_use: 7000, ..USUAL };
        assert!(should_count(&full));
        for seen in [
            DatabaseStats { is_alarmed: false, ..full },
            DatabaseStats { in_use: 3000, ..full },
            DatabaseStats { members: 3, ..full },
            DatabaseStats { since_last: Some(Duration::from_secs(60)), ..full },
            DatabaseStats { size: 6000, ..full },
        ] {
            assert!(!should_count(&seen), "{seen:?}");
        }
    }

    proptest! {
        #[test]
        fn an_alarm_is_never_disarmed_at_the_quota_and_nothing_is_done_twice_in_a_row(
            size in 0u64..1 << 40, in_use in 0u64..1 << 40, quota in 1u64..1 << 40, is_alarmed: bool, threshold: Option<u64>,
        ) {
            let seen = DatabaseStats { size, in_use, quota, is_alarmed, members: 1, threshold, since_last: None };
            if decide(&seen) == DefragAction::Disarm {
                prop_assert!(is_alarmed && size < quota);
            }
            let again = decide(&DatabaseStats { since_last: Some(Duration::ZERO), ..seen });
            prop_assert!(matches!(again, DefragAction::Nothing | DefragAction::Disarm));
        }
    }
}
