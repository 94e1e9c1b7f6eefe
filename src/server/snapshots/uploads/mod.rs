//! Snapshots on their way to object storage: one at a time, tried again until they are there or gone, across restarts.
//!
//! What is to be uploaded is written down (`server/uploads.json`, for root alone: options that were given for one upload may have secrets
//! among them) before it is begun, and crossed out when the store has shown that it has it.

mod queue;

pub use queue::{Begun, Last, Outcome, Pending, Uploads};

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::state::Shared;
use super::{SCHEDULED, on_failure};
use crate::clock;
use crate::config::s3::{S3Config, Target};
use crate::durable::{self, OnPath as _, WriteError};
use crate::error::{Explained, Failure, Told};
use crate::faults;
use crate::host;
use crate::plan::uploads::{self, Turn};
use crate::snapshot::file::Packing;
use crate::snapshot::list::{self, Status};
use crate::snapshot::manifest::{self, Manifest};
use crate::snapshot::name::Base;
use crate::snapshot::prune;
use crate::snapshot::store::s3::error::{Kind, S3Error};
use crate::snapshot::store::s3::store::Remote;
use crate::snapshot::store::s3::upload::{self, Sending, State};
use crate::snapshot::store::s3::{Bucket, listing};
use crate::snapshot::store::{Removed, Store as _};

/// Before something that is not due is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Between attempts to take back what was left.
const TIDY: Duration = Duration::from_secs(900);

/// Why a snapshot is not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// An attempt failed.
    #[error("the snapshot {name} is whole and safe on this node, but could not be uploaded to {place}")]
    Failed {
        /// Which.
        name: String,
        /// Where to.
        place: String,
        /// Why.
        source: Box<Told>,
    },
    /// It is not what was saved.
    #[error("the snapshot {name} is not uploaded: it is {status} now")]
    NotGood {
        /// Which.
        name: String,
        /// What `ls` says.
        status: &'static str,
    },
    /// It was looked at, and is not what was saved.
    #[error("the snapshot {name} is damaged on this node, and is not uploaded")]
    Damaged {
        /// Which.
        name: String,
        /// What was found.
        source: Box<Told>,
    },
    /// Its name is not free there.
    #[error("the snapshot {name} is whole and safe on this node, and is not uploaded")]
    Taken {
        /// Which.
        name: String,
        /// What is there.
        source: Box<Told>,
    },
    /// Somebody removed it.
    #[error("the snapshot {0} is gone, and was not uploaded")]
    Gone(String),
    /// It cannot be looked at now.
    #[error("the snapshot {0} cannot be looked at now, and was not uploaded")]
    Away(String),
    /// Uploads were switched off meanwhile.
    #[error("the snapshot {0} is whole and safe on this node, and was not uploaded: etcd-s3 is switched off now")]
    SwitchedOff(String),
    /// Nothing waits for it any more.
    #[error("the server ended before the snapshot was uploaded; it goes on at its next start")]
    Stopping,
}

impl UploadError {
    /// No other attempt could do better.
    fn is_final(&self) -> bool {
        matches!(self, Self::NotGood { .. } | Self::Damaged { .. } | Self::Taken { .. } | Self::Gone(_))
    }
}

impl Explained for UploadError {
    fn next(&self) -> Option<String> {
        Some(match self {
            Self::Failed { source, .. } => {
                let fix = source.next.as_deref().unwrap_or("quorate etcd-snapshot s3-check");
                format!("{fix}; it is tried again by itself, and quorate status shows what is pending")
            }
            Self::NotGood { .. } | Self::Damaged { .. } => "quorate etcd-snapshot verify, and take another one".into(),
            Self::Taken { .. } => "quorate etcd-snapshot save takes another one, under another name".into(),
            Self::Gone(_) => "quorate etcd-snapshot ls".into(),
            Self::Away(_) => "see whether its disk is mounted and well; it is tried again by itself".into(),
            Self::SwitchedOff(_) => "switch etcd-s3 on again, and it is uploaded".into(),
            Self::Stopping => "quorate status, once it runs".into(),
        })
    }
}

/// Uploads what is pending, until the server ends.
pub async fn keep(shared: Arc<Shared>) {
    let mut settings = shared.snapshots.settings.clone();
    let mut connected: Option<(Target, Bucket)> = None;
    let tidy_every = faults::tunable("QUORATE_TEST_UPLOAD_MS", TIDY);
    let mut tidied: Option<Instant> = None;
    loop {
        let config = settings.borrow_and_update().s3.clone();
        let now = clock::monotonic();
        let uploads = &shared.snapshots.uploads;
        let wanted = |pending: &Pending| config.is_on || !pending.options.is_empty();
        let all = uploads.pending();
        for unwanted in all.iter().filter(|pending| !wanted(pending) && uploads.is_waited_for(pending)) {
            uploads.tell(unwanted, &Err(Failure::from(UploadError::SwitchedOff(unwanted.name.clone())).told()));
        }
        let wanted: Vec<&Pending> = all.iter().filter(|pending| wanted(pending)).collect();
        let turn = |pending: &&Pending| Turn { is_waited_for: uploads.is_waited_for(pending), due: pending.due };
        if let Some(next) = uploads::next(&wanted.iter().map(turn).collect::<Vec<_>>(), now) {
            one(&shared, &config, wanted[next].clone(), &mut connected).await;
            // What it could not take back is taken back soon.
            tidied = tidied.filter(|_| !uploads.has_left());
            continue;
        }
        if tidied.is_none_or(|at| at.elapsed() >= tidy_every) {
            tidied = Some(clock::monotonic());
            if uploads.has_left() {
                tidy(&shared, &config, &mut connected).await;
            }
            remove_unwanted(&shared).await;
        }
        let next = wanted.iter().filter_map(|pending| pending.due).min();
        let wait = next.map_or(LOOK_AGAIN, |due| due.saturating_duration_since(now).min(LOOK_AGAIN)).min(tidy_every);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = uploads.wake.notified() => {}
            changed = settings.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Takes back what is left of uploads in parts, also if there is nothing to upload.
async fn tidy(shared: &Shared, config: &S3Config, connected: &mut Option<(Target, Bucket)>) {
    if connected.is_none()
        && let Ok(target) = config.target()
        && let Ok(bucket) = Bucket::connect(target.clone(), None).await
    {
        *connected = Some((target, bucket));
    }
    if let Some((_, bucket)) = connected {
        take_back(shared, bucket).await;
    }
}

/// One attempt, and what follows from it.
async fn one(shared: &Arc<Shared>, config: &S3Config, pending: Pending, connected: &mut Option<(Target, Bucket)>) {
    let uploads = &shared.snapshots.uploads;
    let begun = clock::monotonic();
    uploads.begin(Some(&pending));
    let done = attempt(shared, config, &pending, connected).await;
    let took = begun.elapsed();
    let label = if done.is_ok() { "success" } else { "error" };
    uploads.seconds.get_or_create(&[("status", label)]).observe(took.as_secs_f64());
    uploads.begin(None);
    match done {
        Ok((url, manifest)) => {
            tracing::info!(
                name = pending.name,
                url,
                size = manifest.size,
                took_ms = took.as_millis(),
                "snapshot uploaded and verified"
            );
            let scheduled = manifest.reason == SCHEDULED;
            let base: Option<Base> = manifest.base.parse().ok();
            let last = Last { url: url.clone(), at: clock::rfc3339(clock::now()), manifest };
            let is_only_there = config.with(&pending.options).is_ok_and(|config| config.only);
            crossed_out(shared, |file| {
                settle(file, &pending);
                file.uploaded(last);
                if is_only_there {
                    file.unwanted.push((pending.dir.clone(), pending.name.clone()));
                }
            });
            remove_unwanted(shared).await;
            uploads.tell(&pending, &Ok(url));
            if let (true, Some(base), Some((_, bucket))) = (scheduled && pending.options.is_empty(), base, &*connected)
            {
                retain(shared, config, bucket, &base).await;
            }
        }
        Err(error) => {
            let is_over = error.is_final();
            let told = Failure::from(error).told();
            let failures = pending.failures + 1;
            let first = faults::tunable("QUORATE_TEST_UPLOAD_MS", uploads::first_pause());
            let pause = uploads::pause(failures, first, host::dice());
            tracing::error!(
                error = %told.message,
                because = (!told.because.is_empty()).then(|| told.because.join(": ")),
                next = told.next,
                again_in_s = (!is_over).then_some(pause.as_secs()),
                "a snapshot was not uploaded"
            );
            let due = clock::monotonic() + pause;
            crossed_out(shared, |file| {
                if is_over {
                    settle(file, &pending);
                } else if let Some(entry) = file.pending.iter_mut().find(|other| other.is(&pending)) {
                    entry.failures = failures;
                    entry.last_failure = Some(told.to_string());
                    entry.due = Some(due);
                }
            });
            uploads.tell(&pending, &Err(told.clone()));
            let command = shared.snapshots.settings.borrow().on_failure.clone();
            // Once, as it is tried again for as long as it takes; and when that is over.
            if let Some(command) = command.filter(|_| failures == 1 || is_over) {
                tokio::spawn(on_failure::run(command, told, shared.config.node_name.clone()));
            }
        }
    }
}

fn crossed_out(shared: &Shared, change: impl FnOnce(&mut queue::File)) {
    if let Err(error) = shared.snapshots.uploads.change(&shared.data, change) {
        tracing::error!(error = %error, because = %error.source, "what is to be uploaded cannot be written down");
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    config: &S3Config,
    pending: &Pending,
    connected: &mut Option<(Target, Bucket)>,
) -> Result<(String, Manifest), UploadError> {
    still_good(pending)?;
    let failed = |place: &str, failure: Failure| UploadError::Failed {
        name: pending.name.clone(),
        place: place.to_owned(),
        source: Box::new(failure.told()),
    };
    let target = config.with(&pending.options).and_then(|config| config.target());
    let target = target.map_err(|error| failed("object storage", error.into()))?;
    let place = target.to_string();
    let failed = |error: S3Error| failed(&place, error.into());
    let mut is_new = false;
    loop {
        let bucket = match connected {
            Some((known, bucket)) if *known == target && !is_new => bucket.clone(),
            _ => {
                let bucket = Bucket::connect(target.clone(), None).await.map_err(failed)?;
                *connected = Some((target.clone(), bucket.clone()));
                bucket
            }
        };
        take_back(shared, &bucket).await;
        let manifest = still_good(pending)?;
        match send(shared, &bucket, pending, &manifest).await {
            Ok(()) => return Ok((bucket.url(&bucket.key(&pending.name)), manifest)),
            Err(error) if error.kind == Kind::Taken => {
                return Err(UploadError::Taken {
                    name: pending.name.clone(),
                    source: Box::new(Failure::from(error).told()),
                });
            }
            Err(error) if error.kind == Kind::Damaged => {
                return Err(UploadError::Damaged {
                    name: pending.name.clone(),
                    source: Box::new(Failure::from(error).told()),
                });
            }
            // Once, with credentials that were asked for anew.
            Err(error) if error.may_be_refreshed() && !is_new => is_new = true,
            Err(error) => {
                if error.is_about_credentials() {
                    // Where they come from is looked at anew the next time.
                    *connected = None;
                }
                return Err(failed(error));
            }
        }
    }
}

/// What is to be uploaded must be what was saved.
fn still_good(pending: &Pending) -> Result<Manifest, UploadError> {
    let listed = tokio::task::block_in_place(|| list::one(&pending.dir, pending.name.as_ref()));
    let Some(listed) = listed else {
        // A directory without manifests may be one whose disk is not mounted.
        let is_there = pending.dir.join(manifest::DIR).is_dir();
        let name = pending.name.clone();
        return Err(if is_there && is_missing(&pending.dir.join(&name)) {
            UploadError::Gone(name)
        } else {
            UploadError::Away(name)
        });
    };
    match (listed.status, listed.manifest) {
        (Status::Good, Some(manifest)) => Ok(manifest),
        (Status::Unreadable, _) => Err(UploadError::Away(pending.name.clone())),
        (status, _) => Err(UploadError::NotGood { name: pending.name.clone(), status: status.word() }),
    }
}

fn is_missing(path: &std::path::Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Takes back what earlier attempts have begun in this bucket and not ended, for this snapshot or another. What cannot be taken back now is
/// remembered, and is no reason not to try again.
async fn take_back(shared: &Shared, bucket: &Bucket) {
    for begun in shared.snapshots.uploads.left_in(&bucket.target().bucket) {
        match upload::abort(bucket, &begun.key, &begun.id).await {
            Ok(()) => forget(shared, &begun.id),
            Err(error) => {
                tracing::warn!(
                    error = %error,
                    because = error.why(),
                    "an upload in parts that broke off cannot be taken back now"
                );
                // The others neither, most likely.
                return;
            }
        }
    }
}

/// Nothing of an upload in parts is left.
fn forget(shared: &Shared, id: &str) {
    crossed_out(shared, |file| {
        file.pending.iter_mut().for_each(|pending| pending.begun.retain(|begun| begun.id != id));
        file.left.retain(|begun| begun.id != id);
    });
}

/// A snapshot is not pending any more; what could not be taken back of it still is.
fn settle(file: &mut queue::File, over: &Pending) {
    for entry in file.pending.extract_if(.., |entry| entry.is(over)) {
        file.left.extend(entry.begun);
    }
}

async fn send(shared: &Shared, bucket: &Bucket, pending: &Pending, manifest: &Manifest) -> Result<(), S3Error> {
    let uploads = &shared.snapshots.uploads;
    let sending = Sending {
        path: pending.dir.join(&pending.name),
        size: manifest.size,
        sha256: manifest.sha256.clone(),
        key: bucket.key(&pending.name),
        content_type: match Packing::named(&manifest.compression) {
            Some(Packing::Zip) => "application/zip",
            Some(Packing::Zstd) => "application/zstd",
            _ => "application/octet-stream",
        },
        metadata: HashMap::from([
            ("quorate-node-name".into(), manifest.node.clone()),
            ("quorate-cluster-id".into(), manifest.cluster_id.clone()),
            ("quorate-created".into(), manifest.created.clone()),
            ("quorate-revision".into(), manifest.revision.to_string()),
            (upload::SHA256.into(), manifest.sha256.clone()),
            ("quorate-etcd-version".into(), manifest.etcd_version.clone()),
        ]),
    };
    uploads.progress.0.store(0, Ordering::Relaxed);
    uploads.progress.1.store(manifest.size, Ordering::Relaxed);
    let tell = |id: &str, state: State| {
        if state == State::Over {
            return forget(shared, id);
        }
        let begun = Begun { bucket: bucket.target().bucket.clone(), key: sending.key.clone(), id: id.to_owned() };
        crossed_out(shared, |file| {
            if let Some(entry) = file.pending.iter_mut().find(|other| other.is(pending)) {
                entry.begun.push(begun);
            }
        });
    };
    if let Some(other) = upload::another(bucket, &sending).await {
        return Err(other);
    }
    let sent = upload::upload(bucket, &sending, tell, &uploads.progress.0).await;
    if matches!(&sent, Err(error) if error.kind == Kind::Differs) {
        // What is not what was sent must not look like a snapshot.
        let _ = bucket.delete(std::slice::from_ref(&sending.key)).await;
    }
    listing::describe(bucket, manifest, &sent?).await
}

/// Removes from this node what was uploaded with `etcd-s3-only`: what was just uploaded, and what an earlier server did not come to.
async fn remove_unwanted(shared: &Shared) {
    for unwanted in shared.snapshots.uploads.unwanted() {
        let (dir, name) = unwanted.clone();
        let removed = tokio::task::spawn_blocking(move || {
            faults::point("snapshot::remove-uploaded").on("remove", &dir.join(&name))?;
            // A directory without manifests may be one whose disk is not mounted; what cannot be read may be held.
            let is_there = dir.join(manifest::DIR).is_dir();
            let listed = list::one(&dir, name.as_ref());
            if !is_there || listed.as_ref().is_some_and(|listed| listed.status == Status::Unreadable) {
                return Ok::<_, WriteError>(false);
            }
            if listed.and_then(|listed| listed.manifest).is_some_and(|manifest| manifest.held) {
                return Ok(true);
            }
            durable::remove_file(&dir.join(&name))?;
            manifest::remove(&dir, &name)?;
            Ok(true)
        });
        match removed.await {
            Ok(Ok(true)) => crossed_out(shared, |file| file.unwanted.retain(|other| *other != unwanted)),
            Ok(Ok(false)) => tracing::warn!(
                name = unwanted.1,
                "etcd-s3-only: the uploaded snapshot, or its manifest, cannot be read on this node; it stays for now"
            ),
            Ok(Err(error)) => {
                tracing::error!(error = %error, because = %error.source, "etcd-s3-only: the uploaded snapshot stays on this node for now");
            }
            Err(_) => {}
        }
    }
}

/// Takes older scheduled ones of this node away from the bucket.
async fn retain(shared: &Shared, config: &S3Config, bucket: &Bucket, base: &Base) {
    let remote = Remote::new(bucket.clone(), &shared.data);
    let policy = shared.snapshots.settings.borrow().s3_policy(config);
    let now = clock::unix_seconds(clock::now());
    let done = async {
        let all = remote.list().await?;
        let unread = all.iter().filter(|listed| listed.status == Status::Unreadable).count();
        if unread > 0 {
            tracing::warn!(unread, place = remote.place(), "snapshots whose manifests cannot be read there are kept");
        }
        let dropped = prune::dropped(&prune::plan(&all, base, &shared.config.node_name, &policy, now));
        if dropped.is_empty() {
            return Ok(Removed::default());
        }
        remote.remove(&dropped).await
    };
    match done.await {
        Ok(removed) => {
            for name in removed.gone {
                tracing::info!(
                    name,
                    place = remote.place(),
                    "an older snapshot was deleted, as no rule of retention keeps it"
                );
            }
            if let Some(failure) = removed.failed {
                tracing::error!(error = %failure.told(), place = remote.place(), "some older snapshots could not be deleted");
            }
            for (name, why) in removed.kept {
                tracing::info!(name, place = remote.place(), why, "an older snapshot is kept by a lock");
            }
        }
        Err(failure) => {
            tracing::error!(error = %failure.told(), place = remote.place(), "older snapshots could not be deleted");
        }
    }
}
