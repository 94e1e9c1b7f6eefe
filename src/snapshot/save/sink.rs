//! The destination of a snapshot while it is written: an uncompressed file, a compressed one, or both if the first is
//! needed only for inspection.

use std::fs::File;
use std::path::PathBuf;

use crate::compression::Compression;
use crate::durable::WriteError;
use crate::snapshot::save::pack::Compressor;
use crate::snapshot::save::request::SaveRequest;
use crate::snapshot::save::space::{DiskSpaceError, SpaceCheckedWriter};

pub struct Sink {
    raw: Option<(File, SpaceCheckedWriter)>,
    request: Option<SaveRequest>,
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
        Self { raw: Some((file, pace)), request: None, packer: None, written: 0 }
    }

    /// Uses the compression of `request`, and also writes to `raw` if it must be inspected.
    pub(super) fn new(request: &SaveRequest, raw: Option<File>) -> Self {
        let raw = raw.map(|file| (file, SpaceCheckedWriter::new(&request.dir)));
        let request = (request.packing != Compression::Raw).then(|| request.clone());
        Self { raw, request, packer: None, written: 0 }
    }

    /// Call before the first byte, with the expected size.
    pub(super) fn begin(&mut self, bytes: u64) -> Result<(), DiskSpaceError> {
        if let Some((file, pace)) = &self.raw {
            pace.reserve(file, bytes)?;
        }
        if let Some(request) = &self.request {
            self.packer = Some(Compressor::begin(request, bytes)?);
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
