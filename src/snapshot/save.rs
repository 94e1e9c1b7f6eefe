//! Takes a snapshot: from etcd's stream to a file that is whole, safe and verified, or to nothing at all.
//!
//! The stream goes to a hidden file through a bounded queue; its hash is computed on the way and compared with the one that etcd
//! sends last. The file is fsynced, verified as `verify` does, packed if that is asked for (and what was packed is unpacked and
//! compared), given its name, and described by a manifest. Whatever breaks off before the name removes the hidden file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{self, Context};
use tokio::sync::mpsc;

use super::file::{Packing, SHA256};
use super::manifest::{self, Manifest, Verification};
use super::name::{self, Base};
use super::verify::{self, Demands, Verified, VerifyError};
use crate::clock;
use crate::durable::{self, Draft, OnPath as _, PRIVATE, PRIVATE_DIR, WriteError};
use crate::error::{Exit, Explained, Failure};
use crate::etcd::client::{ClientError, EtcdClient, MemberFacts};
use crate::etcd::embedded::hex;
use crate::faults;
use crate::host;
use crate::plan::space::human;

/// etcd sends nothing for this long: it hangs.
const IDLE: Duration = Duration::from_secs(30);
/// Messages of the stream (32 KiB each) that wait for the disk.
const WAITING: usize = 32;
/// After so many bytes the disk is asked to have them, and how much is left.
const STRIDE: u64 = 32 << 20;
/// What stays free: etcd's log grows on the same disk, most likely.
const SPARE: u64 = 96 << 20;

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
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no room.
    #[error("a snapshot needs {}, and {} are free in {}", human(*needed), human(*free), dir.display())]
    Space {
        /// Bytes, with what has to stay free.
        needed: u64,
        /// Bytes.
        free: u64,
        /// Where.
        dir: PathBuf,
    },
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
            Self::Space { dir, .. } => Some(format!(
                "free some space in {0} (du -sh {0}/*), or choose another directory with --dir",
                dir.display()
            )),
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
    facts: &MemberFacts,
    mut progress: impl FnMut(u64, u64),
) -> Result<Manifest, Failure> {
    prepare_dir(&wish.dir)?;
    let expected = u64::try_from(facts.db_size).unwrap_or(0);
    check_space(&wish.dir, expected)?;
    let begun = clock::now();
    let (draft, file) = Draft::create(&wish.dir, &format!("{}-{}", wish.base, wish.node), PRIVATE)?;
    let file = receive(client, file, &wish.dir, expected, &mut progress).await?;
    let raw = blocking(move || {
        step("received", draft.path())?;
        durable::sync(&file, draft.path())?;
        step("synced", draft.path())?;
        let verified = verify::verify(draft.path(), Demands::default(), &mut |_, _| {}).map_err(SaveError::Bad)?;
        step("verified", draft.path())?;
        Ok((draft, verified))
    })
    .await?;
    let wish_here = wish.clone();
    let (draft, verified) = blocking(move || pack(&wish_here, raw)).await?;
    let wish_here = wish.clone();
    let named = blocking(move || publish(&wish_here, draft, begun)).await?;
    let described = describe(wish, facts, &verified, &named, begun).and_then(|manifest| {
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

/// A named step: where tests inject faults.
fn step(name: &'static str, path: &Path) -> Result<(), SaveError> {
    faults::point(&format!("snapshot::{name}")).on("save", path)?;
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SaveError> + Send + 'static,
) -> Result<T, SaveError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SaveError::Lost))
}

fn check_space(dir: &Path, needed: u64) -> Result<(), SaveError> {
    let needed = needed.saturating_add(SPARE);
    match host::free_bytes(dir) {
        Some(free) if free < needed => Err(SaveError::Space { needed, free, dir: dir.to_path_buf() }),
        _ => Ok(()),
    }
}

/// Writes the stream to `file` and gives it back.
async fn receive(
    client: &mut EtcdClient,
    file: File,
    dir: &Path,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<File, SaveError> {
    let broken = |after| move |source| SaveError::Stream { after, source };
    let mut stream = client.snapshot().await.map_err(broken(0))?;
    let (queue, waiting) = mpsc::channel::<Vec<u8>>(WAITING);
    let dir = dir.to_path_buf();
    let writer = tokio::task::spawn_blocking(move || write_stream(file, &dir, waiting));
    let mut received: u64 = 0;
    loop {
        let message = match tokio::time::timeout(IDLE, stream.message()).await {
            Ok(message) => message.map_err(|error| broken(received)(error.into()))?,
            Err(_) => return Err(broken(received)(ClientError::Silent)),
        };
        let Some(message) = message else { break };
        received += message.blob().len() as u64;
        progress(received, (received + message.remaining_bytes()).max(expected));
        if queue.send(message.blob().to_vec()).await.is_err() {
            // The writer has ended, and says why.
            break;
        }
    }
    drop(queue);
    writer.await.unwrap_or(Err(SaveError::Lost))
}

/// The last 32 bytes are the hash of all before.
fn write_stream(mut file: File, dir: &Path, mut waiting: mpsc::Receiver<Vec<u8>>) -> Result<File, SaveError> {
    let written = |error: io::Error, dir: &Path| {
        SaveError::Write(WriteError { act: "write a snapshot into", path: dir.to_path_buf(), source: error })
    };
    let mut context = Context::new(&digest::SHA256);
    let mut held_back: Vec<u8> = Vec::new();
    let (mut total, mut unsynced) = (0u64, 0u64);
    while let Some(bytes) = waiting.blocking_recv() {
        faults::point("snapshot::write").map_err(|error| written(error, dir))?;
        file.write_all(&bytes).map_err(|error| written(error, dir))?;
        total += bytes.len() as u64;
        unsynced += bytes.len() as u64;
        held_back.extend_from_slice(&bytes);
        let known = held_back.len().saturating_sub(32);
        context.update(&held_back[..known]);
        held_back.drain(..known);
        if unsynced >= STRIDE {
            unsynced = 0;
            file.sync_data().map_err(|error| written(error, dir))?;
            check_space(dir, 0)?;
        }
    }
    if total <= SHA256 || total % 512 != SHA256 {
        return Err(SaveError::Cut(total));
    }
    if context.finish().as_ref() != held_back.as_slice() {
        return Err(SaveError::Hash);
    }
    Ok(file)
}

/// Packs a verified draft into another one if that is wanted, and compares what comes out of it.
fn pack(wish: &Wish, (raw, verified): (Draft, Verified)) -> Result<(Draft, Verified), SaveError> {
    if wish.packing == Packing::Raw {
        return Ok((raw, verified));
    }
    let (draft, mut out) = Draft::create(&wish.dir, &format!("{}-{}-packed", wish.base, wish.node), PRIVATE)?;
    let failed = |source: io::Error| WriteError { act: "pack into", path: draft.path().to_path_buf(), source };
    let mut from = File::open(raw.path()).map_err(failed)?;
    match wish.packing {
        Packing::Raw => {}
        Packing::Zstd => {
            let mut encoder = zstd::stream::Encoder::new(&mut out, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?;
            encoder.include_checksum(true).map_err(failed)?;
            encoder.set_pledged_src_size(Some(verified.stored_size)).map_err(failed)?;
            encoder.include_contentsize(true).map_err(failed)?;
            let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
            encoder.multithread(u32::try_from(threads).unwrap_or(1)).map_err(failed)?;
            io::copy(&mut from, &mut encoder).map_err(failed)?;
            encoder.finish().map_err(failed)?;
        }
        Packing::Zip => {
            let mut archive = zip::ZipWriter::new(&mut out);
            let options =
                zip::write::SimpleFileOptions::default().large_file(verified.stored_size >= u64::from(u32::MAX));
            let inside = name::compose(&wish.base, &wish.node, clock::unix_seconds(clock::now()), Packing::Raw);
            archive.start_file(inside, options).map_err(|error| failed(io::Error::other(error)))?;
            io::copy(&mut from, &mut archive).map_err(failed)?;
            archive.finish().map_err(|error| failed(io::Error::other(error)))?;
        }
    }
    out.flush().map_err(failed)?;
    step("packed", draft.path())?;
    durable::sync(&out, draft.path())?;
    step("packed_synced", draft.path())?;
    let packed = packed_hash(draft.path(), wish.packing).map_err(SaveError::Packed)?;
    if packed.content != verified.sha256 {
        return Err(SaveError::Packed(io::Error::other("its content has another SHA-256")));
    }
    let stored_size = out.metadata().map_err(failed)?.len();
    let verified = Verified { packing: wish.packing, stored_size, sha256: packed.file, ..verified };
    Ok((draft, verified))
}

struct PackedHash {
    file: String,
    content: String,
}

fn packed_hash(path: &Path, packing: Packing) -> io::Result<PackedHash> {
    let content = match packing {
        Packing::Raw => hash_of(File::open(path)?)?,
        Packing::Zstd => hash_of(zstd::stream::Decoder::new(File::open(path)?)?)?,
        Packing::Zip => {
            let mut archive = zip::ZipArchive::new(File::open(path)?).map_err(io::Error::other)?;
            hash_of(archive.by_index(0).map_err(io::Error::other)?)?
        }
    };
    Ok(PackedHash { file: hash_of(File::open(path)?)?, content })
}

fn hash_of(mut from: impl Read) -> io::Result<String> {
    let mut context = Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            count => context.update(&buffer[..count]),
        }
    }
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
    facts: &MemberFacts,
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
        etcd_version: facts.version.clone(),
        sha256: verified.sha256.clone(),
        hash_kv: inspection.hash_kv,
        compression: verified.packing.word().into(),
        reason: wish.reason.into(),
        labels: wish.labels.clone(),
        member_id: facts.member_id.clone(),
        cluster_id: facts.cluster_id.clone(),
        alarms: facts.alarms.clone(),
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
