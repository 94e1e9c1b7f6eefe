//! Which snapshots of a place may be taken away: by name, or by a policy. Holds keep them.

use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, Datelike as _, Local, Timelike as _};

use super::list::{Listed, Status};
use super::manifest::{self, Manifest};
use super::name::{self, Base};
use crate::durable::WriteError;
use crate::error::{Exit, Explained};
use crate::plan::retention::{self, Candidate, LocalTime, Policy, Verdict};

/// Why nothing was taken away, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Not one of ours.
    #[error("there is no snapshot {0}")]
    NotFound(String),
    /// Somebody holds it.
    #[error("{0} is held; nothing was deleted")]
    Held(String),
    /// Nobody can tell whether somebody holds it.
    #[error("the manifest of {0} cannot be read, so it may be held; nothing was deleted")]
    Unreadable(String),
    /// There would be no good one left.
    #[error("{0} is the last good snapshot here; nothing was deleted")]
    LastGood(String),
    /// A thread was lost.
    #[error("a thread was lost")]
    Lost,
    /// It could not be removed, looked at or written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Explained for PruneError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotFound(_) => Exit::NotFound,
            Self::Held(_) | Self::Unreadable(_) | Self::LastGood(_) => Exit::Refused,
            Self::Lost => Exit::Failed,
            Self::Write(error) => error.exit(),
        }
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "quorate etcd-snapshot ls shows what there is; a name has no directories in it".into(),
            Self::Held(name) => format!("if it may go: quorate etcd-snapshot release {}", crate::host::printable(name)),
            Self::Unreadable(_) => "look at it, in .metadata beside the snapshot; --force deletes both".into(),
            Self::LastGood(_) => "take another one first, or say --force".into(),
            Self::Lost => "try again".into(),
            Self::Write(error) => return error.next(),
        })
    }
}

/// Finds each name among the snapshots of a place, before anything is done to any.
///
/// # Errors
/// The first that is not there.
pub fn find(all: &[Listed], names: &[String]) -> Result<Vec<Listed>, PruneError> {
    let mut found: Vec<Listed> = Vec::new();
    for name in names {
        let listed = all.iter().find(|listed| listed.name == *name);
        let listed = listed.ok_or_else(|| PruneError::NotFound(crate::host::printable(name)))?;
        if !found.contains(listed) {
            found.push(listed.clone());
        }
    }
    Ok(found)
}

/// Whether `found`, which are some of `all`, may be deleted. With `force` also the last good one.
///
/// # Errors
/// If one is held, or is the last good one.
pub fn may_go(all: &[Listed], found: &[Listed], force: bool) -> Result<(), PruneError> {
    if let Some(held) = found.iter().find(|listed| is_held(listed)) {
        return Err(PruneError::Held(held.name.clone()));
    }
    if let Some(unknown) = found.iter().find(|listed| listed.status == Status::Unreadable && !force) {
        return Err(PruneError::Unreadable(unknown.name.clone()));
    }
    let is_good = |listed: &&Listed| listed.status == Status::Good;
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
///
/// # Errors
/// If what is known of one cannot be read.
pub fn may_be_held(found: &[Listed]) -> Result<(), PruneError> {
    match found.iter().find(|listed| listed.status == Status::Unreadable) {
        Some(unknown) => Err(PruneError::Unreadable(unknown.name.clone())),
        None => Ok(()),
    }
}

/// What can be written down of a snapshot that came without a manifest: whose it is, its name tells.
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

/// The snapshots of `dir` that this node has taken under this base name.
fn ours<'a>(all: &'a [Listed], base: &Base, node: &str) -> Vec<&'a Listed> {
    let is_ours = |listed: &&Listed| {
        if let Some(manifest) = listed.manifest.as_ref().filter(|manifest| !manifest.base.is_empty()) {
            return manifest.base == base.to_string() && manifest.node == node;
        }
        let stem = name::stem(&listed.name);
        name::taken_at(&listed.name).is_some_and(|at| stem == format!("{base}-{node}-{at}"))
    };
    all.iter().filter(is_ours).collect()
}

/// Decides about this node's snapshots of a base name among `all`, the newest first. Changes nothing.
#[must_use]
pub fn plan(all: &[Listed], base: &Base, node: &str, policy: &Policy, now: u64) -> Vec<(Listed, Verdict)> {
    let ours = ours(all, base, node);
    let candidates: Vec<Candidate> = ours.iter().map(|listed| candidate(listed)).collect();
    let verdicts = retention::plan(&candidates, policy, now);
    ours.into_iter().cloned().zip(verdicts).rev().collect()
}

fn candidate(listed: &Listed) -> Candidate {
    let local = DateTime::<Local>::from(UNIX_EPOCH + Duration::from_secs(listed.created));
    let week = local.iso_week();
    Candidate {
        name: listed.name.clone(),
        created: listed.created,
        local: LocalTime {
            year: local.year(),
            month: local.month(),
            day_of_year: local.ordinal(),
            week: (week.year(), week.week()),
            hour: local.hour(),
        },
        is_good: listed.status == Status::Good,
        is_suspect: matches!(listed.status, Status::Corrupt | Status::Changed | Status::Partial | Status::Unreadable),
        is_held: is_held(listed),
    }
}

/// Those that [`plan`] wants gone.
#[must_use]
pub fn dropped(decided: &[(Listed, Verdict)]) -> Vec<String> {
    let dropped = decided.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Drop(_)));
    dropped.map(|(listed, _)| listed.name.clone()).collect()
}
