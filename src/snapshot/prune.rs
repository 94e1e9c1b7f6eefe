//! Takes snapshots away: by name, or by a policy. Holds keep them.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, Datelike as _, Local, Timelike as _};

use super::list::{self, Listed, Status};
use super::manifest::{self, Manifest};
use super::name::{self, Base};
use crate::durable::{self, WriteError};
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
    /// It could not be removed, looked at or written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Explained for PruneError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotFound(_) => Exit::NotFound,
            Self::Held(_) | Self::Unreadable(_) | Self::LastGood(_) => Exit::Refused,
            Self::Write(error) => error.exit(),
        }
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "quorate etcd-snapshot ls shows what there is; a name has no directories in it".into(),
            Self::Held(name) => format!("if it may go: quorate etcd-snapshot release {}", crate::host::printable(name)),
            Self::Unreadable(_) => "look at it, in .metadata beside the snapshot; --force deletes both".into(),
            Self::LastGood(_) => "take another one first, or say --force".into(),
            Self::Write(error) => return error.next(),
        })
    }
}

/// Finds each name among the snapshots of `dir`, before anything is done to any.
///
/// # Errors
/// The first that is not there.
pub fn find(dir: &Path, names: &[String]) -> Result<(Vec<Listed>, Vec<Listed>), PruneError> {
    let all = list::list(dir)?;
    let mut found: Vec<Listed> = Vec::new();
    for name in names {
        let listed = all.iter().find(|listed| listed.name == *name);
        let listed = listed.ok_or_else(|| PruneError::NotFound(crate::host::printable(name)))?;
        if !found.contains(listed) {
            found.push(listed.clone());
        }
    }
    Ok((found, all))
}

/// Deletes the named snapshots of `dir`, and gives the names. With `force` also the last good one.
///
/// # Errors
/// If one is not there, is held, or is the last good one; nothing is deleted then.
pub fn delete(dir: &Path, names: &[String], force: bool) -> Result<Vec<String>, PruneError> {
    let (found, all) = find(dir, names)?;
    if let Some(held) = found.iter().find(|listed| is_held(listed)) {
        return Err(PruneError::Held(held.name.clone()));
    }
    if let Some(unknown) = found.iter().find(|listed| listed.status == Status::Unreadable && !force) {
        return Err(PruneError::Unreadable(unknown.name.clone()));
    }
    let is_good = |listed: &&Listed| listed.status == Status::Good;
    let last_good = found.iter().rfind(is_good);
    let one_is_left = all.iter().filter(is_good).any(|listed| !found.contains(listed));
    if let (Some(last), false, false) = (last_good, one_is_left, force) {
        return Err(PruneError::LastGood(last.name.clone()));
    }
    found.into_iter().map(|listed| remove(dir, &listed.name).map(|()| listed.name)).collect()
}

fn remove(dir: &Path, name: &str) -> Result<(), PruneError> {
    durable::remove_file(&dir.join(name))?;
    manifest::remove(dir, name)?;
    Ok(())
}

fn is_held(listed: &Listed) -> bool {
    listed.manifest.as_ref().is_some_and(|manifest| manifest.held)
}

/// Holds or releases the named snapshots of `dir`.
///
/// # Errors
/// If one is not there (nothing is changed then), or a manifest cannot be written.
pub fn hold(dir: &Path, names: &[String], held: bool) -> Result<Vec<String>, PruneError> {
    let (found, _) = find(dir, names)?;
    if let Some(unknown) = found.iter().find(|listed| listed.status == Status::Unreadable) {
        return Err(PruneError::Unreadable(unknown.name.clone()));
    }
    found
        .into_iter()
        .map(|listed| {
            let manifest = Manifest { held, ..listed.manifest.clone().unwrap_or_else(|| unknown(&listed)) };
            manifest.write(dir).map(|()| listed.name).map_err(PruneError::from)
        })
        .collect()
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

/// Decides about this node's snapshots of a base name in `dir`, the newest first. Changes nothing.
///
/// # Errors
/// If the directory cannot be read.
pub fn plan(
    dir: &Path,
    base: &Base,
    node: &str,
    policy: &Policy,
    now: u64,
) -> Result<Vec<(Listed, Verdict)>, PruneError> {
    let all = list::list(dir)?;
    let ours = ours(&all, base, node);
    let candidates: Vec<Candidate> = ours.iter().map(|listed| candidate(listed)).collect();
    let verdicts = retention::plan(&candidates, policy, now);
    Ok(ours.into_iter().cloned().zip(verdicts).rev().collect())
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

/// Does what [`plan`] decided, and gives the names that are gone.
///
/// # Errors
/// The first that cannot be removed.
pub fn carry_out(dir: &Path, decided: &[(Listed, Verdict)]) -> Result<Vec<String>, PruneError> {
    let mut gone = Vec::new();
    for (listed, verdict) in decided {
        if matches!(verdict, Verdict::Drop(_)) {
            remove(dir, &listed.name)?;
            gone.push(listed.name.clone());
        }
    }
    Ok(gone)
}
