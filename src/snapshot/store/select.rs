//! Resolves `latest`, base names, and names without extension among the snapshots of several stores.

use std::path::{Path, PathBuf};

use crate::boltdb::walk::CONTINUE;
use crate::clock;
use crate::error::AppError;
use crate::job::blocking;
use crate::plan::owner::Owner;
use crate::plan::select as plan;
use crate::plan::select::{Attempt, CandidateHealth, LATEST, SelectCandidate};
use crate::plan::snapshot_name::NamePrefix;
use crate::snapshot::list::{self, Listed, SnapshotStatus};
use crate::snapshot::prune;
use crate::snapshot::store::locate_error::{LIST, LIST_S3, LocateError};
use crate::snapshot::store::located::{Located, Notice};
use crate::snapshot::store::remote::RemoteSnapshot;
use crate::snapshot::store::s3::listing::InBucket;
use crate::snapshot::store::s3::{Bucket, verify as remote};
use crate::snapshot::verify::{self, VerifyOptions};
use crate::text::{age, escape_control};

pub(super) enum SearchedPlace {
    Here(PathBuf),
    There(Box<Bucket>),
}

pub(super) struct KnownSnapshots {
    pub(super) place: SearchedPlace,
    pub(super) all: Vec<Listed>,
    /// The same, as the store lists them.
    objects: Vec<InBucket>,
}

impl KnownSnapshots {
    pub(super) async fn in_directory(dir: &Path) -> Result<Self, AppError> {
        let path = dir.to_path_buf();
        let listed = blocking(move || list::list(&path)).await?;
        Ok(Self { place: SearchedPlace::Here(dir.to_path_buf()), all: listed?, objects: Vec::new() })
    }

    pub(super) fn in_bucket(bucket: Bucket, objects: Vec<InBucket>) -> Self {
        let all = objects.iter().map(|object| object.listed.clone()).collect();
        Self { place: SearchedPlace::There(Box::new(bucket)), all, objects }
    }

    fn shown(&self) -> String {
        escape_control(&match &self.place {
            SearchedPlace::Here(dir) => dir.display().to_string(),
            SearchedPlace::There(bucket) => bucket.target().to_string(),
        })
    }

    fn location(&self, index: usize) -> String {
        let name = &self.all[index].name;
        escape_control(&match &self.place {
            SearchedPlace::Here(dir) => dir.join(name).display().to_string(),
            SearchedPlace::There(bucket) => bucket.url(&bucket.key(name)),
        })
    }

    async fn found(&self, index: usize) -> Result<Located, AppError> {
        Ok(match &self.place {
            SearchedPlace::Here(dir) => Located::Local(dir.join(&self.all[index].name)),
            SearchedPlace::There(bucket) => {
                Located::Remote(Box::new(RemoteSnapshot::head((**bucket).clone(), &self.all[index].name).await?))
            }
        })
    }

    /// Verifies one in any store; returns the problem, if any.
    async fn verify(&self, index: usize) -> Result<Option<String>, AppError> {
        match &self.place {
            SearchedPlace::Here(dir) => {
                let path = dir.join(&self.all[index].name);
                let verified = blocking(move || verify::verify(&path, VerifyOptions::default(), &mut |_, _| CONTINUE));
                Ok(verified.await?.err().map(|error| error.to_string()))
            }
            SearchedPlace::There(bucket) => {
                let verified = remote::verify(bucket, &self.objects[index], |_| {}).await;
                Ok(verified.err().map(|error| error.to_string()))
            }
        }
    }
}

fn candidate(listed: &Listed, is_here: bool, owner: &Owner) -> SelectCandidate {
    let origin = prune::origin(listed);
    let base = owner.base_of(&origin).map(str::to_owned);
    let manifest = listed.manifest.as_ref();
    SelectCandidate {
        name: listed.name.clone(),
        is_safety_copy: base.as_deref() == Some(&*NamePrefix::pre_restore().to_string()),
        is_own: owner.of(&origin).is_own(),
        base,
        is_here,
        created: listed.created,
        revision: manifest.map(|manifest| manifest.revision).filter(|revision| *revision > 0),
        life: manifest.map(crate::snapshot::manifest::Manifest::life).filter(|life| !life.cluster_id.is_empty()),
        health: match listed.status {
            SnapshotStatus::Good => CandidateHealth::Good,
            SnapshotStatus::Unverified => CandidateHealth::Unknown("never verified"),
            SnapshotStatus::Changed => CandidateHealth::Unknown("changed since it was verified"),
            SnapshotStatus::Unreadable => CandidateHealth::Unknown("cannot read its manifest"),
            SnapshotStatus::Corrupt => CandidateHealth::Bad("corrupt"),
            SnapshotStatus::Partial => CandidateHealth::Bad("partial (an unfinished copy)"),
        },
    }
}

/// The newest good snapshot for `word`.
pub(super) async fn newest(
    owner: &Owner,
    notify: fn(Notice<'_>),
    known: &[KnownSnapshots],
    word: &str,
) -> Result<Located, AppError> {
    let mut origins = Vec::new();
    let mut candidates = Vec::new();
    for known in known {
        for (index, listed) in known.all.iter().enumerate() {
            candidates.push(candidate(listed, matches!(known.place, SearchedPlace::Here(_)), owner));
            origins.push((known, index));
        }
    }
    let now = clock::unix_seconds(clock::now());
    let mut why = Vec::new();
    for attempt in plan::attempts(&candidates, word, now) {
        let (index, problem) = match attempt {
            Attempt::Take(index) => (index, None),
            Attempt::Skip(index, why) => (index, Some(why.to_owned())),
            Attempt::Verify(index, why) => {
                let (known, at) = origins[index];
                notify(Notice::Considered(format!("{why}, verifying it: {}", known.location(at))));
                (index, known.verify(at).await?)
            }
        };
        let (known, at) = origins[index];
        if let Some(problem) = problem {
            let line = format!("{}: {}", known.location(at), escape_control(&problem));
            notify(Notice::Considered(format!("passed over: {line}")));
            why.push(line);
            continue;
        }
        let candidate = &candidates[index];
        let revision = candidate.revision.map_or_else(String::new, |revision| format!(", revision {revision}"));
        let taken = age::ago(candidate.created, now);
        let word = escape_control(word);
        notify(Notice::Chosen(format!("{word} is {}, taken {taken}{revision}", known.location(at))));
        return known.found(at).await;
    }
    let shown: Vec<String> = known.iter().map(KnownSnapshots::shown).collect();
    let list = if known.iter().any(|known| matches!(known.place, SearchedPlace::Here(_))) { LIST } else { LIST_S3 };
    if !why.is_empty() {
        return Err(LocateError::NoneGood { name: escape_control(word), places: shown, why, list }.into());
    }
    if let Some((known, at)) = without_ending(&origins, word) {
        notify(Notice::Chosen(format!("{} is {}", escape_control(word), known.location(at))));
        return known.found(at).await;
    }
    let hint = hint(&candidates, word, owner);
    Err(LocateError::NotFound { name: escape_control(word), places: shown, hint, list }.into())
}

/// One whose name is `word` with the extension of a compression.
fn without_ending<'k>(origins: &[(&'k KnownSnapshots, usize)], word: &str) -> Option<(&'k KnownSnapshots, usize)> {
    origins.iter().copied().find(|(known, index)| crate::plan::snapshot_name::stem(&known.all[*index].name) == word)
}

fn hint(candidates: &[SelectCandidate], word: &str, owner: &Owner) -> Option<String> {
    if Path::new(word).is_file() {
        return Some(format!("to use the file in this directory, write ./{};", escape_control(word)));
    }
    if word == LATEST && !candidates.is_empty() {
        let node = escape_control(&owner.node);
        return Some(format!("none of the {} there was taken by this server ({node}): specify one;", candidates.len()));
    }
    let bases =
        candidates.iter().filter(|candidate| candidate.is_own).filter_map(|candidate| candidate.base.as_deref());
    let names = candidates.iter().map(|candidate| candidate.name.as_str());
    let similar = similar_name(word, [LATEST].into_iter().chain(bases).chain(names));
    similar.map(|name| format!("did you mean {}?", escape_control(name)))
}

/// The name that `word` was probably meant to be: with an additional extension, or spelt similarly.
#[must_use]
pub fn similar_name<'a>(word: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    names.clone().find(|name| crate::plan::snapshot_name::stem(name) == word).or_else(|| plan::similar(word, names))
}
