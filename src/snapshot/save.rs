//! Takes a snapshot: from etcd's stream to a file that is whole, safe and verified, or to nothing at all.
//!
//! The database goes to a hidden file: received from etcd (`receive`), or copied from where it lies (`copy`). The file is fsynced,
//! verified as `verify` does, packed if that is asked for (`pack`), given its name, and described by a manifest. Whatever breaks
//! off before the name removes the hidden file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::boltdb::database::Length;
use crate::boltdb::walk::CONTINUE;
use crate::clock;
use crate::cluster::record::MemberIdentity;
use crate::compression::Compression;
use crate::datadir::DataDir;
use crate::durable::{self, NewFile, OnPath as _, PRIVATE_DIR, PRIVATE_FILE, WriteError};
use crate::error::{AppError, Code, Diagnostic, is_disk_full};
use crate::etcd::client::{self, ClientError, EtcdClient};
use crate::faults;
use crate::host::{self, FileSystem};
use crate::job::{JobControl, spawn_low_priority};
use crate::plan::snapshot_name::NamePrefix;
use crate::snapshot::copy::{self, CopyError};
use crate::snapshot::file::SHA256;
use crate::snapshot::inspect::{self, Inspection};
use crate::snapshot::live::{self, PinnedDatabase};
use crate::snapshot::manifest::{self, Manifest, Verification};
use crate::snapshot::receive::{self, DiskSpaceError};
use crate::snapshot::sink::Sink;
use crate::snapshot::verify::{Verified, VerifyError};
use crate::text::format_bytes;

/// How often it is told how far a copy is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct SaveRequest {
    pub dir: PathBuf,
    pub base: NamePrefix,
    pub node: String,
    pub packing: Compression,
    /// `on-demand` or `scheduled`.
    pub reason: &'static str,
    pub labels: BTreeMap<String, String>,
    /// The earlier lives of the data directory.
    pub lineage: Vec<MemberIdentity>,
    /// The database of the running etcd, if it is to be copied there instead of being sent by etcd.
    pub live: Option<Source>,
    /// The second of the newest name that was given, which a bucket may have when it is free here; 0 if there is none.
    pub last_named: u64,
    /// How far it is, and whether it is still wanted.
    pub course: JobControl,
}

/// A name this far ahead, in seconds, comes from a clock that was wrong.
const MAX_CLOCK_AHEAD_SECONDS: u64 = 60;

#[derive(Clone)]
pub struct Source {
    pub data: DataDir,
    /// Whether it is still the same etcd: what another one does with the file is not what the first one held still.
    pub is_same: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.data).finish()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no room, or no way to write it.
    #[error(transparent)]
    Pace(#[from] DiskSpaceError),
    #[error("etcd's snapshot broke off after {}", format_bytes(*after))]
    Stream { after: u64, source: ClientError },
    /// What came is not what etcd sent.
    #[error("what etcd sent does not have the SHA-256 that etcd gives for it")]
    Hash,
    /// etcd ended the stream too early.
    #[error("etcd's snapshot ended after {}, without its SHA-256", format_bytes(*.0))]
    Truncated(u64),
    /// What was saved is not good.
    #[error("the snapshot was not kept, because what etcd sent is not good")]
    Invalid(#[source] VerifyError),
    /// What was packed is not what was to be packed.
    #[error("the packed snapshot is not what was to be packed")]
    NotReadBack(#[source] io::Error),
    /// The place for it cannot be used.
    #[error("snapshots cannot be kept in {}: {why}", dir.display())]
    Unusable { dir: PathBuf, why: &'static str },
    /// Others could exchange what is kept there.
    #[error("snapshots are not kept in {}: {why}, who could exchange what is restored later", dir.display())]
    Exposed { dir: PathBuf, why: String },
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It failed at the end, and what was made cannot be removed.
    #[error("the snapshot failed, and {} could not be removed", path.display())]
    Leftover {
        path: PathBuf,
        #[source]
        why: Box<SaveError>,
    },
    #[error("the snapshot was broken off, and nothing of it is left")]
    Cancelled,
    #[error("a thread of the snapshot was lost")]
    WorkerPanicked,
}

impl Diagnostic for SaveError {
    fn code(&self) -> Code {
        match self {
            Self::Pace(error) => error.code(),
            Self::Stream { .. } | Self::Truncated(_) | Self::Hash => Code::SnapshotStreamFailed,
            Self::Invalid(_) => Code::SnapshotCorrupt,
            Self::NotReadBack(_) => Code::SnapshotNotReadBack,
            Self::Unusable { .. } => Code::SnapshotDirUnusable,
            Self::Exposed { .. } => Code::SnapshotDirExposed,
            Self::Write(error) => error.code(),
            Self::Leftover { .. } => Code::SnapshotLeftover,
            Self::Cancelled => Code::Cancelled,
            Self::WorkerPanicked => Code::InternalError,
        }
    }

    fn is_out_of_space(&self) -> bool {
        match self {
            Self::Pace(DiskSpaceError::Space { .. }) => true,
            Self::Pace(DiskSpaceError::Write(error)) | Self::Write(error) => is_disk_full(&error.source),
            _ => false,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Pace(error) => error.next_step(),
            Self::Stream { .. } | Self::Truncated(_) | Self::Hash | Self::WorkerPanicked | Self::Cancelled => {
                Some("see quorate status, and try again".into())
            }
            Self::Invalid(_) => {
                Some("this member's data may be damaged: quorate status, and journalctl -u quorate-server".into())
            }
            Self::NotReadBack(_) => Some("see dmesg for what the disk says, and try again".into()),
            Self::Exposed { dir, .. } => {
                let us = nix::unistd::geteuid();
                Some(format!("chown {us} {0} && chmod go-w {0}, or choose another etcd-snapshot-dir", dir.display()))
            }
            Self::Leftover { path, .. } => {
                Some(format!("see dmesg for what the disk says; then: rm {}", path.display()))
            }
            Self::Unusable { .. } => Some("make the directory, or choose another one".into()),
            Self::Write(error) => error.next_step(),
        }
    }
}

/// Makes sure that there is a directory for snapshots. It is made if the one above it is there: more would hide a disk that is
/// not mounted, or a typing error.
pub fn prepare_dir(dir: &Path) -> Result<(), SaveError> {
    let place = |why| SaveError::Unusable { dir: dir.to_path_buf(), why };
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        return Err(place("it is not a directory"));
    }
    if dir.is_symlink() {
        return Err(place("it is a symbolic link to something that is not there"));
    }
    if !dir.parent().is_some_and(Path::is_dir) {
        return Err(place("neither it nor the directory above it is there"));
    }
    durable::create_dir(dir, PRIVATE_DIR)?;
    Ok(())
}

/// As [`prepare_dir`], for the directory that snapshots of this server are kept in: nobody else may exchange them there. It must be ours or
/// root's. If everybody may write into it (and no sticky bit keeps them from what is not theirs) it is closed to them. On a network file
/// system, which may show root's directories as another user's, both are left as they are.
///
/// # Errors
/// As [`prepare_dir`]; or if it is another user's, or cannot be closed.
pub fn prepare_own_dir(dir: &Path) -> Result<(), SaveError> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    prepare_dir(dir)?;
    if host::file_system(dir) == FileSystem::Network {
        return Ok(());
    }
    let found = std::fs::metadata(dir).on("look at", dir)?;
    let us = nix::unistd::geteuid().as_raw();
    let exposed = |why| SaveError::Exposed { dir: dir.to_path_buf(), why };
    if found.uid() != us && found.uid() != 0 {
        return Err(exposed(format!("it belongs to user {}", found.uid())));
    }
    let mode = found.permissions().mode();
    if mode & 0o1002 != 0o0002 {
        return Ok(());
    }
    if found.uid() != us {
        return Err(exposed("it is writable for everybody".into()));
    }
    durable::set_mode(dir, mode & 0o7775)?;
    tracing::warn!(path = %dir.display(), "everybody could write into the snapshot directory; closed to others now");
    Ok(())
}

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
    receive::check_space(&wish.dir, expected)?;
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
    receive::check_space(&wish.dir, held.size())?;
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
    manifest_of(wish, facts, &verified, &named, begun).map_err(|why| {
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
    inspect::inspect(file, size, Length::Exact, &mut |_, _| CONTINUE)
        .map_err(|error| SaveError::Invalid(VerifyError::of(error, path, Some(true))))
}

/// A named step: where tests inject faults, and where a save that nobody wants any more ends.
pub(super) fn step(wish: &SaveRequest, name: &'static str, path: &Path) -> Result<(), SaveError> {
    if wish.course.is_cancelled() {
        return Err(SaveError::Cancelled);
    }
    faults::point(&format!("snapshot::{name}")).on("save", path)?;
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SaveError> + Send + 'static,
) -> Result<T, SaveError> {
    spawn_low_priority(work).await.unwrap_or(Err(SaveError::WorkerPanicked))
}

/// Gives the draft its name: that of the second in which it was begun, or of the next one that nobody has.
fn publish(wish: &SaveRequest, draft: NewFile, begun: SystemTime) -> Result<PathBuf, SaveError> {
    step(wish, "named", draft.path())?;
    let now = clock::unix_seconds(begun);
    let mut second = if wish.last_named < now + MAX_CLOCK_AHEAD_SECONDS { now.max(wish.last_named + 1) } else { now };
    let mut draft = draft;
    loop {
        let is_taken = [Compression::Raw, Compression::Zstd, Compression::Zip].iter().any(|packing| {
            wish.dir.join(crate::plan::snapshot_name::compose(&wish.base, &wish.node, second, *packing)).exists()
        });
        if !is_taken {
            let path = wish.dir.join(crate::plan::snapshot_name::compose(&wish.base, &wish.node, second, wish.packing));
            match draft.publish(&path)? {
                None => return Ok(path),
                Some(again) => draft = again,
            }
        }
        second += 1;
    }
}

fn manifest_of(
    wish: &SaveRequest,
    facts: &client::MemberSource,
    verified: &Verified,
    path: &Path,
    begun: SystemTime,
) -> Result<Manifest, SaveError> {
    let found =
        std::fs::metadata(path).map_err(|source| WriteError { act: "look at", path: path.to_path_buf(), source })?;
    let inspection = &verified.inspection;
    let manifest = Manifest {
        version: manifest::VERSION,
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        base: wish.base.to_string(),
        node: wish.node.clone(),
        size: verified.stored_size,
        created: clock::rfc3339(begun),
        revision: inspection.revision,
        keys: inspection.keys,
        total_keys: inspection.total_pairs,
        database_size: verified.database_size,
        etcd_version: facts.version.clone(),
        sha256: verified.sha256.clone(),
        hash_kv: inspection.hash_kv,
        compression: verified.packing.word().into(),
        reason: wish.reason.into(),
        labels: wish.labels.clone(),
        member_id: facts.member_id.clone(),
        cluster_id: facts.cluster_id.clone(),
        lineage: wish.lineage.clone(),
        alarms: facts.alarms.clone(),
        verification: Some(Verification {
            status: "good".into(),
            at: clock::rfc3339(clock::now()),
            size: found.len(),
            modified: manifest::modified(&found),
            finding: None,
        }),
        held: false,
    };
    step(wish, "described", path)?;
    manifest.write(&wish.dir)?;
    Ok(manifest)
}
