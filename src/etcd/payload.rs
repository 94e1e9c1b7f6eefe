//! The ELF section with an etcd and an etcdctl, which `packaging/embed.sh` adds to the executable.
//!
//!
//!
//! The section is never loaded into memory: it is found through the section headers and read from the file. It begins
//! with a table of text lines and an empty line; the programs follow, each compressed with zstd, in the order of the
//! table:
//!
//! ```text
//! quorate-etcd 1 version 3.5.29 sha256 <over the names and SHA-256 of the programs> file <name> <size> <SHA-256>
//! <compressed size>
//! ```
//!
//! Only 64-bit little-endian ELF is read, which every machine type that quorate supports has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::str::FromStr;

const SECTION: &[u8] = b".quorate.etcd";
const FIRST_LINE: &str = "quorate-etcd 1";
/// The table of two programs has about 300 bytes.
const TABLE_LIMIT: u64 = 4096;
/// An executable with debug information has about 50 sections.
const SECTION_LIMIT: u16 = 1024;
const SECTION_HEADER_SIZE: u16 = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// The version of etcd, or `unknown`.
    pub(super) version: String,
    /// Identifies the payload: a directory of this name holds the unpacked programs.
    pub(super) sha256: String,
    pub(super) programs: Vec<PayloadProgram>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct PayloadProgram {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sha256: String,
    /// Offset of the compressed bytes in the file.
    pub(super) offset: u64,
    pub(super) compressed_size: u64,
}

/// Finds the payload in an ELF file; `None` if it has none.
///
/// # Errors
/// If the file cannot be read, is not such an ELF file, or its table is damaged.
pub(super) fn find(elf: &File) -> io::Result<Option<Payload>> {
    let Some((start, size)) = section(elf)? else { return Ok(None) };
    let mut text = vec![0; usize::try_from(size.min(TABLE_LIMIT)).map_err(io::Error::other)?];
    elf.read_exact_at(&mut text, start)?;
    let length = text.windows(2).position(|pair| pair == b"\n\n").ok_or_else(damaged)?;
    let table = str::from_utf8(&text[..length]).map_err(|_| damaged())?;
    let payload = parse(table, start + length as u64 + 2).ok_or_else(damaged)?;
    match payload.programs.last() {
        Some(last) if last.offset.checked_add(last.compressed_size) == start.checked_add(size) => Ok(Some(payload)),
        _ => Err(damaged()),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the etcd inside this quorate is damaged: its table is malformed")
}

/// Parses the table; the programs begin at `offset` of the file.
fn parse(table: &str, mut offset: u64) -> Option<Payload> {
    let mut lines = table.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let version = lines.next()?.strip_prefix("version ")?.to_owned();
    let sha256 = lines.next()?.strip_prefix("sha256 ").filter(|digest| is_sha256(digest))?.to_owned();
    let mut programs = Vec::new();
    for line in lines {
        let mut fields = line.strip_prefix("file ")?.split(' ');
        let program = PayloadProgram {
            name: fields.next()?.to_owned(),
            size: number(fields.next())?,
            sha256: fields.next().filter(|digest| is_sha256(digest))?.to_owned(),
            compressed_size: number(fields.next())?,
            offset,
        };
        offset = offset.checked_add(program.compressed_size)?;
        programs.push(program);
    }
    Some(Payload { version, sha256, programs })
}

fn number<T: FromStr>(field: Option<&str>) -> Option<T> {
    field?.parse().ok()
}

/// It is used in a path.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Offset and size of our section in the file. See `elf(5)`.
fn section(elf: &File) -> io::Result<Option<(u64, u64)>> {
    let mut header = [0; 64];
    elf.read_exact_at(&mut header, 0)?;
    // The magic number, 64 bits, little-endian.
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a 64-bit little-endian ELF file"));
    }
    let (table, entry_size) = (u64_at(&header, 0x28), u16_at(&header, 0x3a));
    let (count, names) = (u16_at(&header, 0x3c), u16_at(&header, 0x3e));
    if count == 0 || names >= count || count > SECTION_LIMIT || entry_size != SECTION_HEADER_SIZE {
        return Ok(None);
    }
    let mut headers = vec![0; usize::from(count) * usize::from(entry_size)];
    elf.read_exact_at(&mut headers, table)?;
    let headers: Vec<&[u8]> = headers.chunks_exact(usize::from(entry_size)).collect();
    let place = |header: &[u8]| (u64_at(header, 0x18), u64_at(header, 0x20));
    let (names_start, names_size) = place(headers[usize::from(names)]);
    for header in headers {
        let name_at = u64::from(u32_at(header, 0));
        if name_at + SECTION.len() as u64 >= names_size {
            continue;
        }
        let mut name = [0; SECTION.len() + 1];
        elf.read_exact_at(&mut name, names_start.checked_add(name_at).ok_or_else(damaged)?)?;
        if name.strip_suffix(b"\0") == Some(SECTION) {
            return Ok(Some(place(header)));
        }
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn table() -> String {
        format!(
            "{FIRST_LINE}\nversion 3.5.29\nsha256 {DIGEST}\nfile etcd 70 {DIGEST} 5\nfile etcdctl 80 {DIGEST} 7\n\n"
        )
    }

    /// An ELF file with a section of this name that holds `content`.
    fn elf(name: &[u8], content: &[u8]) -> File {
        let names = [b"\0.shstrtab\0".as_slice(), name, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"].concat();
        let content_at = 64 + names.len() as u64;
        let mut header = [0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[0x28..0x30].copy_from_slice(&(content_at + content.len() as u64).to_le_bytes());
        header[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 1, 0]);
        let section = |name: u32, at: u64, size: usize| {
            let mut section = [0; 64];
            section[..4].copy_from_slice(&name.to_le_bytes());
            section[0x18..0x20].copy_from_slice(&at.to_le_bytes());
            section[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            section
        };
        let sections = [section(0, 0, 0), section(1, 64, names.len()), section(11, content_at, content.len())].concat();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[header.as_slice(), &names, content, &sections].concat()).unwrap();
        file
    }

    fn content(table: &str) -> Vec<u8> {
        [table.as_bytes(), b"12345", b"1234567"].concat()
    }

    #[test]
    fn programs_are_found_where_they_lie() {
        let file = elf(SECTION, &content(&table()));
        let payload = find(&file).unwrap().unwrap();
        assert_eq!((payload.version.as_str(), payload.sha256.as_str()), ("3.5.29", DIGEST));
        let facts: Vec<_> = payload.programs.iter().map(|program| (program.name.as_str(), program.size)).collect();
        assert_eq!(facts, [("etcd", 70), ("etcdctl", 80)]);
        let mut bytes = [0; 7];
        file.read_exact_at(&mut bytes, payload.programs[1].offset).unwrap();
        assert_eq!(bytes, *b"1234567");
    }

    #[test]
    fn a_file_without_the_section_has_no_payload() {
        assert_eq!(find(&elf(b".quorate.etcx", b"")).unwrap(), None);
        assert_eq!(find(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap(), None);
    }

    #[test]
    fn a_damaged_table_is_an_error() {
        let good = table();
        for bad in [
            good.replace("etcd 1", "etcd 2"),
            good.replace("version", "versio"),
            good.replace(DIGEST, "../../.."),
            good.replace(" 7\n", " 8\n"),
            good.replace(" 7\n", &format!(" {}\n", u64::MAX)),
            good.replace(" 5\n", " x\n"),
            good.replace("\n\n", "\n"),
            good.split_inclusive('\n').take(3).chain(["\n"]).collect(),
            String::new(),
        ] {
            assert!(find(&elf(SECTION, &content(&bad))).is_err(), "{bad}");
        }
        assert!(find(&elf(SECTION, b"")).is_err());
    }

    #[test]
    fn other_files_are_errors() {
        for bytes in [b"".as_slice(), b"#!/bin/sh\n", &[0; 64]] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            assert!(find(&file).is_err());
        }
    }
}
