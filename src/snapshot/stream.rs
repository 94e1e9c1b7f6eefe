//! Verifies a snapshot that can be read only once and in order, such as one from object storage: the SHA-256 as stored,
//! the archive, and the trailing SHA-256 of etcd.
//!
//! The pages of the database are not walked: the file is intact then, and its structure was verified after the save.
//! The archive is read by hand: the `zip` crate reads sizes that follow the data, as Go writes them, only where it can
//! seek.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use aws_lc_rs::digest::{self, Context};
use flate2::bufread::DeflateDecoder;

use crate::boltdb::page::{HEADER, META, Meta};
use crate::checksum::Crc32;
use crate::compression::Compression;
use crate::snapshot::file::SHA256;
use crate::snapshot::trailer::{TrailerCheck, TrailerError};
use crate::text::format_bytes;

/// The signatures of a zip archive's parts (APPNOTE.TXT 4.3.7, 4.3.9, 4.3.12).
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";
/// Flags of an entry: encrypted, and sizes after the data.
const ENCRYPTED: u16 = 1;
const SIZES_FOLLOW: u16 = 1 << 3;

/// The facts about a streamed snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed {
    pub stored_size: u64,
    /// SHA-256 of the file as stored, hexadecimal.
    pub sha256: String,
    pub packing: Compression,
    /// Size of the database without the trailing hash, in bytes.
    pub database_size: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("reading it failed")]
    Read(#[source] io::Error),
    /// It is not what was saved.
    #[error("{0}")]
    Corrupt(String),
}

fn corrupt(what: impl Into<String>) -> StreamError {
    StreamError::Corrupt(what.into())
}

/// Hashes what is read through it, and keeps an I/O error of the source, which would look like damage to the decoders.
struct LimitedReader<R> {
    from: R,
    hash: Context,
    count: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buffer) {
            Ok(count) => {
                self.hash.update(&buffer[..count]);
                self.count += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let seen = io::Error::new(error.kind(), error.to_string());
                self.failed.get_or_insert(error);
                Err(seen)
            }
        }
    }
}

pub fn verify(from: impl Read) -> Result<Streamed, StreamError> {
    let tap = LimitedReader { from, hash: Context::new(&digest::SHA256), count: 0, failed: None };
    let mut stored = BufReader::with_capacity(1 << 18, tap);
    let checked = check(&mut stored);
    let drained = checked.and_then(|checked| {
        io::copy(&mut stored, &mut io::sink()).map_err(StreamError::Read)?;
        Ok(checked)
    });
    let tap = stored.into_inner();
    if let Some(error) = tap.failed {
        return Err(StreamError::Read(error));
    }
    let (packing, database_size) = drained?;
    Ok(Streamed { stored_size: tap.count, sha256: hex::encode(tap.hash.finish().as_ref()), packing, database_size })
}

fn check(stored: &mut impl BufRead) -> Result<(Compression, u64), StreamError> {
    let begun = stored.fill_buf().map_err(StreamError::Read)?;
    let compression = Compression::detect(begun);
    let database_size = match compression {
        Compression::Zip => zip(stored)?,
        Compression::Zstd => {
            let decoder = zstd::stream::Decoder::with_buffer(stored).map_err(StreamError::Read)?;
            database(decoder)?.0
        }
        Compression::Raw => database(stored)?.0,
    };
    Ok((compression, database_size))
}

/// Checks the trailing hash of a database. Returns its size, and the CRC-32 of the whole.
fn database(mut from: impl Read) -> Result<(u64, u32), StreamError> {
    let mut check = TrailerCheck::new();
    let mut crc = Crc32::new();
    let mut buffer = vec![0; 1 << 18];
    let mut begun = Vec::with_capacity(HEADER + META);
    loop {
        let total = check.total();
        let bytes = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(corrupt(format!("unpacking failed after {total} bytes: {error}"))),
        };
        crc.update(bytes);
        begun.extend(bytes.iter().take(HEADER + META - begun.len()));
        check.update(bytes);
    }
    let total = check.total();
    let needed = Meta::read(&begun, 0).ok().and_then(|head| head.length());
    if let Some(needed) = needed.filter(|needed| *needed > total) {
        return Err(corrupt(format!("truncated: it has {} of {}", format_bytes(total), format_bytes(needed))));
    }
    match check.finish() {
        Ok(_) => Ok((total - SHA256, crc.value())),
        Err(TrailerError::Missing) => Err(corrupt(format!(
            "the database in it has {total} bytes and no trailing SHA-256, so it cannot be verified"
        ))),
        Err(TrailerError::Mismatch) => Err(corrupt("the trailing SHA-256 does not match the database")),
    }
}

/// The entry that is the database; RKE1's `*.rkestate` is skipped.
fn zip(stored: &mut impl BufRead) -> Result<u64, StreamError> {
    let mut found = None;
    while let Some(entry) = ZipEntry::read(stored)? {
        let is_state = entry.name.ends_with(b".rkestate") || entry.name.ends_with(b"/");
        let crc = if is_state {
            entry.content(stored, passed_over)?
        } else if found.is_some() {
            return Err(corrupt("the archive contains several files, and it is unknown which is the database"));
        } else {
            let (size, crc) = entry.content(stored, |content| database(content))?;
            found = Some(size);
            crc
        };
        entry.end(stored, crc)?;
    }
    found.ok_or_else(|| corrupt("the archive contains no database"))
}

/// Reads a skipped entry to its end, for its CRC-32.
fn passed_over(content: &mut dyn Read) -> Result<u32, StreamError> {
    let mut crc = Crc32::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer).map_err(|error| corrupt(format!("cannot read the archive: {error}")))? {
            0 => return Ok(crc.value()),
            count => crc.update(&buffer[..count]),
        }
    }
}

struct ZipEntry {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    size: u64,
}

impl ZipEntry {
    /// The next local header; `None` where the archive directory begins.
    fn read(stored: &mut impl BufRead) -> Result<Option<Self>, StreamError> {
        let mut header = [0; 30];
        let cut_off = |error: io::Error| corrupt(format!("the archive is cut off: {error}"));
        stored.read_exact(&mut header[..4]).map_err(cut_off)?;
        if header[..4] != LOCAL {
            return Ok(None);
        }
        stored.read_exact(&mut header[4..]).map_err(cut_off)?;
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let long = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut name = vec![0; usize::from(short(26))];
        stored.read_exact(&mut name).map_err(cut_off)?;
        let mut extra = vec![0; usize::from(short(28))];
        stored.read_exact(&mut extra).map_err(cut_off)?;
        let entry = Self {
            name,
            flags: short(6),
            method: short(8),
            crc: long(14),
            size: large_size(&extra, long(18), long(22)),
        };
        if entry.flags & ENCRYPTED != 0 {
            return Err(corrupt("the archive is encrypted"));
        }
        Ok(Some(entry))
    }

    fn content<T>(
        &self,
        stored: &mut impl BufRead,
        read: impl FnOnce(&mut dyn Read) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        match self.method {
            8 => read(&mut DeflateDecoder::new(stored)),
            0 if self.flags & SIZES_FOLLOW == 0 => read(&mut stored.take(self.size)),
            0 => Err(corrupt("the archive does not contain the size of a stored entry")),
            other => Err(corrupt(format!("the archive uses the unsupported compression method {other}"))),
        }
    }

    /// Skips the data descriptor, and compares the CRC-32.
    fn end(&self, stored: &mut impl BufRead, crc: u32) -> Result<(), StreamError> {
        let mut expected = self.crc;
        if self.flags & SIZES_FOLLOW != 0 {
            let cut_off = |error: io::Error| corrupt(format!("the archive is cut off: {error}"));
            let mut word = [0; 4];
            stored.read_exact(&mut word).map_err(cut_off)?;
            if word == DESCRIPTOR {
                stored.read_exact(&mut word).map_err(cut_off)?;
            }
            expected = u32::from_le_bytes(word);
            // Two sizes of 4 or 8 bytes each: the next part begins with `PK` after one or the other.
            let mut sizes = [0; 8];
            stored.read_exact(&mut sizes).map_err(cut_off)?;
            let next = stored.fill_buf().map_err(StreamError::Read)?;
            if !next.starts_with(b"PK") {
                stored.read_exact(&mut sizes).map_err(cut_off)?;
            }
        }
        if expected == crc {
            return Ok(());
        }
        Err(corrupt("the CRC-32 in the archive does not match its content"))
    }
}

/// The compressed size, which is in the extra field of a large archive (APPNOTE.TXT 4.5.3).
fn large_size(mut extra: &[u8], packed: u32, unpacked: u32) -> u64 {
    if packed != u32::MAX {
        return u64::from(packed);
    }
    while let [id_low, id_high, length_low, length_high, rest @ ..] = extra {
        let length = usize::from(u16::from_le_bytes([*length_low, *length_high]));
        let Some(field) = rest.get(..length) else { break };
        if u16::from_le_bytes([*id_low, *id_high]) == 1 {
            let at = if unpacked == u32::MAX { 8 } else { 0 };
            if let Some(bytes) = field.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()) {
                return u64::from_le_bytes(bytes);
            }
        }
        extra = &rest[length..];
    }
    u64::from(packed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// The format of etcd: pages, and their SHA-256.
    fn snapshot(pages: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..pages * 4096).map(|at| (at / 7 % 251).to_le_bytes()[0]).collect();
        let hash = digest::digest(&digest::SHA256, &bytes);
        bytes.extend(hash.as_ref());
        bytes
    }

    fn zipped(content: &[u8], method: zip::CompressionMethod) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        archive.start_file("db", options).unwrap();
        archive.write_all(content).unwrap();
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn each_packing_is_read_to_its_end() {
        let raw = snapshot(100);
        for (stored, packing) in [
            (raw.clone(), Compression::Raw),
            (zstd::encode_all(&raw[..], 1).unwrap(), Compression::Zstd),
            (zipped(&raw, zip::CompressionMethod::Deflated), Compression::Zip),
            (zipped(&raw, zip::CompressionMethod::Stored), Compression::Zip),
        ] {
            let found = verify(&stored[..]).unwrap();
            let sha256 = hex::encode(digest::digest(&digest::SHA256, &stored).as_ref());
            let expected = Streamed { stored_size: stored.len() as u64, sha256, packing, database_size: 409_600 };
            assert_eq!(found, expected);
            // Cut off or changed anywhere, it is not good.
            for at in [stored.len() / 3, stored.len() / 2, stored.len() * 2 / 3] {
                assert!(verify(&stored[..at]).is_err(), "{packing:?} cut off at {at}");
                let mut changed = stored.clone();
                changed[at] ^= 0x10;
                assert!(verify(&changed[..]).is_err(), "{packing:?} changed at {at}");
            }
        }
        assert!(
            matches!(verify(&raw[..raw.len() - 32]), Err(StreamError::Corrupt(why)) if why.contains("no trailing SHA-256"))
        );
        assert!(verify(&b""[..]).is_err());
    }

    #[test]
    fn an_interrupted_download_is_not_damage() {
        struct Breaks(u64);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 3 {
                    return Err(io::Error::other("gone"));
                }
                buffer.fill(1);
                Ok(buffer.len())
            }
        }
        assert!(matches!(verify(Breaks(0)), Err(StreamError::Read(_))));
    }
}
