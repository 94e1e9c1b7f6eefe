//! When a database is defragmented without being asked, and when an alarm of its quota has had its day.
//!
//! etcd counts the file against the quota, also the pages in it that are free, so a file that history has blown up stays full after
//! a compaction. Defragmenting stops the member for as long as it takes to copy what is in use: it is done by itself only where
//! the other choice is a database that refuses writes, or where the operator has named a size.

use std::time::Duration;

/// Not more often than this.
pub const PAUSE: Duration = Duration::from_secs(3600);
/// But as often as this if writes are refused anyway: also an attempt that failed is made again then.
pub const PAUSE_WHEN_FULL: Duration = Duration::from_secs(300);

/// What is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of it that hold something.
    pub in_use: u64,
    /// Bytes that it may grow to; 0 if there is no limit.
    pub quota: u64,
    /// NOSPACE was raised.
    pub is_alarmed: bool,
    /// Members of the cluster: with others, somebody has to see to it that only one is defragmented at a time.
    pub members: usize,
    /// So many bytes to give back are worth it, if the operator has said so.
    pub threshold: Option<u64>,
    /// Since the last attempt.
    pub since_last: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    Nothing,
    /// Defragment: it nears its quota, and half of it is free.
    NearQuota,
    /// Defragment: as much could be given back as the operator has named.
    Worth,
    /// Take the alarm back: there is room again.
    Disarm,
}

/// Decides.
#[must_use]
pub fn advise(seen: &Situation) -> Advice {
    let pause = if seen.is_alarmed { PAUSE_WHEN_FULL } else { PAUSE };
    let may_defragment = seen.members == 1 && seen.since_last.is_none_or(|since| since >= pause);
    let is_near = seen.quota > 0 && seen.size >= seen.quota / 10 * 8;
    if may_defragment && is_near && seen.in_use <= seen.size / 2 {
        return Advice::NearQuota;
    }
    if may_defragment && seen.threshold.is_some_and(|threshold| seen.size.saturating_sub(seen.in_use) >= threshold) {
        return Advice::Worth;
    }
    if seen.is_alarmed && has_room(seen.size, seen.quota) { Advice::Disarm } else { Advice::Nothing }
}

/// Whether `in_use` should be counted instead of believed: it stands between a full database and its defragmentation. etcd learns what
/// a transaction has freed when it commits the next one, and a database that refuses writes has no next one.
#[must_use]
pub fn should_count(seen: &Situation) -> bool {
    seen.is_alarmed
        && [0, seen.in_use].map(|in_use| advise(&Situation { in_use, ..*seen }) == Advice::NearQuota) == [true, false]
}

/// Whether a file of `size` bytes is so far below `quota` that an alarm would not come back with the next write.
#[must_use]
pub fn has_room(size: u64, quota: u64) -> bool {
    quota == 0 || size < quota / 10 * 9
}

/// How long a defragmentation of so many bytes in use may take at the very least that any disk does (4 MiB a second).
#[must_use]
pub fn patience(in_use: u64) -> Duration {
    Duration::from_secs(60 + in_use / (4 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: Situation = Situation {
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
            (USUAL, Advice::Nothing),
            (Situation { in_use: 3500, ..USUAL }, Advice::NearQuota),
            (Situation { in_use: 3500, since_last: minute, ..USUAL }, Advice::Nothing),
            (Situation { in_use: 3500, since_last: hour, ..USUAL }, Advice::NearQuota),
            (Situation { in_use: 3500, members: 3, ..USUAL }, Advice::Nothing),
            (Situation { in_use: 100, size: 6000, ..USUAL }, Advice::Nothing),
            (Situation { in_use: 100, size: 6000, threshold: Some(5900), ..USUAL }, Advice::Worth),
            (Situation { in_use: 101, size: 6000, threshold: Some(5900), ..USUAL }, Advice::Nothing),
            (Situation { in_use: 100, quota: 0, ..USUAL }, Advice::Nothing),
            (Situation { is_alarmed: true, ..USUAL }, Advice::Disarm),
            (Situation { is_alarmed: true, size: 7200, ..USUAL }, Advice::Nothing),
            (Situation { is_alarmed: true, size: 8000, in_use: 100, ..USUAL }, Advice::NearQuota),
            (Situation { is_alarmed: true, size: 8000, in_use: 100, since_last: minute, ..USUAL }, Advice::Nothing),
            (Situation { is_alarmed: true, size: 8000, in_use: 100, since_last: minutes, ..USUAL }, Advice::NearQuota),
            (Situation { size: 8000, in_use: 100, since_last: minutes, ..USUAL }, Advice::Nothing),
        ] {
            assert_eq!(advise(&seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn what_is_in_use_is_counted_only_if_it_keeps_a_full_database_full() {
        let full = Situation { is_alarmed: true, size: 8000, in_use: 7000, ..USUAL };
        assert!(should_count(&full));
        for seen in [
            Situation { is_alarmed: false, ..full },
            Situation { in_use: 3000, ..full },
            Situation { members: 3, ..full },
            Situation { since_last: Some(Duration::from_secs(60)), ..full },
            Situation { size: 6000, ..full },
        ] {
            assert!(!should_count(&seen), "{seen:?}");
        }
    }

    proptest! {
        #[test]
        fn an_alarm_is_never_taken_back_at_the_quota_and_nothing_is_done_twice_in_a_row(
            size in 0u64..1 << 40, in_use in 0u64..1 << 40, quota in 1u64..1 << 40, is_alarmed: bool, threshold: Option<u64>,
        ) {
            let seen = Situation { size, in_use, quota, is_alarmed, members: 1, threshold, since_last: None };
            if advise(&seen) == Advice::Disarm {
                prop_assert!(is_alarmed && size < quota);
            }
            let again = advise(&Situation { since_last: Some(Duration::ZERO), ..seen });
            prop_assert!(matches!(again, Advice::Nothing | Advice::Disarm));
        }
    }
}
