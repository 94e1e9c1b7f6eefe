//! Takes a snapshot: from etcd's stream to a file that is whole, safe and verified, or to nothing at all.
//!
//! The database goes to a hidden file: received from etcd (`receive`), or copied from where it lies (`copy`). The file is fsynced,
//! verified as `verify` does, packed if that is asked for (`pack`), given its name, and described by a manifest. Whatever breaks
//! off before the name removes the hidden file.

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
pub use request::{SaveRequest, Source};

use copy::CopyError;
use publish::{publish, write_manifest};
use request::step;
use sink::Sink;
use space::check_space;

/// How often it is told how far a copy is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Saves. `progress` is told how many bytes of the database are there, of how many.
///
/// # Errors
/// Whatever keeps the snapshot from being whole, safe and good; nothing of it is left then.
pub async fn save(
    wish: &SaveRequest,
    client: &mut EtcdClient,
    facts: &client::MemberSource,
    mut progress: impl FnMut(u64, u64),
) -> Result<Manifest, AppError> {
    let place = wish.dir.clone();
    blocking(move || {
        prepare_dir(&place)?;
        // What a save left that was killed, wherever it was told to save.
        for dir in [place.join(manifest::DIR), place] {
            for name in durable::sweep(&dir) {
                tracing::info!(file = %name.to_string_lossy(), dir = %dir.display(), "removed what an interrupted save left");
            }
        }
        Ok(())
    })
    .await?;
    let expected = facts.db_size;
    check_space(&wish.dir, expected)?;
    let begun = clock::now();
    let copied = match &wish.live {
        Some(source) if expected > live::SMALL => copied(wish, client, source, expected, &mut progress).await?,
        _ => None,
    };
    let made = match copied {
        Some(made) => made,
        None => streamed(wish, client, expected, &mut progress).await?,
    };
    let (wish, facts) = (wish.clone(), facts.clone());
    Ok(blocking(move || complete(&wish, &facts, made, begun)).await?)
}

/// The database and its hash are written; whether they are safe and good is not known yet.
struct UnfinishedSnapshot {
    /// The file as it is, if there is one.
    raw: Option<NewFile>,
    sink: Sink,
    /// Of all of it as it is, hexadecimal.
    sha256: String,
    inspection: Option<Inspection>,
}

/// As [`save`], of the database of an etcd that does not run.
pub fn save_offline(wish: &SaveRequest, data: &DataDir, facts: &client::MemberSource) -> Result<Manifest, AppError> {
    prepare_dir(&wish.dir)?;
    let held = PinnedDatabase::open_offline(data)?;
    check_space(&wish.dir, held.size())?;
    let begun = clock::now();
    let (raw, mut sink) = open_outputs(wish, false)?;
    let (inspection, sha256) = copy::copy(&held, &mut sink, &wish.course)?;
    Ok(complete(wish, facts, UnfinishedSnapshot { raw, sink, sha256, inspection: Some(inspection) }, begun)?)
}

/// Makes it safe, gives it its name, and describes it.
fn complete(
    wish: &SaveRequest,
    facts: &client::MemberSource,
    made: UnfinishedSnapshot,
    begun: SystemTime,
) -> Result<Manifest, SaveError> {
    let (draft, verified) = finish(wish, made)?;
    let named = publish(wish, draft, begun)?;
    write_manifest(wish, facts, &verified, &named, begun).map_err(|why| {
        // What is said to have failed must not look as if it had not; the first failure is the one that matters.
        let _ = durable::remove_file(&named);
        let name = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = manifest::remove(&wish.dir, &name);
        if named.exists() { SaveError::Leftover { path: named.clone(), why: Box::new(why) } } else { why }
    })
}

async fn streamed(
    wish: &SaveRequest,
    client: &mut EtcdClient,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<UnfinishedSnapshot, SaveError> {
    let (raw, sink) = open_outputs(wish, true)?;
    let (sink, sha256) = receive::receive(client, sink, &wish.course, expected, progress).await?;
    Ok(UnfinishedSnapshot { raw, sink, sha256, inspection: None })
}

/// Copies the database from where it lies. Nothing if that cannot be done, or what was copied is not good: etcd may still send it.
async fn copied(
    wish: &SaveRequest,
    client: &mut EtcdClient,
    source: &Source,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<Option<UnfinishedSnapshot>, SaveError> {
    let give_up = |why: AppError| {
        tracing::warn!(
            event = "snapshot-streamed",
            because = %why.to_report(),
            "the database cannot be copied where it lies; etcd is asked to send it"
        );
        Ok(None)
    };
    let held = match PinnedDatabase::pin(client, &source.data).await {
        Ok(held) => held,
        Err(why) => return give_up(why.into()),
    };
    let (raw, mut sink) = open_outputs(wish, false)?;
    let course = wish.course.clone();
    let copying = spawn_low_priority({
        let course = course.clone();
        move || copy::copy(&held, &mut sink, &course).map(|found| (sink, found))
    });
    let mut copying = std::pin::pin!(copying);
    let done = loop {
        match tokio::time::timeout(PROGRESS_INTERVAL, &mut copying).await {
            Ok(done) => break done.unwrap_or(Err(CopyError::Cancelled)),
            Err(_) => progress(course.done(), expected.max(course.done())),
        }
    };
    match done {
        Ok((sink, (inspection, sha256))) if (source.is_same)() => {
            Ok(Some(UnfinishedSnapshot { raw, sink, sha256, inspection: Some(inspection) }))
        }
        // Somebody else sending it changes nothing about that.
        Err(CopyError::Write(error)) => Err(error.into()),
        Err(CopyError::Cancelled) => Err(SaveError::Cancelled),
        Ok(_) => give_up(CopyError::EtcdRestarted.into()),
        Err(why) => give_up(why.into()),
    }
}

/// A file for it as it is, if it is kept so or has to be looked at, and where it is written to.
fn open_outputs(wish: &SaveRequest, is_looked_at: bool) -> Result<(Option<NewFile>, Sink), WriteError> {
    if wish.packing != Compression::Raw && !is_looked_at {
        return Ok((None, Sink::new(wish, None)));
    }
    let (draft, file) = NewFile::create(&wish.dir, &format!("{}-{}", wish.base, wish.node), PRIVATE_FILE)?;
    Ok((Some(draft), Sink::new(wish, Some(file))))
}

/// What is written is made safe, and found good if that was not seen to yet. Its hash was computed when it was written.
fn finish(wish: &SaveRequest, made: UnfinishedSnapshot) -> Result<(NewFile, Verified), SaveError> {
    let UnfinishedSnapshot { raw, mut sink, sha256, inspection } = made;
    let path = raw.as_ref().map_or(wish.dir.as_path(), NewFile::path);
    step(wish, "received", path)?;
    let database_size = sink.written() - SHA256;
    let packer = sink.take_compressor();
    // Side by side: what is inspected is the same, whether the disk has all of it already or not, and both must be well.
    let (stored, inspected) = std::thread::scope(|scope| {
        let storing = scope.spawn(|| match (packer, sink.file()) {
            (Some(packer), _) => packer.finish(wish).map(Some),
            (None, Some(file)) => Ok(durable::sync(file, path).map(|()| None)?),
            (None, None) => Err(SaveError::WorkerPanicked),
        });
        let inspected = match (inspection, sink.file()) {
            (Some(inspection), _) => Ok(inspection),
            (None, Some(file)) => needs_inspection(file, database_size, path),
            (None, None) => Err(SaveError::WorkerPanicked),
        };
        (storing.join().unwrap_or(Err(SaveError::WorkerPanicked)), inspected)
    });
    let stored = stored?;
    step(wish, "synced", path)?;
    let inspection = inspected?;
    step(wish, "verified", path)?;
    let (draft, stored_size, sha256) = match (stored, raw) {
        (Some(packed), _) => (packed.draft, packed.stored_size, packed.sha256),
        (None, Some(raw)) => (raw, sink.written(), sha256),
        (None, None) => return Err(SaveError::WorkerPanicked),
    };
    let path = draft.path().to_path_buf();
    Ok((draft, Verified { path, stored_size, packing: wish.packing, database_size, sha256, inspection }))
}

fn needs_inspection(file: &File, size: u64, path: &Path) -> Result<Inspection, SaveError> {
    inspect::inspect(file, size, Length::Exact, &mut |_, _| crate::boltdb::walk::CONTINUE)
        .map_err(|error| SaveError::Invalid(VerifyError::of(error, path, Some(true))))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SaveError> + Send + 'static,
) -> Result<T, SaveError> {
    spawn_low_priority(work).await.unwrap_or(Err(SaveError::WorkerPanicked))
}
