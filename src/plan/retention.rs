//! Which snapshots to keep: a pure function of the snapshots, the policy and the time, with a reason for each.
//!
//!
//!
//! Only snapshots that are or may be good count and are dropped; the newest good one, those that are held, and those
//! whose time is in the future (the clock was wrong then, or is now) are always kept.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::text::duration;

/// The retention rules. A snapshot that any rule keeps is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Keep the newest N; 0 and `None` are no rule.
    pub last: Option<u32>,
    /// Keep the newest of each of the last N hours that have any.
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// Keep all that are at most this many seconds old.
    pub within: Option<u64>,
}

impl Policy {
    /// Keeps the newest `count`; all if it is 0.
    #[must_use]
    pub fn newest(count: u32) -> Self {
        Self { last: Some(count), ..Self::default() }
    }

    /// True if there is no rule, so that nothing is dropped.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        *self == Self { last: self.last, ..Self::default() } && self.last.unwrap_or(0) == 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPolicy {
    #[error("unknown retention rule `{0}`; use last=N, hourly=N, daily=N, weekly=N, monthly=N, yearly=N or within=30d")]
    Rule(String),
    /// An age that cannot be parsed.
    #[error("`{rule}`: {source}")]
    Age { rule: String, source: duration::AgeError },
}

impl FromStr for Policy {
    type Err = NotAPolicy;

    /// Parses `last=5,daily=7,within=36h`.
    fn from_str(text: &str) -> Result<Self, NotAPolicy> {
        let mut policy = Self::default();
        for rule in text.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
            let shown = || crate::text::escape_control(rule);
            let wrong = || NotAPolicy::Rule(shown());
            let (name, value) = rule.split_once('=').ok_or_else(wrong)?;
            let count = || value.parse::<u32>().map_err(|_| wrong());
            match name.trim_start_matches("keep-") {
                "last" => policy.last = Some(count()?),
                "hourly" => policy.hourly = count()?,
                "daily" => policy.daily = count()?,
                "weekly" => policy.weekly = count()?,
                "monthly" => policy.monthly = count()?,
                "yearly" => policy.yearly = count()?,
                "within" => {
                    let age = duration::parse_age(value);
                    policy.within = Some(age.map_err(|source| NotAPolicy::Age { rule: shown(), source })?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(policy)
    }
}

/// A moment in the local calendar, as far as the rules need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime {
    pub year: i32,
    /// Starts at 1.
    pub month: u32,
    /// From 1, in the year.
    pub day_of_year: u32,
    /// Year and week (ISO 8601), which differ from the calendar's around New Year.
    pub week: (i32, u32),
    /// Starts at 0.
    pub hour: u32,
}

/// A snapshot that may be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionCandidate {
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The same in the local calendar.
    pub local: LocalTime,
    pub is_good: bool,
    /// Why it neither counts nor is dropped: damaged, incomplete, changed or unknown.
    pub suspect: Option<&'static str>,
    pub is_held: bool,
}

/// What to do with one, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetentionDecision {
    Keep(String),
    Drop(String),
}

/// Decides about each candidate, in their order.
#[must_use]
pub fn plan(candidates: &[RetentionCandidate], policy: &Policy, now: u64) -> Vec<RetentionDecision> {
    // The newest first; names break ties, so that the same input always gives the same answer.
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|left, right| {
        let key = |index: &usize| (candidates[*index].created, &candidates[*index].name);
        key(right).cmp(&key(left))
    });
    let is_past_and_good =
        |candidate: &RetentionCandidate| candidate.is_good && candidate.suspect.is_none() && candidate.created <= now;
    let newest_good = order.iter().copied().find(|index| is_past_and_good(&candidates[*index]));
    let mut rules = Rules::new(policy, now);
    let mut verdicts: Vec<Option<RetentionDecision>> = vec![None; candidates.len()];
    for index in order {
        let candidate = &candidates[index];
        let keep = |why: &str| Some(RetentionDecision::Keep(why.to_owned()));
        verdicts[index] = if let Some(why) = candidate.suspect {
            keep(why)
        } else if candidate.created > now {
            keep("its time is in the future, so it does not count")
        } else {
            // Evaluated first: held snapshots count for the rules, too.
            match (rules.reason(candidate), candidate.is_held) {
                (Some(why), _) => Some(RetentionDecision::Keep(why)),
                (None, true) => keep("it is held"),
                (None, false) if policy.keeps_all() => keep("everything is kept"),
                (None, false) if Some(index) == newest_good => keep("it is the newest good one"),
                (None, false) => Some(RetentionDecision::Drop("no rule keeps it".to_owned())),
            }
        };
    }
    verdicts
        .into_iter()
        .map(|verdict| verdict.unwrap_or(RetentionDecision::Keep("it was not judged".to_owned())))
        .collect()
}

/// The remaining counts of the rules, from the newest snapshot to the oldest.
struct Rules<'a> {
    policy: &'a Policy,
    now: u64,
    last: u32,
    hours: BTreeSet<(i32, u32, u32)>,
    days: BTreeSet<(i32, u32)>,
    weeks: BTreeSet<(i32, u32)>,
    months: BTreeSet<(i32, u32)>,
    years: BTreeSet<i32>,
}

impl<'a> Rules<'a> {
    fn new(policy: &'a Policy, now: u64) -> Self {
        let (days, weeks, months) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { policy, now, last: 0, hours: BTreeSet::new(), days, weeks, months, years: BTreeSet::new() }
    }

    /// The rules that keep it, if any does.
    fn reason(&mut self, candidate: &RetentionCandidate) -> Option<String> {
        let mut reasons = Vec::new();
        self.last += 1;
        if self.policy.last.is_some_and(|count| self.last <= count) {
            reasons.push(format!("number {} of the newest {}", self.last, self.policy.last.unwrap_or(0)));
        }
        if self.policy.within.is_some_and(|within| self.now - candidate.created <= within) {
            reasons.push("young enough".to_owned());
        }
        let LocalTime { year, month, day_of_year, week, hour } = candidate.local;
        let policy = self.policy;
        let mut first = |is_first: bool, what: &str| {
            if is_first {
                reasons.push(format!("the newest of its {what}"));
            }
        };
        first(first_of(&mut self.hours, (year, day_of_year, hour), policy.hourly), "hour");
        first(first_of(&mut self.days, (year, day_of_year), policy.daily), "day");
        first(first_of(&mut self.weeks, week, policy.weekly), "week");
        first(first_of(&mut self.months, (year, month), policy.monthly), "month");
        first(first_of(&mut self.years, year, policy.yearly), "year");
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }
}

/// True for the first of its period, while fewer than `count` periods were seen.
fn first_of<P: Ord>(seen: &mut BTreeSet<P>, period: P, count: u32) -> bool {
    seen.len() < count as usize && seen.insert(period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn candidate(name: &str, created: u64) -> RetentionCandidate {
        let day = created / 86_400;
        let local = LocalTime {
            year: i32::try_from(day / 365).unwrap(),
            month: u32::try_from(day % 365 / 31 + 1).unwrap(),
            day_of_year: u32::try_from(day % 365 + 1).unwrap(),
            week: (i32::try_from(day / 364).unwrap(), u32::try_from(day % 364 / 7).unwrap()),
            hour: u32::try_from(created / 3600 % 24).unwrap(),
        };
        RetentionCandidate { name: name.into(), created, local, is_good: true, suspect: None, is_held: false }
    }

    fn kept(candidates: &[RetentionCandidate], policy: &str) -> Vec<String> {
        let verdicts = plan(candidates, &policy.parse().unwrap(), NOW);
        let kept = candidates.iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, RetentionDecision::Keep(_)));
        kept.map(|(candidate, _)| candidate.name.clone()).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let hour = |ago: u64| candidate(&format!("{ago}h"), NOW - ago * 3600);
        let all: Vec<RetentionCandidate> = [0, 1, 2, 30, 60, 24 * 9, 24 * 40, 24 * 400].map(hour).to_vec();
        for (policy, expected) in [
            ("last=2", vec!["0h", "1h"]),
            ("last=0", vec!["0h", "1h", "2h", "30h", "60h", "216h", "960h", "9600h"]),
            ("", vec!["0h", "1h", "2h", "30h", "60h", "216h", "960h", "9600h"]),
            ("hourly=3", vec!["0h", "1h", "2h"]),
            ("daily=2", vec!["0h", "30h"]),
            ("yearly=2", vec!["0h", "9600h"]),
            ("within=3h", vec!["0h", "1h", "2h"]),
            ("last=1,within=36h", vec!["0h", "1h", "2h", "30h"]),
            ("keep-last=1", vec!["0h"]),
        ] {
            assert_eq!(kept(&all, policy), expected, "{policy}");
        }
        for wrong in ["last", "last=x", "often=3", "within=30", "within=d", "within=2m"] {
            assert!(wrong.parse::<Policy>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_must_never_go_stays() {
        let mut all: Vec<RetentionCandidate> =
            (0..5).map(|index| candidate(&index.to_string(), NOW - 1000 * index)).collect();
        all[0].suspect = Some("it is corrupt");
        all[1].is_good = false;
        all[3].is_held = true;
        all.push(candidate("future", NOW + 999_999));
        // The suspect and the one of the future do not count: number 1 is the newest that does. Number 2 is the newest good one.
        assert_eq!(kept(&all, "last=1"), ["0", "1", "2", "3", "future"]);
        // After the clock was set back, everything is in the future: nothing is dropped.
        let verdicts = plan(&all, &Policy::newest(1), 1000);
        assert!(verdicts.iter().all(|verdict| matches!(verdict, RetentionDecision::Keep(_))));
        // The known reason is reported.
        assert_eq!(plan(&all, &Policy::newest(1), NOW)[0], RetentionDecision::Keep("it is corrupt".into()));
    }

    proptest! {
        #[test]
        fn the_newest_good_one_the_held_and_enough_of_the_rest_are_kept(
            ages in proptest::collection::vec((0u64..10_000_000, any::<bool>(), any::<bool>(), any::<bool>()), 0..40),
            last in 0u32..10, daily in 0u32..10,
        ) {
            let all: Vec<RetentionCandidate> = ages.iter().enumerate().map(|(index, (age, is_good, is_held, is_suspect))| RetentionCandidate {
                is_good: *is_good && !is_suspect, is_held: *is_held, suspect: is_suspect.then_some("it is corrupt"),
                ..candidate(&format!("{index:02}"), NOW - age)
            }).collect();
            let policy = Policy { last: Some(last), daily, ..Policy::default() };
            let verdicts = plan(&all, &policy, NOW);
            prop_assert_eq!(&verdicts, &plan(&all, &policy, NOW));
            let is_kept = |index: usize| matches!(verdicts[index], RetentionDecision::Keep(_));
            let newest_good = (0..all.len()).filter(|index| all[*index].is_good).max_by_key(|index| (all[*index].created, &all[*index].name));
            prop_assert!(newest_good.is_none_or(is_kept));
            for (index, candidate) in all.iter().enumerate() {
                prop_assert!(is_kept(index) || !(candidate.is_held || candidate.suspect.is_some()));
            }
            let counting = all.iter().filter(|candidate| candidate.suspect.is_none()).count();
            let kept = (0..all.len()).filter(|index| all[*index].suspect.is_none() && is_kept(*index)).count();
            prop_assert!(kept >= counting.min(last as usize));
        }
    }
}
