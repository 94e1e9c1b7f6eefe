//! One attempt to upload a snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::compression::Compression;
use crate::config::s3::{S3Config, Target};
use crate::error::{AppError, ErrorReport};
use crate::log_failure;
use crate::server::snapshots::service::{self, SnapshotService};
use crate::server::snapshots::uploads::error::UploadError;
use crate::server::snapshots::uploads::queue::{MultipartUpload, PendingUploadEntry};
use crate::snapshot::list::{self, SnapshotStatus};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::upload::{self, MultipartState, UploadRequest};
use crate::snapshot::store::s3::{Bucket, listing, object};

/// One attempt to upload a snapshot: its present path and its manifest.
pub(crate) async fn attempt(
    service: &Arc<SnapshotService>,
    config: &S3Config,
    pending: &PendingUploadEntry,
    connected: &mut Option<(Target, Bucket)>,
) -> Result<(String, Manifest), UploadError> {
    let manifest = check_still_good(pending)?;
    let failed = |place: &str, failure: AppError| UploadError::Failed {
        name: pending.name.clone(),
        place: place.to_owned(),
        cancel: cancel(service, pending),
        source: Box::new(failure.to_report()),
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
        abort_stale_uploads(service, &bucket).await;
        match send(service, &bucket, pending, &manifest).await {
            Ok(()) => return Ok((bucket.url(&bucket.key(&pending.name)), manifest)),
            Err(error) if error.kind == S3ErrorKind::NameConflict => {
                return Err(UploadError::NameConflict {
                    name: pending.name.clone(),
                    source: Box::new(AppError::from(error).to_report()),
                });
            }
            Err(error) if error.kind == S3ErrorKind::SourceChanged => {
                return Err(UploadError::Corrupt {
                    name: pending.name.clone(),
                    source: Box::new(AppError::from(error).to_report()),
                });
            }
            // Retry once with new credentials.
            Err(error) if error.credentials_expired() && !is_new => is_new = true,
            Err(error) => {
                if error.is_about_credentials() {
                    // The credential chain is evaluated again next time.
                    *connected = None;
                }
                return Err(failed(error));
            }
        }
    }
}

/// The command that cancels an upload: a deleted snapshot is not uploaded.
fn cancel(service: &SnapshotService, pending: &PendingUploadEntry) -> String {
    let command = format!("quorate etcd-snapshot delete --local {}", pending.name);
    if pending.dir == service::dir(service) {
        return command;
    }
    format!("{command} --dir {}", pending.dir.display())
}

/// The file must be the saved snapshot.
fn check_still_good(pending: &PendingUploadEntry) -> Result<Manifest, UploadError> {
    let listed = tokio::task::block_in_place(|| list::one(&pending.dir, pending.name.as_ref()));
    let Some(listed) = listed else {
        let name = pending.name.clone();
        return Err(if pending.is_gone() { UploadError::NotFound(name) } else { UploadError::Unavailable(name) });
    };
    match (listed.status, listed.manifest) {
        (SnapshotStatus::Good, Some(manifest)) => Ok(manifest),
        (SnapshotStatus::Unreadable, _) => Err(UploadError::Unavailable(pending.name.clone())),
        (status, _) => Err(UploadError::NotGood { name: pending.name.clone(), status: status.word() }),
    }
}

/// Aborts unfinished multipart uploads in this bucket, of any snapshot. Failures are recorded, and do not prevent the
/// next attempt.
pub(crate) async fn abort_stale_uploads(service: &SnapshotService, bucket: &Bucket) {
    for begun in service.uploads.stale_uploads_in(&bucket.target().bucket) {
        match upload::abort(bucket, &begun.key, &begun.id).await {
            Ok(()) => forget(service, &begun.id),
            Err(error) => {
                log_failure!(warn, ErrorReport::of(&error), "cannot abort an interrupted multipart upload now");
                // The others would probably fail, too.
                return;
            }
        }
    }
}

fn forget(service: &SnapshotService, id: &str) {
    service.uploads.record(&service.context.data, |file| {
        file.pending.iter_mut().for_each(|pending| pending.begun.retain(|begun| begun.id != id));
        file.left.retain(|begun| begun.id != id);
    });
}

async fn send(
    service: &SnapshotService,
    bucket: &Bucket,
    pending: &PendingUploadEntry,
    manifest: &Manifest,
) -> Result<(), S3Error> {
    let uploads = &service.uploads;
    let sending = UploadRequest {
        path: pending.dir.join(&pending.name),
        size: manifest.size,
        sha256: manifest.sha256.clone(),
        key: bucket.key(&pending.name),
        content_type: match Compression::named(&manifest.compression) {
            Some(Compression::Zip) => "application/zip",
            Some(Compression::Zstd) => "application/zstd",
            _ => "application/octet-stream",
        },
        metadata: HashMap::from([
            ("quorate-node-name".into(), manifest.node.clone()),
            ("quorate-cluster-id".into(), manifest.cluster_id.clone()),
            ("quorate-created".into(), manifest.created.clone()),
            ("quorate-revision".into(), manifest.revision.to_string()),
            (object::SHA256.into(), manifest.sha256.clone()),
            ("quorate-etcd-version".into(), manifest.etcd_version.clone()),
        ]),
    };
    uploads.progress.0.store(0, Ordering::Relaxed);
    uploads.progress.1.store(manifest.size, Ordering::Relaxed);
    let notify = |id: &str, state: MultipartState| {
        if state == MultipartState::Over {
            return forget(service, id);
        }
        let begun =
            MultipartUpload { bucket: bucket.target().bucket.clone(), key: sending.key.clone(), id: id.to_owned() };
        service.uploads.record(&service.context.data, |file| {
            if let Some(entry) = file.pending.iter_mut().find(|other| other.is(pending)) {
                entry.begun.push(begun);
            }
        });
    };
    if let Some(other) = upload::conflicting_object(bucket, &sending, &manifest.name).await {
        return Err(other);
    }
    let sent = upload::upload(bucket, &sending, notify, &uploads.progress.0).await;
    if matches!(&sent, Err(error) if error.kind == S3ErrorKind::ChecksumMismatch) {
        // An object that does not match must not look like a snapshot.
        let _ = bucket.delete(std::slice::from_ref(&sending.key)).await;
    }
    listing::write_manifest(bucket, manifest, &sent?).await
}
