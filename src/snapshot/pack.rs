//! Packs a snapshot that was found good, and makes sure that what comes out of it again is the same.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use aws_lc_rs::digest::{self, Context};

use super::file::Packing;
use super::name;
use super::save::{SaveError, Wish, step};
use super::verify::Verified;
use crate::clock;
use crate::durable::{self, Draft, PRIVATE, WriteError};
use crate::etcd::embedded::hex;

/// Packs a verified draft into another one if that is wanted, and compares what comes out of it.
pub(super) fn pack(wish: &Wish, (raw, verified): (Draft, Verified)) -> Result<(Draft, Verified), SaveError> {
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
