//! `verify` of snapshots in object storage, which are streamed and not stored.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::etcd_snapshot::context::SnapshotContext;
use crate::cli::etcd_snapshot::verify::outcome::Outcome;
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::error::AppError;
use crate::snapshot::prune::PruneError;
use crate::snapshot::store::s3::listing::{self, InBucket};
use crate::snapshot::store::s3::store::Remote;
use crate::snapshot::store::s3::{index, verify};
use crate::snapshot::stream::Streamed;
use crate::text::{escape_control, format_bytes};

/// A good snapshot in a bucket, in `-o json`. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct RemoteVerifiedItem {
    path: String,
    status: &'static str,
    size: u64,
    compression: &'static str,
    database_size: u64,
    sha256: String,
    revision: Option<i64>,
    keys: Option<u64>,
    etcd_version: Option<String>,
}

impl RemoteVerifiedItem {
    fn of(url: String, streamed: Streamed, found: &InBucket) -> Self {
        let manifest = found.listed.manifest.as_ref().filter(|manifest| manifest.sha256 == streamed.sha256);
        Self {
            path: url,
            status: "good",
            size: streamed.stored_size,
            compression: streamed.packing.word(),
            database_size: streamed.database_size,
            sha256: streamed.sha256,
            revision: manifest.map(|manifest| manifest.revision),
            keys: manifest.map(|manifest| manifest.keys),
            etcd_version: manifest.map(|manifest| manifest.etcd_version.clone()),
        }
    }

    fn summary(&self) -> String {
        let packed = if self.compression.is_empty() { String::new() } else { format!(" as {}", self.compression) };
        let mut text = output::fitted(&format!("{}: good", escape_control(&self.path))) + "\n";
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<12}{value}");
        };
        row("size", format!("{}, database {}{packed}", format_bytes(self.size), format_bytes(self.database_size)));
        match (self.revision, self.keys) {
            (Some(revision), Some(keys)) => {
                row("sha256", "matches the snapshot that was verified on its node".into());
                row("revision", revision.to_string());
                row("keys", keys.to_string());
            }
            _ => row(
                "sha256",
                "the trailing one is correct; without a manifest of quorate, its pages were never verified".into(),
            ),
        }
        text
    }
}

/// All snapshots.
pub(super) async fn list(remote: &Remote) -> Result<Vec<InBucket>, AppError> {
    Ok(listing::list(&remote.bucket, remote.cache.as_deref()).await?)
}

/// One, by URL.
pub(super) async fn named(place: &SnapshotContext, url: &str, outcome: &mut Outcome) -> Result<(), AppError> {
    let missing = || AppError::from(PruneError::NotFound(escape_control(url)));
    let (remote, name) = place.at(url).await?.ok_or_else(missing)?;
    let there = list(&remote).await?;
    let found = there.iter().find(|known| known.listed.name == name).ok_or_else(missing)?;
    these(&remote, &there, vec![found], outcome).await;
    Ok(())
}

/// Some, by name.
pub(super) async fn these(remote: &Remote, there: &[InBucket], found: Vec<&InBucket>, outcome: &mut Outcome) {
    let mut findings = Vec::new();
    for known in found {
        let url = remote.bucket.url(&known.object.key);
        let mut progress =
            Progress::new(&format!("verifying {}", output::truncate(&escape_control(&known.listed.name), 24)));
        let size = known.object.size;
        let verified = verify::verify(&remote.bucket, known, |came| progress.set(came, size)).await;
        drop(progress);
        findings.extend(verify::finding(known, &verified));
        match verified {
            Ok(streamed) => {
                let item = RemoteVerifiedItem::of(url, streamed, known);
                outcome.good(&item, item.summary());
            }
            Err(error) => outcome.bad(&url, &error.into()),
        }
    }
    if findings.is_empty() {
        return;
    }
    let present: HashSet<&str> = there.iter().map(|known| known.listed.name.as_str()).collect();
    let is_there = |name: &str| present.contains(name);
    if let Err(error) = index::record(&remote.bucket, remote.cache.as_deref(), &findings, is_there).await {
        output::print_stderr(&format!("quorate: warning: cannot record the result in the bucket: {}\n", error.why()));
    }
}
