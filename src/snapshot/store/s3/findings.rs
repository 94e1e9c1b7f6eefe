//! What verifications found of the snapshots in a bucket, by name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::snapshot::manifest::Verification;

/// Findings about unlisted snapshots are kept for this time: the snapshot may be newer than the listing.
const FORGET_AFTER: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug)]
pub struct VerificationRecord {
    pub name: String,
    /// The version of the verified object.
    pub version: String,
    pub verification: Verification,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Index {
    /// By name: the version of the verified object, and the result.
    verified: BTreeMap<String, (String, Verification)>,
}

fn at(verification: &Verification) -> Option<std::time::SystemTime> {
    clock::parse_rfc3339(&verification.at)
}

impl Index {
    /// The result for this version of an object.
    pub(super) fn of(&self, name: &str, version: &str) -> Option<&Verification> {
        self.verified.get(name).filter(|(known, _)| known == version).map(|(_, verification)| verification)
    }

    /// Merged with another index; the later result wins.
    pub(super) fn merge(&mut self, other: Self) {
        for (name, (version, verification)) in other.verified {
            self.add(VerificationRecord { name, version, verification });
        }
    }

    pub(super) fn add(&mut self, found: VerificationRecord) {
        let is_older = self.verified.get(&found.name).is_some_and(|(_, known)| at(known) > at(&found.verification));
        if !is_older {
            self.verified.insert(found.name, (found.version, found.verification));
        }
    }

    pub(super) fn forget(&mut self, is_there: impl Fn(&str) -> bool) {
        let now = clock::now();
        let is_old = |found: &Verification| {
            at(found).is_none_or(|at| now.duration_since(at).is_ok_and(|passed| passed > FORGET_AFTER))
        };
        self.verified.retain(|name, (_, found)| is_there(name) || !is_old(found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &str, version: &str, status: &str, seconds: u64) -> VerificationRecord {
        let at = clock::rfc3339(clock::now() - Duration::from_secs(seconds));
        let verification = Verification { status: status.into(), at, ..Verification::default() };
        VerificationRecord { name: name.into(), version: version.into(), verification }
    }

    fn index(findings: &[VerificationRecord]) -> Index {
        let mut index = Index::default();
        findings.iter().cloned().for_each(|finding| index.add(finding));
        index
    }

    #[test]
    fn of_two_findings_the_later_counts() {
        let mut ours = index(&[finding("a", "1", "good", 50), finding("b", "1", "corrupt", 10)]);
        ours.merge(index(&[
            finding("a", "2", "corrupt", 40),
            finding("b", "1", "good", 20),
            finding("c", "1", "good", 0),
        ]));
        assert_eq!(ours.of("a", "1"), None, "it is another version now");
        assert_eq!(ours.of("a", "2").unwrap().status, "corrupt");
        assert_eq!(ours.of("b", "1").unwrap().status, "corrupt");
        assert_eq!(ours.of("c", "1").unwrap().status, "good");
    }

    #[test]
    fn what_is_gone_is_forgotten_after_a_while() {
        let mut index = index(&[
            finding("here", "1", "good", 200_000),
            finding("gone", "1", "good", 200_000),
            finding("new", "1", "corrupt", 60),
        ]);
        index.forget(|name| name == "here");
        assert_eq!(index.verified.keys().collect::<Vec<_>>(), ["here", "new"]);
    }
}
