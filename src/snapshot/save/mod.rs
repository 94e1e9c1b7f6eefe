//! Takes a snapshot: a complete, durable and verified file, or nothing.
//!
//! The database goes into a hidden file: received from etcd (`receive`), or copied from etcd's file (`copy`). The file
//! is fsynced, verified as by `verify`, compressed if requested (`pack`), renamed, and described by a manifest. Any
//! failure before the rename removes the hidden file.

pub mod copy;
mod directory;
mod error;
mod pack;
mod publish;
mod receive;
mod request;
pub mod sink;
pub mod space;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::boltdb::database::Length;
use crate::clock;
use crate::compression::Compression;
use crate::datadir::DataDir;
use crate::durable::{self, NewFile, PRIVATE_FILE, WriteError};
use crate::error::AppError;
use crate::etcd::client::{self, EtcdClient};
use crate::job::spawn_low_priority;
use crate::snapshot::file::SHA256;
use crate::snapshot::inspect::{self, Inspection};
use crate::snapshot::live::{self, PinnedDatabase};
use crate::snapshot::manifest::{self, Manifest};
use crate::snapshot::verify::{Verified, VerifyError};

pub use directory::{prepare_dir, prepare_own_dir};
pub use error::SaveError;
pub use request::{LiveSource, SaveRequest};

use copy::CopyError;
use publish::{publish, write_manifest};
use request::step;
use sink::Sink;
use space::check_space;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Saves a snapshot. `progress` receives the number of bytes done, and the total.
///
/// # Errors
/// Any failure to produce a complete, durable and good snapshot; no files are left then.
pub async fn save(
    request: &SaveRequest,
    client: &mut EtcdClient,
    facts: &client::MemberSource,
    mut progress: impl FnMut(u64, u64),
) -> Result<Manifest, AppError> {
    let place = request.dir.clone();
    at_low_priority(move || {
        prepare_dir(&place)?;
        // The leftovers of a killed save, in any directory.
        for dir in [place.join(manifest::DIR), place] {
            for name in durable::sweep(&dir) {
                tracing::info!(file = %name.to_string_lossy(), dir = %dir.display(), "removed leftovers of an interrupted save");
            }
        }
        Ok(())
    })
    .await?;
    let expected = facts.db_size;
    check_space(&request.dir, expected)?;
    let begun = clock::now();
    let copied = match &request.live {
        Some(source) if expected > live::SMALL => copied(request, client, source, expected, &mut progress).await?,
        _ => None,
    };
    let made = match copied {
        Some(made) => made,
        None => streamed(request, client, expected, &mut progress).await?,
    };
    let (request, facts) = (request.clone(), facts.clone());
    Ok(at_low_priority(move || complete(&request, &facts, made, begun)).await?)
}

/// The database and its hash are written, but not yet synced and verified.
struct UnfinishedSnapshot {
    /// The uncompressed file, if there is one.
    raw: Option<NewFile>,
    sink: Sink,
    /// SHA-256 of the uncompressed file, hexadecimal.
    sha256: String,
    inspection: Option<Inspection>,
}

/// Like [`save`], for the database of a stopped etcd.
pub fn save_offline(request: &SaveRequest, data: &DataDir, facts: &client::MemberSource) -> Result<Manifest, AppError> {
    prepare_dir(&request.dir)?;
    let held = PinnedDatabase::open_offline(data)?;
    check_space(&request.dir, held.size())?;
    let begun = clock::now();
    let (raw, mut sink) = open_outputs(request, false)?;
    let (inspection, sha256) = copy::copy(&held, &mut sink, &request.job)?;
    Ok(complete(request, facts, UnfinishedSnapshot { raw, sink, sha256, inspection: Some(inspection) }, begun)?)
}

/// Syncs it, renames it, and writes its manifest.
fn complete(
    request: &SaveRequest,
    facts: &client::MemberSource,
    made: UnfinishedSnapshot,
    begun: SystemTime,
) -> Result<Manifest, SaveError> {
    let (draft, verified) = finish(request, made)?;
    let named = publish(request, draft, begun)?;
    write_manifest(request, facts, &verified, &named, begun).map_err(|why| {
        // A failed save must not leave a file that looks like a good one; the first failure is reported.
        let _ = durable::remove_file(&named);
        let name = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = manifest::remove(&request.dir, &name);
        if named.exists() { SaveError::Leftover { path: named.clone(), why: Box::new(why) } } else { why }
    })
}

async fn streamed(
    request: &SaveRequest,
    client: &mut EtcdClient,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<UnfinishedSnapshot, SaveError> {
    let (raw, sink) = open_outputs(request, true)?;
    let (sink, sha256) = receive::receive(client, sink, &request.job, expected, progress).await?;
    Ok(UnfinishedSnapshot { raw, sink, sha256, inspection: None })
}

/// Copies the database directly from etcd's file. `None` if that fails, or the copy is not good: the stream may still
/// work.
async fn copied(
    request: &SaveRequest,
    client: &mut EtcdClient,
    source: &LiveSource,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<Option<UnfinishedSnapshot>, SaveError> {
    let fail = |why: AppError| {
        tracing::warn!(
            event = "snapshot-streamed",
            because = %why.to_report(),
            "direct copy failed; falling back to the snapshot stream of etcd"
        );
        Ok(None)
    };
    let held = match PinnedDatabase::pin(client, &source.data).await {
        Ok(held) => held,
        Err(why) => return fail(why.into()),
    };
    let (raw, mut sink) = open_outputs(request, false)?;
    let job = request.job.clone();
    let copying = spawn_low_priority({
        let job = job.clone();
        move || copy::copy(&held, &mut sink, &job).map(|found| (sink, found))
    });
    let mut copying = std::pin::pin!(copying);
    let done = loop {
        match tokio::time::timeout(PROGRESS_INTERVAL, &mut copying).await {
            Ok(done) => break done.unwrap_or(Err(CopyError::Cancelled)),
            Err(_) => progress(job.done(), expected.max(job.done())),
        }
    };
    match done {
        Ok((sink, (inspection, sha256))) if (source.is_same)() => {
            Ok(Some(UnfinishedSnapshot { raw, sink, sha256, inspection: Some(inspection) }))
        }
        // The stream would not help then.
        Err(CopyError::Write(error)) => Err(error.into()),
        Err(CopyError::Cancelled) => Err(SaveError::Cancelled),
        Ok(_) => fail(CopyError::EtcdRestarted.into()),
        Err(why) => fail(why.into()),
    }
}

/// An uncompressed file, if it is kept or needed for inspection, and the sink.
fn open_outputs(request: &SaveRequest, needs_inspection: bool) -> Result<(Option<NewFile>, Sink), WriteError> {
    if request.packing != Compression::Raw && !needs_inspection {
        return Ok((None, Sink::new(request, None)));
    }
    let (draft, file) = NewFile::create(&request.dir, &format!("{}-{}", request.base, request.node), PRIVATE_FILE)?;
    Ok((Some(draft), Sink::new(request, Some(file))))
}

/// Syncs the file, and inspects it if that was not done yet. Its hash was computed while it was written.
fn finish(request: &SaveRequest, made: UnfinishedSnapshot) -> Result<(NewFile, Verified), SaveError> {
    let UnfinishedSnapshot { raw, mut sink, sha256, inspection } = made;
    let path = raw.as_ref().map_or(request.dir.as_path(), NewFile::path);
    step(request, "received", path)?;
    let database_size = sink.written() - SHA256;
    let packer = sink.take_compressor();
    // Concurrently: the inspected content is the same before and after the sync, and both must succeed.
    let (stored, inspected) = std::thread::scope(|scope| {
        let storing = scope.spawn(|| match (packer, sink.file()) {
            (Some(packer), _) => packer.finish(request).map(Some),
            (None, Some(file)) => Ok(durable::sync(file, path).map(|()| None)?),
            (None, None) => Err(SaveError::WorkerPanicked),
        });
        let inspected = match (inspection, sink.file()) {
            (Some(inspection), _) => Ok(inspection),
            (None, Some(file)) => inspect_written(file, database_size, path),
            (None, None) => Err(SaveError::WorkerPanicked),
        };
        (storing.join().unwrap_or(Err(SaveError::WorkerPanicked)), inspected)
    });
    let stored = stored?;
    step(request, "synced", path)?;
    let inspection = inspected?;
    step(request, "verified", path)?;
    let (draft, stored_size, sha256) = match (stored, raw) {
        (Some(packed), _) => (packed.draft, packed.stored_size, packed.sha256),
        (None, Some(raw)) => (raw, sink.written(), sha256),
        (None, None) => return Err(SaveError::WorkerPanicked),
    };
    let path = draft.path().to_path_buf();
    Ok((draft, Verified { path, stored_size, packing: request.packing, database_size, sha256, inspection }))
}

fn inspect_written(file: &File, size: u64, path: &Path) -> Result<Inspection, SaveError> {
    inspect::inspect(file, size, Length::Exact, &mut |_, _| crate::boltdb::walk::CONTINUE)
        .map_err(|error| SaveError::Invalid(VerifyError::of(error, path, Some(true))))
}

async fn at_low_priority<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SaveError> + Send + 'static,
) -> Result<T, SaveError> {
    spawn_low_priority(work).await.unwrap_or(Err(SaveError::WorkerPanicked))
}
