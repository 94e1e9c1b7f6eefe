//! Writes as long as there is room, and leaves room for etcd.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::durable::{self, WriteError};
use crate::error::{Code, Diagnostic, OutOfSpace};
use crate::host;

/// Bytes between two checks of the free space.
const RESERVE_STEP: u64 = 32 << 20;

/// Bytes per writeback request; at most twice as many are in flight.
const WRITEBACK: u64 = 1 << 20;

/// Bytes that stay free: etcd's log probably grows on the same disk.
const RESERVED_FREE_BYTES: u64 = 96 << 20;

#[derive(Debug, thiserror::Error)]
pub enum DiskSpaceError {
    #[error(transparent)]
    Space(#[from] OutOfSpace),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Diagnostic for DiskSpaceError {
    fn code(&self) -> Code {
        match self {
            Self::Space(error) => error.code(),
            Self::Write(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Space(error) => error.next_step(),
            Self::Write(error) => error.next_step(),
        }
    }
}

/// Whether `dir` has space for `needed` more bytes and the reserve.
pub(super) fn check_space(dir: &Path, needed: u64) -> Result<(), DiskSpaceError> {
    let needed = needed.saturating_add(RESERVED_FREE_BYTES);
    let remedy =
        format!("free some space in {0} (du -sh {0}/*), or choose another directory with --dir", dir.display());
    Ok(OutOfSpace::check("a snapshot", needed, host::free_bytes(dir), dir, remedy)?)
}

/// Writes while there is enough space.
///
/// Space is preallocated where possible, and nothing is synced before the end: otherwise etcd's fsyncs, which its
/// clients wait for, would wait for our data (this halves the 99th percentile of puts, measured on ext4). Writeback
/// runs continuously in small ranges: one final fsync of gigabytes delayed the slowest put by 0.6 s, and unbounded
/// writeback delayed every put by a full disk queue.
#[derive(Debug)]
pub struct SpaceCheckedWriter {
    dir: PathBuf,
    unchecked: u64,
    written: u64,
    handed_over: u64,
    on_its_way: std::ops::Range<u64>,
}

impl SpaceCheckedWriter {
    /// For a file in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), unchecked: 0, written: 0, handed_over: 0, on_its_way: 0..0 }
    }

    pub(super) fn reserve(&self, file: &File, bytes: u64) -> Result<(), DiskSpaceError> {
        Ok(durable::reserve(file, bytes).map_err(|error| self.explain(error))?)
    }

    fn explain(&self, source: io::Error) -> WriteError {
        WriteError { act: "write a snapshot into", path: self.dir.clone(), source }
    }

    pub(super) fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), DiskSpaceError> {
        file.write_all(bytes).map_err(|error| self.explain(error))?;
        self.unchecked += bytes.len() as u64;
        self.written += bytes.len() as u64;
        if self.written - self.handed_over >= WRITEBACK {
            let range = self.handed_over..self.written;
            durable::write_back(file, range.clone(), std::mem::replace(&mut self.on_its_way, range));
            self.handed_over = self.written;
        }
        if self.unchecked >= RESERVE_STEP {
            self.unchecked = 0;
            check_space(&self.dir, 0)?;
        }
        Ok(())
    }
}
