//! What verifications found of the snapshots in a bucket: one object for all, `.metadata/.index.json`.
//!
//! Several servers may write it at the same time: each writes only over what it has read, where the store can tell (`If-Match`), and reads
//! again otherwise. Each also remembers beside its cache what it has read and found, so that an index that was lost, or written over by
//! a store that cannot tell, is rebuilt with the next finding.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::plan::uploads;
use crate::snapshot::manifest::Verification;
use crate::snapshot::store::s3::cache::Cache;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::{Bucket, Condition, JSON, METADATA};

/// Not to be taken for a manifest: no snapshot's name begins with a dot.
pub(super) const NAME: &str = ".index.json";
/// Others may be as quick so often.
const ATTEMPTS: u32 = 8;
/// The longest first pause between them; the others are longer.
const PAUSE: Duration = Duration::from_millis(100);
/// What was found of a snapshot that is not listed is kept so long: it may have come since the listing.
const FORGET_AFTER: Duration = Duration::from_secs(86_400);

/// What was found of a snapshot.
#[derive(Clone, Debug)]
pub struct VerificationRecord {
    pub name: String,
    /// Which version of the object was looked at.
    pub version: String,
    pub verification: Verification,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Index {
    /// By name: which version of the object was verified, and what was found.
    verified: BTreeMap<String, (String, Verification)>,
}

fn at(verification: &Verification) -> Option<std::time::SystemTime> {
    clock::parse_rfc3339(&verification.at)
}

impl Index {
    /// What was found of this version of an object.
    pub(super) fn of(&self, name: &str, version: &str) -> Option<&Verification> {
        self.verified.get(name).filter(|(known, _)| known == version).map(|(_, verification)| verification)
    }

    /// With what another one has; of two findings, the later.
    pub(super) fn merge(&mut self, other: Self) {
        for (name, (version, verification)) in other.verified {
            self.add(VerificationRecord { name, version, verification });
        }
    }

    fn add(&mut self, found: VerificationRecord) {
        let is_older = self.verified.get(&found.name).is_some_and(|(_, known)| at(known) > at(&found.verification));
        if !is_older {
            self.verified.insert(found.name, (found.version, found.verification));
        }
    }

    /// Forgets what was found of snapshots that are gone.
    pub(super) fn forget(&mut self, is_there: impl Fn(&str) -> bool) {
        let now = clock::now();
        let is_old = |found: &Verification| {
            at(found).is_none_or(|at| now.duration_since(at).is_ok_and(|passed| passed > FORGET_AFTER))
        };
        self.verified.retain(|name, (_, found)| is_there(name) || !is_old(found));
    }
}

/// Writes down what was found. `is_there` knows which snapshots there are, `cache` is a file with what is remembered here.
pub async fn record(
    bucket: &Bucket,
    cache: Option<&Path>,
    found: &[VerificationRecord],
    is_there: impl Fn(&str) -> bool,
) -> Result<(), S3Error> {
    let key = format!("{}{METADATA}{NAME}", bucket.target().prefix());
    let mut attempt = 1;
    loop {
        let before = bucket.read_version(&key).await?;
        let mut remembered = Cache::open(cache);
        let mut index = remembered.index().clone();
        let (bytes, condition) = match before {
            Some((bytes, etag)) if etag.is_empty() => (bytes, Condition::None),
            Some((bytes, etag)) => (bytes, Condition::Still(etag)),
            None => (Vec::new(), Condition::Missing),
        };
        index.merge(serde_json::from_slice(&bytes).unwrap_or_default());
        found.iter().cloned().for_each(|finding| index.add(finding));
        index.forget(&is_there);
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        match bucket.write_if(&key, bytes, JSON, &condition).await {
            // Somebody else was quicker.
            Err(error) if error.kind == S3ErrorKind::Replaced && attempt < ATTEMPTS => {
                tokio::time::sleep(uploads::pause(attempt, PAUSE, crate::random::jitter())).await;
                attempt += 1;
            }
            written => {
                remembered.remember(index);
                remembered.save();
                return written.map(|_| ());
            }
        }
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
