//! Compresses a snapshot while it is written, and verifies that it decompresses to the same content.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{self, Context};

use crate::checksum::crc32c_append;
use crate::clock;
use crate::compression::Compression;
use crate::durable::{self, NewFile, PRIVATE_FILE, WriteError};
use crate::plan::snapshot_name::compose;
use crate::snapshot::save::error::SaveError;
use crate::snapshot::save::request::{SaveRequest, step};
use crate::snapshot::save::space::{DiskSpaceError, SpaceCheckedWriter};

/// Bytes that a zstd thread compresses at a time.
const ZSTD_JOB_BYTES: u32 = 1 << 20;

/// A compressed file that is being written.
pub(super) struct Compressor {
    draft: NewFile,
    encoder: Encoder,
    packing: Compression,
    /// Why writing stopped: the encoders only know I/O errors.
    failure: Arc<Mutex<Option<DiskSpaceError>>>,
    content: PackedContent,
}

enum Encoder {
    Zstd(Box<zstd::stream::Encoder<'static, SpaceCheckedOutput>>),
    Zip(Box<zip::ZipWriter<SpaceCheckedOutput>>),
}

/// CRC of the input or output: enough to detect errors of a disk or library, at a tenth of the cost of SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PackedContent {
    bytes: u64,
    crc: u32,
}

impl PackedContent {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc = crc32c_append(self.crc, bytes);
    }
}

pub(super) struct Compressed {
    pub(super) draft: NewFile,
    pub(super) stored_size: u64,
    pub(super) sha256: String,
}

impl Compressor {
    /// For content of this many bytes.
    pub(super) fn begin(request: &SaveRequest, bytes: u64) -> Result<Self, DiskSpaceError> {
        let (draft, file) =
            NewFile::create(&request.dir, &format!("{}-{}-packed", request.base, request.node), PRIVATE_FILE)?;
        let failure = Arc::default();
        let out =
            SpaceCheckedOutput { file, pace: SpaceCheckedWriter::new(&request.dir), failure: Arc::clone(&failure) };
        let begun = begin(request, bytes, out);
        let encoder = begun.map_err(|source| cannot_pack(draft.path(), source))?;
        Ok(Self { draft, encoder, packing: request.packing, failure, content: PackedContent::default() })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DiskSpaceError> {
        self.content.add(bytes);
        let written = match &mut self.encoder {
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::Zip(encoder) => encoder.write_all(bytes),
        };
        written.map_err(|source| why(&self.failure, self.draft.path(), source))
    }

    /// Finishes it, syncs it, and reads it back.
    pub(super) fn finish(self, request: &SaveRequest) -> Result<Compressed, SaveError> {
        let Self { draft, encoder, packing, failure, content } = self;
        let ended = match encoder {
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Zip(encoder) => encoder.finish().map_err(io::Error::other),
        };
        let out = ended.map_err(|source| why(&failure, draft.path(), source))?.file;
        step(request, "packed", draft.path())?;
        durable::sync(&out, draft.path())?;
        step(request, "packed_synced", draft.path())?;
        let (found, sha256) = read_back(draft.path(), packing).map_err(SaveError::NotReadBack)?;
        if found != content {
            return Err(SaveError::NotReadBack(io::Error::other("its content differs from the input")));
        }
        let stored_size = out.metadata().map_err(|source| cannot_pack(draft.path(), source))?.len();
        Ok(Compressed { draft, stored_size, sha256 })
    }
}

fn cannot_pack(path: &Path, source: io::Error) -> DiskSpaceError {
    WriteError { act: "compress into", path: path.to_path_buf(), source }.into()
}

fn why(failure: &Mutex<Option<DiskSpaceError>>, path: &Path, source: io::Error) -> DiskSpaceError {
    let known = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    known.unwrap_or_else(|| cannot_pack(path, source))
}

fn begin(request: &SaveRequest, bytes: u64, out: SpaceCheckedOutput) -> io::Result<Encoder> {
    if request.packing == Compression::Zip {
        let mut archive = zip::ZipWriter::new(out);
        let options = zip::write::SimpleFileOptions::default().large_file(bytes >= u64::from(u32::MAX));
        let inside = compose(&request.base, &request.node, clock::unix_seconds(clock::now()), Compression::Raw);
        archive.start_file(inside, options).map_err(io::Error::other)?;
        return Ok(Encoder::Zip(Box::new(archive)));
    }
    let mut encoder = zstd::stream::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes))?;
    encoder.include_contentsize(true)?;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
    // Each thread has one job in memory and one queued.
    encoder.set_parameter(zstd::stream::raw::CParameter::JobSize(ZSTD_JOB_BYTES))?;
    Ok(Encoder::Zstd(Box::new(encoder)))
}

struct SpaceCheckedOutput {
    file: File,
    pace: SpaceCheckedWriter,
    failure: Arc<Mutex<Option<DiskSpaceError>>>,
}

impl Write for SpaceCheckedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.pace.write(&mut self.file, bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(why) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                Err(io::Error::other("cannot write the compressed snapshot"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl io::Seek for SpaceCheckedOutput {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The decompressed CRC, and the SHA-256 of the file.
fn read_back(path: &Path, packing: Compression) -> io::Result<(PackedContent, String)> {
    let path: PathBuf = path.to_path_buf();
    std::thread::scope(|scope| {
        let hash = scope.spawn(|| -> io::Result<String> {
            let mut context = Context::new(&digest::SHA256);
            each_chunk(File::open(&path)?, |bytes| context.update(bytes))?;
            Ok(hex::encode(context.finish().as_ref()))
        });
        let mut content = PackedContent::default();
        let mut add = |bytes: &[u8]| content.add(bytes);
        match packing {
            Compression::Raw => each_chunk(File::open(&path)?, &mut add)?,
            Compression::Zstd => each_chunk(zstd::stream::Decoder::new(File::open(&path)?)?, &mut add)?,
            Compression::Zip => {
                let mut archive = zip::ZipArchive::new(File::open(&path)?).map_err(io::Error::other)?;
                each_chunk(archive.by_index(0).map_err(io::Error::other)?, &mut add)?;
            }
        }
        let hash = hash.join().map_err(|_| io::Error::other("a worker thread panicked"))??;
        Ok((content, hash))
    })
}

fn each_chunk(mut from: impl Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => each(&buffer[..count]),
        }
    }
}
