//! Builds a data directory for etcd: the database with new members, a log, and a Raft snapshot.
//!
//! Does in one pass what etcdutl does in five (etcd `etcdutl/snapshot`): while one thread computes the hash of the
//! snapshot, another copies it, changes the copy and walks all of its pages. An etcd would also start from the database
//! alone, but a joining member would get the few entries of its log instead of the keys; with a log that begins after a
//! Raft snapshot, it gets the whole database.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use crate::boltdb::database::{Database, Length};
use crate::boltdb::edit::{EditError, Editor};
use crate::boltdb::membership::Membership;
use crate::boltdb::page::{Corruption, NO_FREELIST, ReadError};
use crate::boltdb::walk::CONTINUE;
use crate::boltdb::{keyspace, raft_snapshot, wal};
use crate::durable::{self, DirError, DirHandle, OnPath as _, PRIVATE_DIR, PRIVATE_FILE, WriteError};
use crate::error::{Code, Diagnostic};
use crate::faults;
use crate::job::JobControl;
use crate::plan::restore as plan;
use crate::plan::restore::RestoreRefusal;
use crate::recovery::step::step;
use crate::snapshot::file::SnapshotFile;
use crate::snapshot::hash;
use crate::snapshot::inspect::{self, Inspection};
use crate::snapshot::verify::VerifyError;
use crate::version::Version;

/// Bytes copied at a time, and between two progress reports.
const CHUNK: usize = 4 << 20;

/// Bytes needed in addition to the database: a segment of the log, and the changes.
pub const EXTRA_BYTES: u64 = wal::SEGMENT_BYTES + (4 << 20);

/// The version of the etcd that wrote a snapshot; the oldest if unknown.
pub fn etcd_version_of(snapshot: &SnapshotFile) -> Result<Version, VerifyError> {
    let wrong = |error: EditError| match error {
        EditError::Read(error) => VerifyError::of(error, &snapshot.path, None),
        EditError::Write(error) => VerifyError::Read { path: snapshot.path.clone(), source: error.source },
    };
    let mut editor = Editor::open(&snapshot.database).map_err(wrong)?;
    let before = Before::of(&snapshot.database, &mut editor).map_err(wrong)?;
    Ok(before.written.unwrap_or(Version::OLDEST))
}

#[derive(Clone, Debug)]
pub struct DataDirSpec {
    pub name: String,
    pub membership: Membership,
    /// The version of etcd that will run on the data.
    pub target: Version,
    pub raise: u64,
    pub allow_empty: bool,
}

#[derive(Clone, Debug)]
pub struct Built {
    pub revision_before: i64,
    /// The contents of the new database.
    pub inspection: Inspection,
    pub cleared_alarms: Vec<String>,
    pub size: u64,
    pub members_before: usize,
    pub note: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Snapshot(#[from] VerifyError),
    #[error(transparent)]
    Refused(#[from] RestoreRefusal),
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The member is not in the cluster.
    #[error("{0} is not among the members")]
    NoSuchMember(String),
    #[error("internal error: a worker thread of the restore panicked")]
    WorkerPanicked,
    #[error("the restore was cancelled")]
    Cancelled,
}

impl Diagnostic for BuildError {
    fn code(&self) -> Code {
        match self {
            Self::Snapshot(error) => error.code(),
            Self::Refused(error) => error.code(),
            Self::Write(error) => error.code(),
            Self::NoSuchMember(_) => Code::InvalidMembership,
            Self::WorkerPanicked => Code::InternalError,
            Self::Cancelled => Code::Cancelled,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Snapshot(error) => error.next_step(),
            Self::Refused(error) => error.next_step(),
            Self::Write(error) => error.next_step(),
            Self::NoSuchMember(_) => Some("add it to --initial-cluster".into()),
            Self::WorkerPanicked | Self::Cancelled => Some("run the same command again".into()),
        }
    }
}

/// Builds it from `snapshot` in `dir`, which must not exist, and verifies the snapshot. Everything is durable when it
/// returns. `progress` receives the bytes done, and the total.
///
/// # Errors
/// If the snapshot is not good or writing fails; discard `dir` then.
pub fn build(
    snapshot: &SnapshotFile,
    dir: &Path,
    spec: &DataDirSpec,
    control: &JobControl,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Built, BuildError> {
    prepare(dir)?;
    let path = bolt(dir);
    let file = durable::create(&path, PRIVATE_FILE)?;
    let (hash, built) = std::thread::scope(|scope| {
        let hash = snapshot.trailer.map(|trailer| scope.spawn(move || is_hash_of(snapshot, trailer, control)));
        let built = copy(snapshot, &file, &path, control, progress).and_then(|()| {
            let length = if snapshot.trailer.is_some() { Length::Exact } else { Length::AtLeast };
            let opened = Database::open(&file, snapshot.database_size, length);
            opened.map_err(|error| VerifyError::of(error, &snapshot.path, None))?;
            finish(&file, dir, spec, &snapshot.path)
        });
        (hash.map(std::thread::ScopedJoinHandle::join), built)
    });
    let hash_is_right = match hash {
        None => None,
        Some(Ok(Ok(is_right))) => Some(is_right),
        Some(Ok(Err(source))) => return Err(VerifyError::Read { path: snapshot.path.clone(), source }.into()),
        Some(Err(_)) => return Err(BuildError::WorkerPanicked),
    };
    if control.is_cancelled() {
        return Err(BuildError::Cancelled);
    }
    match built {
        Err(BuildError::Snapshot(VerifyError::Corrupt { path, finding, .. })) => {
            Err(VerifyError::Corrupt { path, finding, hash_is_right }.into())
        }
        Ok(_) if hash_is_right == Some(false) => {
            let finding = Corruption::new(snapshot.database_size, "the trailing SHA-256 does not match the database");
            Err(VerifyError::Corrupt { path: snapshot.path.clone(), finding, hash_is_right: None }.into())
        }
        built => {
            let built = built?;
            plan::check_not_empty(built.inspection.keys, spec.allow_empty)?;
            Ok(built)
        }
    }
}

/// Like [`build`], from a database of a stopped etcd that is in `dir` already.
pub fn build_in_place(dir: &Path, spec: &DataDirSpec) -> Result<Built, BuildError> {
    prepare(dir)?;
    let path = bolt(dir);
    let file = durable::open_read_write(&path)?;
    finish(&file, dir, spec, &path)
}

/// Moves the database of the data directory `from` to `dir`. An etcd ran on `from` as another user: the database must
/// be a regular file of that user.
pub fn take_database(from: &DirHandle, dir: &DirHandle) -> Result<(), DirError> {
    faults::point("restore::adopt").on("take over", from.path())?;
    prepare(&dir.proc_path())?;
    let snap = |dir: &DirHandle| {
        let missing = || DirError::Missing(dir.path().join("member/snap"));
        dir.open_nested(&["member", "snap"])?.ok_or_else(missing)
    };
    let (from, to) = (snap(from)?, snap(dir)?);
    from.rename(DATABASE, &to, DATABASE)?;
    // No other user can replace it in its new place.
    let missing = || DirError::Replaced(to.path().join(DATABASE));
    let found = to.stat(DATABASE)?.ok_or_else(missing)?;
    from.check_file(&to.path().join(DATABASE), &found)
}

const DATABASE: &str = "db";

fn bolt(dir: &Path) -> PathBuf {
    dir.join("member").join("snap").join(DATABASE)
}

fn prepare(dir: &Path) -> Result<(), WriteError> {
    for dir in [dir.to_path_buf(), dir.join("member"), dir.join("member/snap"), dir.join("member/wal")] {
        durable::create_dir(&dir, PRIVATE_DIR)?;
    }
    Ok(())
}

fn is_hash_of(snapshot: &SnapshotFile, trailer: [u8; 32], control: &JobControl) -> io::Result<bool> {
    let mut context = Context::new(&SHA256);
    hash::feed(&mut context, &snapshot.database, snapshot.database_size, |_| !control.is_cancelled())?;
    Ok(context.finish().as_ref() == trailer)
}

fn copy(
    snapshot: &SnapshotFile,
    file: &File,
    path: &Path,
    control: &JobControl,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), BuildError> {
    step("copy", "build", path)?;
    let size = snapshot.database_size;
    durable::reserve(file, size).map_err(|source| WriteError {
        act: "preallocate",
        path: path.to_path_buf(),
        source,
    })?;
    let mut at = 0;
    while at < size {
        if control.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let wanted = usize::try_from(size - at).unwrap_or(usize::MAX).min(CHUNK);
        match durable::copy_range(&snapshot.database, file, at, wanted) {
            Ok(0) => {
                let finding = Corruption::new(at, "the file is cut off");
                return Err(VerifyError::Corrupt { path: snapshot.path.clone(), finding, hash_is_right: None }.into());
            }
            Ok(count) => at += count as u64,
            Err(source) => {
                return Err(WriteError { act: "copy the snapshot to", path: path.to_path_buf(), source }.into());
            }
        }
        progress(at, size);
    }
    Ok(())
}

/// Changes the database, walks it, writes the other files, and syncs everything.
fn finish(file: &File, dir: &Path, spec: &DataDirSpec, origin: &Path) -> Result<Built, BuildError> {
    let path = bolt(dir);
    let found = |error: ReadError| VerifyError::of(error, origin, None);
    // Writeback runs during the walk.
    std::thread::scope(|scope| {
        let early = scope.spawn(|| durable::sync(file, &path));
        let edited = edit(file, &path, spec, origin)?;
        let size = file.metadata().map_err(|source| VerifyError::Read { path: path.clone(), source })?.len();
        let inspection = inspect::inspect(file, size, Length::Exact, &mut |_, _| CONTINUE).map_err(found)?;
        early.join().map_err(|_| BuildError::WorkerPanicked)??;
        step("edited", "build", &path)?;
        write_log(dir, spec)?;
        durable::sync(file, &path)?;
        durable::sync_dirs(&[&dir.join("member/snap"), &dir.join("member/wal"), &dir.join("member"), dir])?;
        step("built", "build", dir)?;
        let Edited { revision_before, cleared_alarms, members_before, note } = edited;
        Ok(Built { revision_before, inspection, cleared_alarms, size, members_before, note })
    })
}

struct Edited {
    revision_before: i64,
    cleared_alarms: Vec<String>,
    members_before: usize,
    note: Option<String>,
}

/// Sets the members, the consistent index, the fields of the target version, and the bumped revision.
fn edit(file: &File, path: &Path, spec: &DataDirSpec, origin: &Path) -> Result<Edited, BuildError> {
    let found = |error: EditError| match error {
        EditError::Read(error) => BuildError::Snapshot(VerifyError::of(error, origin, None)),
        EditError::Write(error) => BuildError::Write(error),
    };
    let unread = |error: ReadError| found(error.into());
    let mut editor = Editor::open(file).map_err(found)?;
    let before = Before::of(file, &mut editor).map_err(found)?;
    let note = before.written.map(|written| plan::check_target(written, spec.target)).transpose()?.flatten();
    if editor.meta().freelist != NO_FREELIST {
        // Alarms are removed, so they are read before.
        Database::open_newest(file).and_then(|database| database.reachable_pages()).map_err(unread)?;
    }
    let members = editor.bucket(b"members").map_err(found)?;
    let members_before = members.len();
    members.clear();
    for member in &spec.membership.members {
        members.insert(member.key().into_bytes(), member.json().into_bytes());
    }
    editor.bucket(b"members_removed").map_err(found)?.clear();
    let alarms = editor.bucket(b"alarm").map_err(found)?;
    let cleared_alarms = alarms.keys().filter_map(|key| inspect::alarm_name(key)).collect();
    alarms.clear();
    let raised = plan::bumped(before.revision, spec.raise)?;
    let meta = editor.bucket(b"meta").map_err(found)?;
    meta.insert(b"consistent_index".to_vec(), spec.membership.count().to_be_bytes().to_vec());
    if spec.target.minor >= 5 {
        meta.insert(b"term".to_vec(), raft_snapshot::TERM.to_be_bytes().to_vec());
        meta.insert(b"confState".to_vec(), spec.membership.conf_state_json().into_bytes());
    } else {
        meta.remove(&b"term"[..]);
        meta.remove(&b"confState"[..]);
    }
    if spec.target.minor < 6 {
        meta.remove(&b"storageVersion"[..]);
    } else if before.storage.is_some_and(|storage| storage.minor > spec.target.minor) {
        // The storage format is the same from 3.6 on; an etcd rejects an unknown storage version.
        meta.insert(b"storageVersion".to_vec(), format!("{}.0", spec.target.minor_text()).into_bytes());
    }
    if spec.raise > 0 {
        let revision = keyspace::revision_key(raised);
        // etcd finishes this compaction when it starts, so that older revisions are not available.
        meta.insert(b"scheduledCompactRev".to_vec(), revision.to_vec());
        editor.append(b"key", &revision, b"").map_err(found)?;
    }
    let cluster = editor.bucket(b"cluster").map_err(found)?;
    if before.cluster.is_some_and(|agreed| (agreed.major, agreed.minor) > (spec.target.major, spec.target.minor)) {
        let version = Version::new(spec.target.major, spec.target.minor, 0);
        cluster.insert(b"clusterVersion".to_vec(), version.to_string().into_bytes());
    }
    editor.write(path).map_err(found)?;
    Ok(Edited { revision_before: before.revision, cleared_alarms, members_before, note })
}

struct Before {
    revision: i64,
    /// The version of the etcd that wrote it, as far as known.
    written: Option<Version>,
    storage: Option<Version>,
    cluster: Option<Version>,
}

impl Before {
    fn of(file: &File, editor: &mut Editor<'_>) -> Result<Self, EditError> {
        let version =
            |text: Option<&Vec<u8>>| text.and_then(|text| std::str::from_utf8(text).ok()?.parse::<Version>().ok());
        let cluster = version(editor.bucket(b"cluster")?.get(&b"clusterVersion"[..]));
        let meta = editor.bucket(b"meta")?;
        let compacted = [&b"scheduledCompactRev"[..], b"finishedCompactRev"]
            .iter()
            .filter_map(|mark| meta.get(*mark))
            .filter_map(|value| keyspace::revision(value).ok())
            .map(|(revision, _)| revision.main)
            .max();
        // The storage version exists from 3.6 on, and the term from 3.5 on (etcd `schema.UnsafeDetectSchemaVersion`).
        let term = meta.get(&b"term"[..]).is_some_and(|term| term.iter().any(|byte| *byte != 0));
        let storage = version(meta.get(&b"storageVersion"[..])).or(term.then_some(Version::new(3, 5, 0)));
        let last = Database::open_newest(file)?.last_key(b"key")?;
        let last = last.map(|key| keyspace::revision(&key)).transpose().map_err(|what| Corruption::new(0, what))?;
        let last = last.map_or(1, |(revision, _)| revision.main);
        Ok(Self { revision: last.max(compacted.unwrap_or(1)), written: storage.max(cluster), storage, cluster })
    }
}

fn write_log(dir: &Path, spec: &DataDirSpec) -> Result<(), BuildError> {
    let us = spec.membership.named(&spec.name);
    let us = us.ok_or_else(|| BuildError::NoSuchMember(spec.name.clone()))?;
    let log = wal::new_log(us.id, &spec.membership);
    durable::write_stream(&dir.join("member/wal").join(wal::FIRST_SEGMENT), PRIVATE_FILE, |file| {
        use io::Write as _;
        durable::reserve(file, wal::SEGMENT_BYTES)?;
        file.write_all(&log)?;
        file.set_len(wal::SEGMENT_BYTES)
    })?;
    let name = raft_snapshot::file_name(&spec.membership);
    durable::write_file(&dir.join("member/snap").join(name), &raft_snapshot::encode(&spec.membership), PRIVATE_FILE)?;
    Ok(durable::write_file(&dir.join("name"), spec.name.as_bytes(), PRIVATE_FILE)?)
}
