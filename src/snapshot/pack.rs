//! Packs a snapshot that was found good, and makes sure that what comes out of it again is the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use aws_lc_rs::digest::{self, Context};

use super::aside::Course;
use super::file::Packing;
use super::name;
use super::receive::Pace;
use super::save::{SaveError, Wish, step};
use super::verify::Verified;
use crate::clock;
use crate::durable::{self, Draft, PRIVATE, WriteError};
use crate::etcd::embedded::hex;

/// Bytes that a thread of zstd packs at a time.
const JOB: u32 = 1 << 20;

/// Packs a verified draft into another one if that is wanted, and compares what comes out of it.
pub(super) fn pack(wish: &Wish, (raw, verified): (Draft, Verified)) -> Result<(Draft, Verified), SaveError> {
    if wish.packing == Packing::Raw {
        return Ok((raw, verified));
    }
    let (draft, out) = Draft::create(&wish.dir, &format!("{}-{}-packed", wish.base, wish.node), PRIVATE)?;
    let failed = |source: io::Error| WriteError { act: "pack into", path: draft.path().to_path_buf(), source };
    let mut from = File::open(raw.path()).map_err(failed)?;
    let mut out = Paced { file: out, pace: Pace::new(&wish.dir), course: &wish.course, failure: None };
    let packed = pack_into(wish, &verified, &mut from, &mut out);
    if let Some(why) = out.failure.take() {
        return Err(why);
    }
    packed.map_err(failed)?;
    let out = out.file;
    step(wish, "packed", draft.path())?;
    durable::sync(&out, draft.path())?;
    step(wish, "packed_synced", draft.path())?;
    let packed = packed_hash(draft.path(), wish.packing).map_err(SaveError::Packed)?;
    if packed.content != verified.sha256 {
        return Err(SaveError::Packed(io::Error::other("its content has another SHA-256")));
    }
    let stored_size = out.metadata().map_err(failed)?.len();
    let verified = Verified { packing: wish.packing, stored_size, sha256: packed.file, ..verified };
    Ok((draft, verified))
}

fn pack_into(wish: &Wish, verified: &Verified, from: &mut File, out: &mut Paced<'_>) -> io::Result<()> {
    match wish.packing {
        Packing::Raw => {}
        Packing::Zstd => {
            let mut encoder = zstd::stream::Encoder::new(&mut *out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(verified.stored_size))?;
            encoder.include_contentsize(true)?;
            let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
            encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
            // Each thread has a job in memory and another one waiting.
            encoder.set_parameter(zstd::stream::raw::CParameter::JobSize(JOB))?;
            io::copy(from, &mut encoder)?;
            encoder.finish()?;
        }
        Packing::Zip => {
            let mut archive = zip::ZipWriter::new(&mut *out);
            let options =
                zip::write::SimpleFileOptions::default().large_file(verified.stored_size >= u64::from(u32::MAX));
            let inside = name::compose(&wish.base, &wish.node, clock::unix_seconds(clock::now()), Packing::Raw);
            archive.start_file(inside, options).map_err(io::Error::other)?;
            io::copy(from, &mut archive)?;
            archive.finish().map_err(io::Error::other)?;
        }
    }
    out.flush()
}

/// Writes in strides, as long as there is room and somebody wants it.
struct Paced<'c> {
    file: File,
    pace: Pace,
    course: &'c Course,
    /// Why no more is written: the packers know only errors of files.
    failure: Option<SaveError>,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = if self.course.is_broken_off() {
            Err(SaveError::BrokenOff)
        } else {
            self.pace.write(&mut self.file, bytes).map_err(SaveError::from)
        };
        done.map(|()| bytes.len()).map_err(|why| {
            self.failure = Some(why);
            io::Error::other("the packed snapshot cannot be written")
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl io::Seek for Paced<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
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
