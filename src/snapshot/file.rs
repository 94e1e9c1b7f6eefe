//! Opens a snapshot in any compression: none, zip or zstd, detected by content and never by name.
//!
//! An archive contains exactly one database; RKE1's `*.rkestate` in it is ignored. Names inside an archive never become
//! paths. An archive is unpacked into an unnamed file, next to the snapshot or in the temporary directory, limited by
//! the free space and by the size in the database's meta page, whatever size the archive claims.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::boltdb::database;
use crate::boltdb::page::{HEADER, META, Meta};
use crate::compression::Compression;
use crate::durable;
use crate::error::{Code, Diagnostic};
use crate::host;
use crate::snapshot::list::{self, Listed, SnapshotStatus};
use crate::snapshot::{manifest, zip_entries};
use crate::text::format_bytes;

/// The SHA-256 of the database, at the end of a snapshot.
pub const SHA256: u64 = 32;
/// Bytes that stay free while an archive is unpacked.
const RESERVED_FREE_BYTES: u64 = 64 << 20;
/// Bytes that a database may be longer than its meta page says: etcd preallocates space in its file.
const RESERVED: u64 = 128 << 20;

/// The maximum window of a zstd frame: 128 MiB, as a power of two.
const MAX_WINDOW_LOG: u32 = 27;

/// The maximum number of entries; a zip archive of a snapshot has one or two.
const MAX_ENTRIES: u64 = 1000;

/// Why a snapshot cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("snapshot {} does not exist", .0.display())]
    NotFound(PathBuf),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is corrupt: {why}", path.display())]
    Archive { path: PathBuf, why: String },
    /// It is shorter than its meta page says: probably an unfinished copy.
    #[error("{} is truncated: it has {} of {}", path.display(), format_bytes(*has), format_bytes(*needed))]
    Truncated {
        path: PathBuf,
        has: u64,
        /// Bytes that it must have.
        needed: u64,
    },
    #[error("unpacking {} needs {}, but only {} are free in {}", path.display(), format_bytes(*needed), format_bytes(*free), dir.display())]
    Space {
        path: PathBuf,
        /// Bytes: the claimed size, or the size when the space was exhausted.
        needed: u64,
        free: u64,
        dir: PathBuf,
    },
}

impl OpenError {
    /// True if the snapshot is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Archive { .. } | Self::Truncated { .. })
    }
}

impl Diagnostic for OpenError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::SnapshotNotFound,
            Self::Read { source, .. } if source.kind() == ErrorKind::PermissionDenied => Code::PermissionDenied,
            Self::Read { .. } => Code::ReadFailed,
            Self::Archive { .. } => Code::ArchiveInvalid,
            Self::Truncated { .. } => Code::SnapshotCorrupt,
            Self::Space { .. } => Code::NoSpace,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "quorate etcd-snapshot ls shows all snapshots; anything with a / is a path".into(),
            Self::Read { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                "run this as root, or as the user that owns it".into()
            }
            Self::Read { source, .. } if source.kind() == ErrorKind::InvalidInput => "name a file".into(),
            Self::Read { .. } => "check the kernel log (dmesg) for disk errors".into(),
            Self::Archive { path, .. } | Self::Truncated { path, .. } => other_snapshot_hint(path),
            Self::Space { .. } => "free some space there, or set TMPDIR to a directory with more space".into(),
        })
    }
}

/// An open snapshot with random access.
#[derive(Debug)]
pub struct SnapshotFile {
    pub path: PathBuf,
    pub stored_size: u64,
    pub packing: Compression,
    pub database: File,
    /// Size of the database without the trailing hash, in bytes.
    pub database_size: u64,
    /// The trailing hash; a raw copy of `member/snap/db` has none.
    pub trailer: Option<[u8; 32]>,
}

/// Opens it, and unpacks it if necessary.
pub fn open(path: &Path) -> Result<SnapshotFile, OpenError> {
    let read = |source: io::Error| match source.kind() {
        ErrorKind::NotFound => OpenError::NotFound(path.to_path_buf()),
        _ => OpenError::Read { path: path.to_path_buf(), source },
    };
    // Checked before it is opened: opening a pipe would block.
    let found = fs::metadata(path).map_err(read)?;
    if !found.is_file() {
        return Err(read(io::Error::new(ErrorKind::InvalidInput, "not a regular file")));
    }
    let stored = host::open_file(path).map_err(read)?;
    let packing = Compression::of_file(&stored).map_err(read)?;
    let database = match packing {
        Compression::Raw => stored,
        Compression::Zip | Compression::Zstd => ArchiveReader::new(path)?.unpack(packing, stored)?,
    };
    let size = database.metadata().map_err(read)?.len();
    let trailer = has_trailer(size).then(|| read_trailer(&database, size)).transpose().map_err(read)?;
    let database_size = size - trailer.map_or(0, |_| SHA256);
    let needed = database::newest_meta_page(&database).ok().and_then(|head| head.length());
    if let Some(needed) = needed.filter(|needed| *needed > database_size) {
        return Err(OpenError::Truncated { path: path.to_path_buf(), has: database_size, needed });
    }
    Ok(SnapshotFile { path: path.to_path_buf(), stored_size: found.len(), packing, database, database_size, trailer })
}

/// The next step if the snapshot at `path` cannot be restored.
pub(super) fn other_snapshot_hint(path: &Path) -> String {
    let dir = path.parent().filter(|dir| dir.join(manifest::DIR).is_dir());
    let all = dir.and_then(|dir| list::list(dir).ok()).unwrap_or_default();
    let is_other = |listed: &&Listed| path.file_name() != Some(OsStr::new(&listed.name));
    let good = all.iter().rev().filter(is_other).find(|listed| listed.status == SnapshotStatus::Good);
    match (good, dir) {
        (Some(good), Some(dir)) => format!(
            "restore the newest good one: quorate server --cluster-reset --cluster-reset-restore-path={}",
            dir.join(&good.name).display()
        ),
        _ => "quorate etcd-snapshot ls shows which ones are good; restore one of them".into(),
    }
}

/// etcd's own rule: pages are multiples of 512, and the rest is the hash (etcd `etcdutl/snapshot`, `hasChecksum`).
fn has_trailer(size: u64) -> bool {
    size % 512 == SHA256
}

fn read_trailer(file: &File, size: u64) -> io::Result<[u8; 32]> {
    let mut trailer = [0; 32];
    file.read_exact_at(&mut trailer, size - SHA256)?;
    Ok(trailer)
}

/// The maximum size of a database with this beginning, in bytes.
fn most_of(begun: &[u8]) -> u64 {
    let says = Meta::read(begun, 0).ok().and_then(|meta| meta.high_water_mark.checked_mul(u64::from(meta.page_size)));
    // One without a meta page is invalid, whatever its length.
    says.unwrap_or(0).saturating_add(RESERVED)
}

struct ArchiveReader<'a> {
    path: &'a Path,
    dir: PathBuf,
    out: File,
    room: u64,
}

impl<'a> ArchiveReader<'a> {
    fn new(path: &'a Path) -> Result<Self, OpenError> {
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
        let mut failed = None;
        for dir in [parent, std::env::temp_dir()] {
            match durable::anonymous(&dir) {
                Ok(out) => {
                    let room = host::free_bytes(&dir).unwrap_or(u64::MAX).saturating_sub(RESERVED_FREE_BYTES);
                    return Ok(Self { path, dir, out, room });
                }
                Err(error) => failed = Some(error.source),
            }
        }
        let source = failed.unwrap_or_else(|| io::Error::other("no directory to unpack it in"));
        Err(OpenError::Read { path: path.to_path_buf(), source })
    }

    fn corrupt(&self, why: impl Into<String>) -> OpenError {
        OpenError::Archive { path: self.path.to_path_buf(), why: why.into() }
    }

    fn no_space(&self, needed: u64) -> OpenError {
        OpenError::Space { path: self.path.to_path_buf(), needed, free: self.room, dir: self.dir.clone() }
    }

    fn unpack(self, packing: Compression, stored: File) -> Result<File, OpenError> {
        if packing == Compression::Zip {
            let count = zip_entries::count(&stored);
            let count = count.map_err(|source| OpenError::Read { path: self.path.to_path_buf(), source })?;
            if count.is_some_and(|count| count > MAX_ENTRIES) {
                return Err(self.corrupt("the archive has too many entries for a snapshot"));
            }
            let mut archive = zip::ZipArchive::new(stored)
                .map_err(|error| self.corrupt(format!("cannot read the archive: {error}")))?;
            if count != Some(archive.len() as u64) {
                return Err(self.corrupt("the archive has two entries of the same name"));
            }
            let index = self.only_database(&mut archive)?;
            let entry =
                archive.by_index(index).map_err(|error| self.corrupt(format!("cannot read the archive: {error}")))?;
            let declared = entry.size();
            return self.copy(entry, Some(declared));
        }
        let mut decoder = zstd::stream::Decoder::new(stored).map_err(|error| self.corrupt(error.to_string()))?;
        // The limit of the zstd tools, too; the window is in memory during unpacking.
        decoder.window_log_max(MAX_WINDOW_LOG).map_err(|error| self.corrupt(error.to_string()))?;
        self.copy(decoder, None)
    }

    /// The entry that is the database.
    fn only_database(&self, archive: &mut zip::ZipArchive<File>) -> Result<usize, OpenError> {
        let mut found = Vec::new();
        let mut begins_at = u64::MAX;
        for index in 0..archive.len() {
            let entry = archive
                .by_index_raw(index)
                .map_err(|error| self.corrupt(format!("cannot read the archive: {error}")))?;
            begins_at = begins_at.min(entry.header_start());
            let is_state = entry.name_raw().ends_with(b".rkestate");
            if entry.is_file() && !is_state {
                found.push(index);
            }
        }
        match found.as_slice() {
            // A streaming reader sees that one.
            [_] if begins_at > 0 => Err(self.corrupt("the archive begins with an entry that is not in its directory")),
            [only] => Ok(*only),
            [] => Err(self.corrupt("the archive contains no database")),
            _ => Err(self.corrupt(format!(
                "the archive contains {} files, and it is unknown which is the database",
                found.len()
            ))),
        }
    }

    fn copy(mut self, mut from: impl Read, declared: Option<u64>) -> Result<File, OpenError> {
        if let Some(declared) = declared.filter(|declared| *declared > self.room) {
            return Err(self.no_space(declared));
        }
        let limit = declared.unwrap_or(self.room);
        let mut buffer = vec![0; 1 << 18];
        let (mut total, mut most) = (0u64, u64::MAX);
        let mut begun: Vec<u8> = Vec::new();
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.corrupt(format!("unpacking failed after {total} bytes: {error}"))),
            };
            if begun.len() < HEADER + META {
                begun.extend_from_slice(&buffer[..count]);
                most = most_of(&begun);
            }
            total += count as u64;
            if total > most {
                return Err(
                    self.corrupt(format!("the archive contains more than {most} bytes, the maximum for its database"))
                );
            }
            if total > limit {
                return Err(match declared {
                    Some(declared) => self.corrupt(format!("the archive declares {declared} bytes, but contains more")),
                    None => self.no_space(total),
                });
            }
            self.out.write_all(&buffer[..count]).map_err(|error| match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => self.no_space(total),
                _ => OpenError::Read { path: self.path.to_path_buf(), source: error },
            })?;
        }
        if declared.is_some_and(|declared| declared != total) {
            return Err(self.corrupt(format!("the archive is cut off after {total} bytes")));
        }
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Manifest, Verification};
    use super::*;

    /// The next step must work in an emergency: no new snapshot can be taken then.
    #[test]
    fn a_truncated_copy_is_called_so_and_the_newest_good_one_named() {
        let dir = tempfile::tempdir().unwrap();
        let seed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/bolt/etcd-3.5")).unwrap();
        let cut = dir.path().join("cut-n-1700000009");
        fs::write(&cut, &seed[..12_288]).unwrap();
        let failed = open(&cut).unwrap_err();
        assert!(failed.to_string().ends_with("is truncated: it has 12.0 KiB of 20.0 KiB"), "{failed}");
        assert!(failed.is_damage());
        assert!(failed.next_step().unwrap().starts_with("quorate etcd-snapshot ls"));
        for (name, status) in [("a-n-1700000001", "good"), ("a-n-1700000002", "good"), ("a-n-1700000003", "corrupt")] {
            fs::write(dir.path().join(name), &seed).unwrap();
            let found = fs::metadata(dir.path().join(name)).unwrap();
            let (size, modified) = (found.len(), manifest::modified(&found));
            let verification = Verification { status: status.into(), size, modified, ..Verification::default() };
            let manifest = Manifest { name: name.into(), verification: Some(verification), ..Manifest::default() };
            manifest.write(dir.path()).unwrap();
        }
        let next = open(&cut).unwrap_err().next_step().unwrap();
        let newest = dir.path().join("a-n-1700000002");
        assert!(next.ends_with(&format!("--cluster-reset-restore-path={}", newest.display())), "{next}");
    }
}
