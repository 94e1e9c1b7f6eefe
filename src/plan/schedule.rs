//! When a snapshot is due: the slots of a schedule, computed from times only.
//!
//! Five cron fields (minute, hour, day, month, weekday), `@hourly` and the like, or `@every 5m`. A slot is used once:
//! the last attempt shows which slots were used, so a restart neither repeats nor skips one. A slot is a local time:
//! when clocks are set back, the repeated hour counts once, and a skipped hour still counts.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Duration, Offset as _, TimeZone, Timelike as _, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::text::duration;

#[derive(Clone, Debug)]
pub enum Schedule {
    Calendar(Box<Cron>),
    /// Every N seconds.
    Every(u64),
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Calendar(left), Self::Calendar(right)) => left.as_str() == right.as_str(),
            (Self::Every(left), Self::Every(right)) => left == right,
            _ => false,
        }
    }
}

impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calendar(cron) => f.write_str(cron.as_str()),
            Self::Every(seconds) => write!(f, "@every {}", duration::format_go(*seconds)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASchedule {
    #[error("must be a schedule such as `0 */12 * * *` (minute hour day month weekday), `@hourly` or `@every 5m`")]
    Form,
    /// With a prefix `CRON_TZ=…` or `TZ=…`, as in k3s.
    #[error("must not contain a time zone (set TZ for the service instead)")]
    TimeZone,
    /// Less than a minute between two.
    #[error("must leave at least one minute between two snapshots")]
    TooOften,
    /// 31 February.
    #[error("must be a date that exists")]
    Never,
}

const MIN_INTERVAL_SECONDS: u64 = 60;
/// The search for a first run starts this many years before the last year of croner: every existing date occurs within
/// eight years, and a search from today would cover three thousand.
const YEARS_TO_SEARCH: i32 = 40;

fn has_a_next_time(cron: &Cron) -> bool {
    let from = Utc.with_ymd_and_hms(croner::YEAR_UPPER_LIMIT - YEARS_TO_SEARCH, 1, 1, 0, 0, 0).single();
    from.is_none_or(|from| cron.find_next_occurrence(&from, true).is_ok())
}

/// The first time after `now`.
fn next_after<Z: TimeZone>(cron: &Cron, now: &DateTime<Z>) -> Option<DateTime<Z>> {
    let next = cron.find_next_occurrence(now, false).ok()?;
    if next > *now {
        return Some(next);
    }
    // In the hour that clocks pass twice, croner may answer with the first pass. With a fixed offset there is no second one.
    let local = now.with_timezone(&now.offset().fix());
    let next = cron.find_next_occurrence(&local, false).ok()?;
    Some(next.with_timezone(&now.timezone()))
}

impl FromStr for Schedule {
    type Err = NotASchedule;

    fn from_str(text: &str) -> Result<Self, NotASchedule> {
        let text = text.trim();
        if ["CRON_TZ=", "TZ="].iter().any(|start| text.starts_with(start)) {
            return Err(NotASchedule::TimeZone);
        }
        if let Some(interval) = text.strip_prefix("@every ") {
            let seconds = duration::parse(interval.trim()).ok_or(NotASchedule::Form)?;
            return if seconds < MIN_INTERVAL_SECONDS { Err(NotASchedule::TooOften) } else { Ok(Self::Every(seconds)) };
        }
        let text = match text {
            "@midnight" => "@daily",
            other => other,
        };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|_| NotASchedule::Form)?;
        if has_a_next_time(&cron) { Ok(Self::Calendar(Box::new(cron))) } else { Err(NotASchedule::Never) }
    }
}

/// The newest of these times. Times in the future come from a wrong clock and are ignored.
#[must_use]
pub fn newest<Z: TimeZone>(now: &DateTime<Z>, moments: impl Iterator<Item = DateTime<Z>>) -> Option<DateTime<Z>> {
    moments.filter(|moment| moment <= now).max()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due<Z: TimeZone> {
    /// Use the slot that began then.
    Now(DateTime<Z>),
    At(DateTime<Z>),
    Never,
}

impl Schedule {
    /// Seconds between slots around `now`, the longer interval; `None` if there are no two slots.
    #[must_use]
    pub fn interval<Z: TimeZone>(&self, now: &DateTime<Z>) -> Option<u64> {
        match self {
            Self::Every(seconds) => Some(*seconds),
            Self::Calendar(cron) => {
                let second = now.with_nanosecond(0).unwrap_or_else(|| now.clone());
                let next = cron.find_next_occurrence(&second, false).ok()?;
                let previous = cron.find_previous_occurrence(&second, true).ok()?;
                let before = cron.find_previous_occurrence(&previous, false).ok();
                let between = |later: &DateTime<Z>, earlier: DateTime<Z>| (later.clone() - earlier).num_seconds();
                let longest = before.map_or(0, |before| between(&previous, before)).max(between(&next, previous));
                u64::try_from(longest).ok()
            }
        }
    }

    /// Whether a snapshot is due at `now`. `last` is the start of the last one, if any; `data_created_at` is when this
    /// server's data was created: no slot before that was missed. Several missed slots count as one.
    #[must_use]
    pub fn due<Z: TimeZone>(
        &self,
        now: &DateTime<Z>,
        last: Option<&DateTime<Z>>,
        data_created_at: &DateTime<Z>,
    ) -> Due<Z> {
        // A last attempt in the future comes from a wrong clock.
        let done = last.filter(|last| *last <= now).filter(|last| *last > data_created_at).unwrap_or(data_created_at);
        match self {
            Self::Every(seconds) => {
                let interval = i64::try_from(*seconds).ok().and_then(Duration::try_seconds);
                let Some(next) = interval.and_then(|interval| done.clone().checked_add_signed(interval)) else {
                    return Due::Never;
                };
                if next <= *now { Due::Now(next) } else { Due::At(next) }
            }
            Self::Calendar(cron) => {
                // Slots begin at whole seconds, and croner matches every instant of that second.
                let second = now.with_nanosecond(0).unwrap_or_else(|| now.clone());
                let previous = cron.find_previous_occurrence(&second, true).ok();
                if let Some(previous) = previous.filter(|previous| previous > done) {
                    return Due::Now(previous);
                }
                next_after(cron, now).map_or(Due::Never, Due::At)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Europe::Berlin;
    use chrono_tz::Tz;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Tz> {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Berlin)
    }

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    #[test]
    fn the_interval_is_the_longer_one_of_those_around_now() {
        let now = at("2026-11-25T12:30:00+01:00");
        assert_eq!(schedule("0 */12 * * *").interval(&now), Some(12 * 3600));
        assert_eq!(schedule("@every 5m").interval(&now), Some(300));
        assert_eq!(schedule("0 9,17 * * *").interval(&now), Some(16 * 3600));
    }

    /// The slots used by a server that checks the clock every minute.
    fn taken(schedule: &Schedule, from: &DateTime<Tz>, to: &DateTime<Tz>) -> Vec<String> {
        let (mut now, mut last, mut slots) = (*from, None, Vec::new());
        while now < *to {
            if let Due::Now(_) = schedule.due(&now, last.as_ref(), from) {
                slots.push(now.format("%m-%d %H:%M%z").to_string());
                last = Some(now);
            }
            now += Duration::minutes(1);
        }
        slots
    }

    #[test]
    fn expressions_are_checked() {
        for good in
            ["0 */12 * * *", "@hourly", "@daily", "@midnight", "@weekly", "@every 5m", "@every 1h30m", " 5 4 * * 1-5 "]
        {
            assert!(good.parse::<Schedule>().is_ok(), "{good}");
        }
        // Bugs F7, W1.
        for (bad, why) in [
            ("0 0 31 2 *", NotASchedule::Never),
            ("0 0 30 2 *", NotASchedule::Never),
            ("0 0 31 4,6,9,11 *", NotASchedule::Never),
            ("CRON_TZ=UTC 0 3 * * *", NotASchedule::TimeZone),
            ("TZ=Europe/Berlin 0 3 * * *", NotASchedule::TimeZone),
            ("@every 30s", NotASchedule::TooOften),
            ("@every 0s", NotASchedule::TooOften),
            ("@every 30", NotASchedule::Form),
            ("0 0 0 * * *", NotASchedule::Form),
        ] {
            assert_eq!(bad.parse::<Schedule>(), Err(why), "{bad}");
        }
        assert!("0 0 29 2 *".parse::<Schedule>().is_ok(), "every four years is a schedule");
        assert!("0 0 31 2 1".parse::<Schedule>().is_ok(), "a weekday occurs, too");
        for bad in [
            "",
            "daily",
            "* * * *",
            "0 0 * * * *",
            "60 * * * *",
            "@every",
            "@every 5",
            "@every 5s",
            "@often",
            "0 */12 * * * x",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_slot_is_taken_once_also_when_the_clocks_change() {
        // On 2026-03-29 there is no 02:30 in Berlin, on 2026-10-25 there are two.
        let fixed = schedule("30 2 * * *");
        for (from, to, days) in [
            ("2026-03-28T00:00:00+01:00", "2026-03-31T00:00:00+02:00", 3),
            ("2026-10-24T00:00:00+02:00", "2026-10-27T00:00:00+01:00", 3),
        ] {
            let slots = taken(&fixed, &at(from), &at(to));
            assert_eq!(slots.len(), days, "{slots:?}");
        }
        // The long day has 24 local hours, too; the short one has 23.
        let hourly = schedule("@hourly");
        for (day, hours) in [("2026-10-25T00:00:00+02:00", 25), ("2026-03-29T00:00:00+01:00", 23)] {
            let from = at(day) - Duration::minutes(1);
            let slots = taken(&hourly, &from, &(from + Duration::hours(hours)));
            assert_eq!(i64::try_from(slots.len()).unwrap(), hours.min(24), "{slots:?}");
        }
    }

    #[test]
    fn a_missed_slot_is_made_up_for_once_and_a_young_server_has_missed_nothing() {
        let schedule = schedule("0 */12 * * *");
        let now = at("2026-06-10T15:00:00+02:00");
        let noon = at("2026-06-10T12:00:00+02:00");
        let old = at("2026-01-01T00:00:00+01:00");
        assert_eq!(schedule.due(&now, None, &old), Due::Now(noon));
        assert_eq!(schedule.due(&now, Some(&at("2026-06-08T00:00:00+02:00")), &old), Due::Now(noon));
        let midnight = at("2026-06-11T00:00:00+02:00");
        assert_eq!(schedule.due(&now, Some(&at("2026-06-10T12:00:03+02:00")), &old), Due::At(midnight));
        assert_eq!(
            schedule.due(&now, None, &at("2026-06-10T14:00:00+02:00")),
            Due::At(midnight),
            "data_created_at after the slot"
        );
        // A clock that was wrong once does not stop the schedule.
        assert_eq!(schedule.due(&now, Some(&at("2030-01-01T00:00:00+01:00")), &old), Due::Now(noon));
        let every = Schedule::Every(3600);
        assert_eq!(
            every.due(&now, Some(&at("2026-06-10T14:30:00+02:00")), &old),
            Due::At(at("2026-06-10T15:30:00+02:00"))
        );
        assert_eq!(
            every.due(&now, Some(&at("2026-06-10T13:30:00+02:00")), &old),
            Due::Now(at("2026-06-10T14:30:00+02:00"))
        );
    }

    #[test]
    fn a_snapshot_of_the_future_does_not_hide_the_one_that_was_just_taken() {
        let every = Schedule::Every(60);
        let now = at("2026-06-10T15:00:00+02:00");
        let (taken, wrong) = (at("2026-06-10T14:59:50+02:00"), at("2030-01-01T00:00:00+01:00"));
        let data_created_at = at("2026-01-01T00:00:00+01:00");
        let last = newest(&now, [wrong, taken].into_iter());
        assert_eq!(last, Some(taken));
        assert_eq!(every.due(&now, last.as_ref(), &data_created_at), Due::At(at("2026-06-10T15:00:50+02:00")));
        assert_eq!(newest(&now, [wrong].into_iter()), None);
    }

    /// In the second pass of an hour the next slot was one of the first pass, an hour ago, and the scheduler never slept.
    #[test]
    fn the_next_slot_is_later_than_now_also_when_the_clocks_go_back() {
        let schedule = schedule("*/7 * * * *");
        for minute in 0..180 {
            let now = Berlin.timestamp_opt(1_729_987_200 + minute * 60, 0).unwrap();
            let Due::At(next) = schedule.due(&now, Some(&now), &now) else { panic!("{now} has no next slot") };
            assert!(next > now && next - now <= Duration::minutes(70), "{now}: {next}");
        }
    }

    proptest! {
        #[test]
        fn after_a_run_the_same_slot_is_never_due_again(
            start in 1_700_000_000i64..1_900_000_000, which in 0usize..6, wait in 0i64..200_000, nanos in 0u32..999_000_000, minute: bool,
        ) {
            // Also in the second in which a slot begins.
            let start = if minute { start / 60 * 60 } else { start };
            let text = ["0 */12 * * *", "@hourly", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "@every 90m"][which];
            let schedule = schedule(text);
            let data_created_at = Berlin.timestamp_opt(start - 500_000, 0).unwrap();
            let now = Berlin.timestamp_opt(start, nanos).unwrap();
            if let Due::Now(slot) = schedule.due(&now, None, &data_created_at) {
                prop_assert!(slot <= now && slot > data_created_at);
                prop_assert!(matches!(schedule.due(&now, Some(&now), &data_created_at), Due::At(_)));
                let a_moment_later = Berlin.timestamp_opt(start, nanos + 900_000).unwrap();
                prop_assert!(matches!(schedule.due(&a_moment_later, Some(&now), &data_created_at), Due::At(_)));
                // Manifests have whole seconds.
                let written = Berlin.timestamp_opt(start, 0).unwrap();
                prop_assert!(matches!(schedule.due(&a_moment_later, Some(&written), &data_created_at), Due::At(_)));
            }
            // The next due time is in the future.
            let later = Berlin.timestamp_opt(start + wait, 0).unwrap();
            if let Due::At(next) = schedule.due(&later, Some(&later), &data_created_at) {
                prop_assert!(next > later);
            }
        }
    }
}
