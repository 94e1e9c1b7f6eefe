//! Which snapshot `latest`, or a base name, refers to: a pure function of the snapshots and the time.
//!
//! The newest good one of this server, on this node or in object storage. Damaged ones are skipped; unverified ones are
//! to be verified first. One dated in the future by a wrong clock counts as newest only if its revision is newest, too.

use crate::cluster::record::MemberIdentity;

/// The word for the newest good snapshot, of whatever base name.
pub const LATEST: &str = "latest";

/// The state of a snapshot, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateHealth {
    Good,
    Unknown(&'static str),
    /// It cannot be restored, with the reason.
    Bad(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectCandidate {
    pub name: String,
    /// Base name, if that is known.
    pub base: Option<String>,
    pub is_own: bool,
    /// A snapshot of data that a restore replaced: `latest` ignores it, so that the same restore can be repeated.
    pub is_safety_copy: bool,
    /// It is on this node, not in object storage.
    pub is_here: bool,
    /// Seconds since 1970.
    pub created: u64,
    /// Of the keyspace, if that is known.
    pub revision: Option<i64>,
    /// The incarnation of its data, if known.
    pub life: Option<MemberIdentity>,
    /// Whether it is good, as far as known.
    pub health: CandidateHealth,
}

/// What to do with a candidate. Both have its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Take(usize),
    /// Verify it, and use it if it is good.
    Verify(usize, &'static str),
    /// Pass it over, and say so.
    Skip(usize, &'static str),
}

/// The candidates for `word`, in the order in which to try them, up to the first that is good.
#[must_use]
pub fn attempts(candidates: &[SelectCandidate], word: &str, now: u64) -> Vec<Attempt> {
    let is_meant = |candidate: &SelectCandidate| {
        let is_latest = word == LATEST && !candidate.is_safety_copy;
        candidate.is_own && (is_latest || candidate.base.as_deref() == Some(word))
    };
    let mut order: Vec<usize> = (0..candidates.len()).filter(|index| is_meant(&candidates[*index])).collect();
    let newest =
        order.iter().map(|index| &candidates[*index]).filter(|it| it.created <= now).max_by_key(|it| it.created);
    // 2: in the future, but with the newest revision; 1: in the past; 0: dated by a wrong clock.
    let is_later_than = |candidate: &SelectCandidate, newest: &SelectCandidate| {
        candidate.life.is_some() && candidate.life == newest.life && candidate.revision > newest.revision
    };
    let era = |candidate: &SelectCandidate| {
        if candidate.created <= now {
            1
        } else if newest.is_some_and(|newest| is_later_than(candidate, newest)) {
            2
        } else {
            0
        }
    };
    order.sort_by_key(|index| {
        let candidate = &candidates[*index];
        std::cmp::Reverse((era(candidate), candidate.created, candidate.name.clone(), candidate.is_here))
    });
    let mut attempts = Vec::new();
    for index in order {
        attempts.push(match candidates[index].health {
            CandidateHealth::Good => Attempt::Take(index),
            CandidateHealth::Unknown(why) => Attempt::Verify(index, why),
            CandidateHealth::Bad(why) => Attempt::Skip(index, why),
        });
        if candidates[index].health == CandidateHealth::Good {
            break;
        }
    }
    attempts
}

/// The edit distance that counts as a typo in a word of this length: one letter in four, but at least two.
const MIN_SIMILAR_LETTERS: usize = 4;

/// The name or base name that `word` is probably a typo of.
#[must_use]
pub fn similar<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / MIN_SIMILAR_LETTERS).max(2);
    let distance = |name: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase());
    let near = names.into_iter().map(|name| (distance(name), name)).filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, name)| (*distance, *name)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    fn candidate(name: &str, created: u64, revision: i64) -> SelectCandidate {
        let life = MemberIdentity { cluster_id: "c".into(), member_id: "m".into() };
        let base = name.split_once('/').map_or(name, |(base, _)| base);
        SelectCandidate {
            name: name.into(),
            base: Some(base.into()),
            is_own: true,
            is_safety_copy: false,
            is_here: true,
            created,
            revision: Some(revision),
            life: Some(life),
            health: CandidateHealth::Good,
        }
    }

    fn bad(candidate: SelectCandidate) -> SelectCandidate {
        SelectCandidate { health: CandidateHealth::Bad("corrupt"), ..candidate }
    }

    fn unknown(candidate: SelectCandidate) -> SelectCandidate {
        SelectCandidate { health: CandidateHealth::Unknown("unverified"), ..candidate }
    }

    fn there(candidate: SelectCandidate) -> SelectCandidate {
        SelectCandidate { is_here: false, ..candidate }
    }

    #[test]
    fn the_newest_good_one_of_this_server_is_chosen() {
        use Attempt::{Skip, Take, Verify};
        let foreign = SelectCandidate { is_own: false, ..candidate("a/9", 900, 9) };
        let of_other_life = SelectCandidate {
            life: Some(MemberIdentity { cluster_id: "c2".into(), member_id: "m".into() }),
            ..candidate("a/5", 5_000, 99)
        };
        let safety_copy = SelectCandidate { is_safety_copy: true, ..candidate("pre-restore/7", 700, 7) };
        let nameless = SelectCandidate { base: None, ..candidate("a/6", 600, 6) };
        for (what, candidates, word, expected) in [
            ("nothing", vec![], "latest", vec![]),
            (
                "the newest",
                vec![candidate("a/1", 1, 1), candidate("b/3", 3, 3), candidate("a/2", 2, 2)],
                "latest",
                vec![Take(1)],
            ),
            (
                "of a base name",
                vec![candidate("a/1", 1, 1), candidate("b/3", 3, 3), candidate("a/2", 2, 2)],
                "a",
                vec![Take(2)],
            ),
            ("no such base name", vec![candidate("a/1", 1, 1)], "b", vec![]),
            ("a base name is not the beginning of one", vec![candidate("a-b/1", 1, 1)], "a", vec![]),
            ("not another server's", vec![foreign.clone(), candidate("a/1", 1, 1)], "latest", vec![Take(1)]),
            ("only another server's", vec![foreign], "latest", vec![]),
            ("replaced by a restore", vec![safety_copy.clone(), candidate("a/1", 1, 1)], "latest", vec![Take(1)]),
            ("replaced by a restore, by name", vec![safety_copy], "pre-restore", vec![Take(0)]),
            ("without a base name", vec![nameless.clone()], "a", vec![]),
            ("without a base name, latest", vec![nameless], "latest", vec![Take(0)]),
            (
                "damaged ones are skipped",
                vec![candidate("a/1", 1, 1), bad(candidate("a/2", 2, 2))],
                "a",
                vec![Skip(1, "corrupt"), Take(0)],
            ),
            ("only damaged ones", vec![bad(candidate("a/2", 2, 2))], "a", vec![Skip(0, "corrupt")]),
            (
                "unknown ones are verified",
                vec![unknown(candidate("a/1", 1, 1)), candidate("a/2", 2, 2), unknown(candidate("a/3", 3, 3))],
                "a",
                vec![Verify(2, "unverified"), Take(1)],
            ),
            ("local before remote", vec![there(candidate("a/2", 2, 2)), candidate("a/2", 2, 2)], "a", vec![Take(1)]),
            ("newer there", vec![there(candidate("a/3", 3, 3)), candidate("a/2", 2, 2)], "a", vec![Take(0)]),
            (
                "damaged here and good there",
                vec![there(candidate("a/2", 2, 2)), bad(candidate("a/2", 2, 2))],
                "a",
                vec![Skip(1, "corrupt"), Take(0)],
            ),
            ("from a wrong clock", vec![candidate("a/1", 1, 5), candidate("a/5", 5_000, 4)], "a", vec![Take(0)]),
            ("the clock is behind", vec![candidate("a/1", 1, 5), candidate("a/5", 5_000, 6)], "a", vec![Take(1)]),
            ("of another incarnation in the future", vec![candidate("a/1", 1, 5), of_other_life], "a", vec![Take(0)]),
            ("all in the future", vec![candidate("a/5", 5_000, 5), candidate("a/6", 6_000, 6)], "a", vec![Take(1)]),
        ] {
            assert_eq!(attempts(&candidates, word, NOW), expected, "{what}");
        }
    }

    #[test]
    fn a_misspelt_name_is_recognised() {
        let names = [
            "latest",
            "before-upgrade",
            "etcd-snapshot",
            "etcd-snapshot-node-1700000001",
            "etcd-snapshot-node-1700000002",
        ];
        for (word, expected) in [
            ("before-upgarde", Some("before-upgrade")),
            ("Before-Upgrade", Some("before-upgrade")),
            ("lates", Some("latest")),
            ("etcd-snapshot-node-170000001", Some("etcd-snapshot-node-1700000001")),
            ("mine.db", None),
            ("", None),
        ] {
            assert_eq!(similar(word, names), expected, "{word}");
        }
    }
}
