//! Takes a snapshot: from etcd's stream to a file that is whole, safe and verified, or to nothing at all.
//!
//! The database goes to a hidden file: received from etcd (`receive`), or copied from where it lies (`copy`). The file is fsynced,
//! verified as `verify` does, packed if that is asked for (`pack`), given its name, and described by a manifest. Whatever breaks
//! off before the name removes the hidden file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::aside::aside;
use super::copy::{self, CopyError, Course};
use super::file::Packing;
use super::live::{self, Live};
use super::manifest::{self, Manifest, Verification};
use super::name::{self, Base};
use super::pack::pack;
use super::receive::{self, Pace, PaceError};
use super::verify::{self, Demands, Verified, VerifyError};
use crate::clock;
use crate::durable::{self, Draft, OnPath as _, PRIVATE, PRIVATE_DIR, WriteError};
use crate::error::{Exit, Explained, Failure};
use crate::etcd::client::{ClientError, EtcdClient, Source};
use crate::faults;
use crate::plan::space::human;

/// How often it is told how far a copy is.
const NEWS: Duration = Duration::from_millis(200);

/// What to save, and how.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Where to.
    pub dir: PathBuf,
    /// First part of the name.
    pub base: Base,
    /// Second part.
    pub node: String,
    /// How to pack it.
    pub packing: Packing,
    /// `on-demand` or `scheduled`.
    pub reason: &'static str,
    /// What to write on it.
    pub labels: BTreeMap<String, String>,
    /// Where etcd has its database, if it is to be copied there instead of being sent by etcd.
    pub live: Option<PathBuf>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no room, or no way to write it.
    #[error(transparent)]
    Pace(#[from] PaceError),
    /// etcd broke off.
    #[error("etcd's snapshot broke off after {}", human(*after))]
    Stream {
        /// Bytes.
        after: u64,
        /// Why.
        source: ClientError,
    },
    /// What came is not what etcd sent.
    #[error("what etcd sent does not have the SHA-256 that etcd gives for it")]
    Hash,
    /// etcd ended the stream too early.
    #[error("etcd's snapshot ended after {}, without its SHA-256", human(*.0))]
    Cut(u64),
    /// What was saved is not good.
    #[error("the snapshot was not kept, because what etcd sent is not good")]
    Bad(#[source] VerifyError),
    /// What was packed is not what was to be packed.
    #[error("the packed snapshot is not what was to be packed")]
    Packed(#[source] io::Error),
    /// The place for it cannot be used.
    #[error("snapshots cannot be kept in {}: {why}", dir.display())]
    Place {
        /// Where.
        dir: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Something could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A thread was lost.
    #[error("the snapshot was broken off")]
    Lost,
}

impl Explained for SaveError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn next(&self) -> Option<String> {
        match self {
            Self::Pace(error) => error.next(),
            Self::Stream { .. } | Self::Cut(_) | Self::Hash | Self::Lost => {
                Some("see quorate status, and try again".into())
            }
            Self::Bad(_) => {
                Some("this member's data may be damaged: quorate status, and journalctl -u quorate-server".into())
            }
            Self::Packed(_) => Some("see dmesg for what the disk says, and try again".into()),
            Self::Place { .. } => Some("make the directory, or choose another one".into()),
            Self::Write(error) => error.next(),
        }
    }
}

/// Makes sure that there is a directory for snapshots. It is made if the one above it is there: more would hide a disk that is
/// not mounted, or a typing error.
///
/// # Errors
/// If it is no directory, or cannot be made.
pub fn prepare_dir(dir: &Path) -> Result<(), SaveError> {
    let place = |why| SaveError::Place { dir: dir.to_path_buf(), why };
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

/// Saves. `progress` is told how many bytes of the database are there, of how many.
///
/// # Errors
/// Whatever keeps the snapshot from being whole, safe and good; nothing of it is left then.
pub async fn save(
    wish: &Wish,
    client: &mut EtcdClient,
    source: &Source,
    mut progress: impl FnMut(u64, u64),
) -> Result<Manifest, Failure> {
    prepare_dir(&wish.dir)?;
    let expected = source.db_size;
    receive::check_space(&wish.dir, expected)?;
    let begun = clock::now();
    let copied = match &wish.live {
        Some(bolt) if expected > live::SMALL => copied(wish, client, bolt, expected, &mut progress).await?,
        _ => None,
    };
    let raw = match copied {
        Some(raw) => raw,
        None => streamed(wish, client, expected, &mut progress).await?,
    };
    let wish_here = wish.clone();
    let (draft, verified) = blocking(move || pack(&wish_here, raw)).await?;
    let wish_here = wish.clone();
    let named = blocking(move || publish(&wish_here, draft, begun)).await?;
    let described = describe(wish, source, &verified, &named, begun).and_then(|manifest| {
        step("described", &named)?;
        manifest.write(&wish.dir)?;
        Ok(manifest)
    });
    if described.is_err() {
        // What is said to have failed must not look as if it had not.
        durable::remove_file(&named)?;
    }
    Ok(described?)
}

/// Receives the database from etcd.
async fn streamed(
    wish: &Wish,
    client: &mut EtcdClient,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(Draft, Verified), SaveError> {
    let (draft, file) = begin(wish)?;
    let file = receive::receive(client, file, pace(wish), expected, progress).await?;
    let is_kept = wish.packing == Packing::Raw;
    blocking(move || finish(draft, &file, is_kept)).await
}

/// Copies the database from where it lies. Nothing if that cannot be done, or what was copied is not good: etcd may still send it.
async fn copied(
    wish: &Wish,
    client: &mut EtcdClient,
    bolt: &Path,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<Option<(Draft, Verified)>, SaveError> {
    let give_up = |why: Failure| {
        tracing::warn!(because = %why.told(), "the database cannot be copied where it lies; etcd is asked to send it");
        Ok(None)
    };
    let held = match Live::hold(client, bolt).await {
        Ok(held) => held,
        Err(why) => return give_up(why.into()),
    };
    let (draft, mut file) = begin(wish)?;
    let (course, pace) = (Course::default(), pace(wish));
    let unwanted = BreakOff(course.clone());
    let copying = aside({
        let course = course.clone();
        move || copy::copy(&held, &mut file, pace, &course).map(|()| (draft, file))
    });
    let mut copying = std::pin::pin!(copying);
    let done = loop {
        match tokio::time::timeout(NEWS, &mut copying).await {
            Ok(done) => break done.unwrap_or(Err(CopyError::BrokenOff)),
            Err(_) => progress(course.done(), expected.max(course.done())),
        }
    };
    drop(unwanted);
    let (draft, file) = match done {
        Ok(copied) => copied,
        // Somebody else sending it changes nothing about that.
        Err(CopyError::Write(error)) => return Err(error.into()),
        Err(why) => return give_up(why.into()),
    };
    let is_kept = wish.packing == Packing::Raw;
    match blocking(move || finish(draft, &file, is_kept)).await {
        Err(why @ SaveError::Bad(_)) => give_up(why.into()),
        finished => finished.map(Some),
    }
}

/// What is packed is not kept as it is, so the disk need not have it.
fn pace(wish: &Wish) -> Pace {
    Pace::new(&wish.dir, wish.packing == Packing::Raw)
}

/// Breaks a copy off if nobody waits for it any more.
struct BreakOff(Course);

impl Drop for BreakOff {
    fn drop(&mut self) {
        self.0.break_off();
    }
}

fn begin(wish: &Wish) -> Result<(Draft, File), WriteError> {
    Draft::create(&wish.dir, &format!("{}-{}", wish.base, wish.node), PRIVATE)
}

/// What is written is made safe if it is kept, and found good.
fn finish(draft: Draft, file: &File, is_kept: bool) -> Result<(Draft, Verified), SaveError> {
    step("received", draft.path())?;
    if is_kept {
        durable::sync(file, draft.path())?;
    }
    step("synced", draft.path())?;
    let verified = verify::verify(draft.path(), Demands::default(), &mut |_, _| {}).map_err(SaveError::Bad)?;
    step("verified", draft.path())?;
    Ok((draft, verified))
}

/// A named step: where tests inject faults.
pub(super) fn step(name: &'static str, path: &Path) -> Result<(), SaveError> {
    faults::point(&format!("snapshot::{name}")).on("save", path)?;
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SaveError> + Send + 'static,
) -> Result<T, SaveError> {
    aside(work).await.unwrap_or(Err(SaveError::Lost))
}

/// Gives the draft its name: that of the second in which it was begun, or of the next one that nobody has.
fn publish(wish: &Wish, draft: Draft, begun: SystemTime) -> Result<PathBuf, SaveError> {
    step("named", draft.path())?;
    let mut second = clock::unix_seconds(begun);
    let mut draft = draft;
    loop {
        let is_taken = [Packing::Raw, Packing::Zstd, Packing::Zip]
            .iter()
            .any(|packing| wish.dir.join(name::compose(&wish.base, &wish.node, second, *packing)).exists());
        if !is_taken {
            let path = wish.dir.join(name::compose(&wish.base, &wish.node, second, wish.packing));
            match draft.publish(&path)? {
                None => return Ok(path),
                Some(again) => draft = again,
            }
        }
        second += 1;
    }
}

fn describe(
    wish: &Wish,
    source: &Source,
    verified: &Verified,
    path: &Path,
    begun: SystemTime,
) -> Result<Manifest, SaveError> {
    let found =
        std::fs::metadata(path).map_err(|source| WriteError { act: "look at", path: path.to_path_buf(), source })?;
    let inspection = &verified.inspection;
    Ok(Manifest {
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
        etcd_version: source.version.clone(),
        sha256: verified.sha256.clone(),
        hash_kv: inspection.hash_kv,
        compression: verified.packing.word().into(),
        reason: wish.reason.into(),
        labels: wish.labels.clone(),
        member_id: source.member_id.clone(),
        cluster_id: source.cluster_id.clone(),
        alarms: source.alarms.clone(),
        verification: Some(Verification {
            status: "good".into(),
            at: clock::rfc3339(clock::now()),
            size: found.len(),
            modified: manifest::modified(&found),
            finding: None,
        }),
        held: false,
    })
}
