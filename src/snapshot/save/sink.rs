//! Where a snapshot goes while it is made: into a file as it is, into a packed one, or into both where the first is only looked at.

use std::fs::File;
use std::path::PathBuf;

use crate::compression::Compression;
use crate::durable::WriteError;
use crate::snapshot::save::pack::Compressor;
use crate::snapshot::save::request::SaveRequest;
use crate::snapshot::save::space::{DiskSpaceError, SpaceCheckedWriter};

pub struct Sink {
    raw: Option<(File, SpaceCheckedWriter)>,
    wish: Option<SaveRequest>,
    packer: Option<Compressor>,
    written: u64,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Sink {
    #[must_use]
    pub fn raw(file: File, pace: SpaceCheckedWriter) -> Self {
        Self { raw: Some((file, pace)), wish: None, packer: None, written: 0 }
    }

    /// As `wish` wants it packed, and beside it `raw`, if it has to be looked at.
    pub(super) fn new(wish: &SaveRequest, raw: Option<File>) -> Self {
        let raw = raw.map(|file| (file, SpaceCheckedWriter::new(&wish.dir)));
        let wish = (wish.packing != Compression::Raw).then(|| wish.clone());
        Self { raw, wish, packer: None, written: 0 }
    }

    /// Before the first byte: so many will come.
    pub(super) fn begin(&mut self, bytes: u64) -> Result<(), DiskSpaceError> {
        if let Some((file, pace)) = &self.raw {
            pace.reserve(file, bytes)?;
        }
        if let Some(wish) = &self.wish {
            self.packer = Some(Compressor::begin(wish, bytes)?);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DiskSpaceError> {
        crate::faults::point("snapshot::write").map_err(|source| WriteError {
            act: "write",
            path: PathBuf::from("a snapshot"),
            source,
        })?;
        if let Some((file, pace)) = &mut self.raw {
            pace.write(file, bytes)?;
        }
        if let Some(packer) = &mut self.packer {
            packer.write(bytes)?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.raw.as_ref().map(|(file, _)| file)
    }

    pub(super) fn take_compressor(&mut self) -> Option<Compressor> {
        self.packer.take()
    }
}
