//! Which snapshots of a store may be deleted, by name or by policy. Held ones are kept.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, Datelike as _, Local, Timelike as _};

use crate::durable::WriteError;
use crate::error::{Code, Diagnostic};
use crate::plan::owner::{Origin, Owner, Ownership};
use crate::plan::retention::{self, LocalTime, Policy, RetentionCandidate, RetentionDecision};
use crate::plan::snapshot_name::NamePrefix;
use crate::snapshot::list::{Listed, SnapshotStatus};
use crate::snapshot::manifest::{self, Manifest};

/// Why nothing, or not everything, was deleted.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error("snapshot {0} does not exist")]
    NotFound(String),
    #[error("{0} is held; nothing was deleted")]
    Held(String),
    /// It is unknown whether it is held.
    #[error("cannot read the manifest of {0}, so it may be held; nothing was deleted")]
    Unreadable(String),
    /// No good one would be left.
    #[error("{0} is the last good snapshot here; nothing was deleted")]
    LastGood(String),
    /// It could not be removed, read or written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Diagnostic for PruneError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::SnapshotNotFound,
            Self::Held(_) => Code::SnapshotHeld,
            Self::Unreadable(_) => Code::ManifestUnreadable,
            Self::LastGood(_) => Code::LastGoodSnapshot,
            Self::Write(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "quorate etcd-snapshot ls shows all snapshots; a name contains no directories".into(),
            Self::Held(name) => {
                format!("if it may be deleted: quorate etcd-snapshot release {}", crate::text::escape_control(name))
            }
            Self::Unreadable(_) => "check it, in .metadata next to the snapshot; --force deletes both".into(),
            Self::LastGood(_) => "take another one first, or add --force".into(),
            Self::Write(error) => return error.next_step(),
        })
    }
}

/// Whether `found`, a subset of `all`, may be deleted. With `force` even the last good one.
pub fn check_deletable(all: &[Listed], found: &[Listed], force: bool) -> Result<(), PruneError> {
    if let Some(held) = found.iter().find(|listed| is_held(listed)) {
        return Err(PruneError::Held(held.name.clone()));
    }
    if let Some(unknown) = found.iter().find(|listed| listed.status == SnapshotStatus::Unreadable && !force) {
        return Err(PruneError::Unreadable(unknown.name.clone()));
    }
    let is_good = |listed: &&Listed| listed.status == SnapshotStatus::Good;
    let last_good = found.iter().rfind(is_good);
    let one_is_left = all.iter().filter(is_good).any(|listed| !found.contains(listed));
    match (last_good, one_is_left, force) {
        (Some(last), false, false) => Err(PruneError::LastGood(last.name.clone())),
        _ => Ok(()),
    }
}

fn is_held(listed: &Listed) -> bool {
    listed.manifest.as_ref().is_some_and(|manifest| manifest.held)
}

/// Whether `found` may be held or released.
pub fn may_be_held(found: &[Listed]) -> Result<(), PruneError> {
    match found.iter().find(|listed| listed.status == SnapshotStatus::Unreadable) {
        Some(unknown) => Err(PruneError::Unreadable(unknown.name.clone())),
        None => Ok(()),
    }
}

/// A minimal manifest for a snapshot without one; its owner follows from its name.
#[must_use]
pub fn unknown(listed: &Listed) -> Manifest {
    let created = UNIX_EPOCH + Duration::from_secs(listed.created);
    Manifest {
        version: manifest::VERSION,
        name: listed.name.clone(),
        size: listed.size,
        created: crate::clock::rfc3339(created),
        ..Manifest::default()
    }
}

/// The known origin of a snapshot.
#[must_use]
pub fn origin(listed: &Listed) -> Origin<'_> {
    let manifest = listed.manifest.as_ref();
    let text = |field: fn(&Manifest) -> &String| manifest.map_or("", |manifest| field(manifest).as_str());
    Origin {
        stem: crate::plan::snapshot_name::stem(&listed.name),
        taken_at: crate::plan::snapshot_name::taken_at(&listed.name),
        base: text(|manifest| &manifest.base),
        node: text(|manifest| &manifest.node),
        cluster_id: text(|manifest| &manifest.cluster_id),
        member_id: text(|manifest| &manifest.member_id),
    }
}

/// The snapshots among `all` that `owner` took with this base name.
fn own<'a>(all: &'a [Listed], base: &NamePrefix, owner: &Owner) -> Vec<&'a Listed> {
    let base = base.to_string();
    let is_own = |listed: &&Listed| {
        let origin = origin(listed);
        owner.of(&origin).is_own() && owner.base_of(&origin) == Some(base.as_str())
    };
    all.iter().filter(is_own).collect()
}

/// Snapshots of a base name taken under an earlier node name, or by another server with the same node name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherNodeSnapshots {
    /// Of the owner: the number for each earlier name.
    pub earlier: BTreeMap<String, usize>,
    /// Of other servers with the same node name.
    pub namesakes: usize,
}

/// Counts those of `all` whose name alone would be misleading.
#[must_use]
pub fn renamed(all: &[Listed], base: &NamePrefix, owner: &Owner) -> OtherNodeSnapshots {
    let base = base.to_string();
    let mut found = OtherNodeSnapshots::default();
    for listed in all {
        let origin = origin(listed);
        match owner.of(&origin) {
            _ if origin.base != base => {}
            Ownership::Earlier(node) => *found.earlier.entry(node).or_default() += 1,
            Ownership::Namesake => found.namesakes += 1,
            Ownership::Own | Ownership::Foreign => {}
        }
    }
    found
}

/// Applies the policy to the owner's snapshots of a base name among `all`, the newest first. Changes nothing.
#[must_use]
pub fn plan(
    all: &[Listed],
    base: &NamePrefix,
    owner: &Owner,
    policy: &Policy,
    now: u64,
) -> Vec<(Listed, RetentionDecision)> {
    let ours = own(all, base, owner);
    let candidates: Vec<RetentionCandidate> = ours.iter().map(|listed| candidate(listed)).collect();
    let verdicts = retention::plan(&candidates, policy, now);
    ours.into_iter().cloned().zip(verdicts).rev().collect()
}

fn candidate(listed: &Listed) -> RetentionCandidate {
    let local = DateTime::<Local>::from(UNIX_EPOCH + Duration::from_secs(listed.created));
    let week = local.iso_week();
    RetentionCandidate {
        name: listed.name.clone(),
        created: listed.created,
        local: LocalTime {
            year: local.year(),
            month: local.month(),
            day_of_year: local.ordinal(),
            week: (week.year(), week.week()),
            hour: local.hour(),
        },
        is_good: listed.status == SnapshotStatus::Good,
        suspect: suspicion(listed.status),
        is_held: is_held(listed),
    }
}

/// Why a snapshot does not count, if it does not.
fn suspicion(status: SnapshotStatus) -> Option<&'static str> {
    match status {
        SnapshotStatus::Good | SnapshotStatus::Unverified => None,
        SnapshotStatus::Corrupt => Some("it is corrupt and ignored; delete it, or replace it with a good copy"),
        SnapshotStatus::Changed => Some("changed since it was verified and is ignored; verify it"),
        SnapshotStatus::Partial => Some("partial (an unfinished copy) and ignored; delete it, or copy it again"),
        SnapshotStatus::Unreadable => Some("its manifest cannot be read, so it may be held; see .metadata next to it"),
    }
}

/// Those that [`plan`] drops.
#[must_use]
pub fn dropped(decided: &[(Listed, RetentionDecision)]) -> Vec<String> {
    let dropped = decided.iter().filter(|(_, verdict)| matches!(verdict, RetentionDecision::Drop(_)));
    dropped.map(|(listed, _)| listed.name.clone()).collect()
}
