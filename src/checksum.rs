//! CRC-32C as etcd and S3 use it, and the CRC-32 of zip archives: a thin layer over the `crc-fast` crate.

use crc_fast::{CrcAlgorithm, Digest};

const CRC32C: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;
/// All checksums here have 32 bits, with inverted initial and final value.
const INVERTED: u64 = 0xffff_ffff;

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_append(0, bytes)
}

/// The CRC-32C of data with the checksum `crc` followed by `bytes`.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CRC32C, u64::from(crc) ^ INVERTED);
    digest.update(bytes);
    low_half(digest.finalize())
}

/// The CRC-32C of two concatenated parts, from the checksum of each; the second has `length` bytes.
#[must_use]
pub fn crc32c_combine(first: u32, second: u32, length: u64) -> u32 {
    low_half(crc_fast::checksum_combine(CRC32C, first.into(), second.into(), length))
}

/// The CRC-32 of `bytes`, as in zip archives.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    crc.update(bytes);
    crc.value()
}

/// An incremental CRC-32, as in zip archives.
#[derive(Debug)]
pub struct Crc32(Digest);

impl Crc32 {
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32IsoHdlc))
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    #[must_use]
    pub fn value(&self) -> u32 {
        low_half(self.0.finalize())
    }
}

impl Default for Crc32 {
    fn default() -> Self {
        Self::new()
    }
}

/// A checksum of 32 bits, which the crate returns as 64.
#[allow(clippy::cast_possible_truncation, reason = "the upper half is zero")]
fn low_half(crc: u64) -> u32 {
    crc as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    // The check values of the catalogue of CRCs (CRC-32/ISCSI and CRC-32/ISO-HDLC).
    #[test]
    fn known_checksums_come_out() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut crc = Crc32::new();
        crc.update(b"1234");
        crc.update(b"56789");
        assert_eq!(crc.value(), 0xcbf4_3926);
        assert_eq!((crc32c(b""), Crc32::new().value()), (0, 0));
    }

    #[test]
    fn parts_give_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        for at in [0, 1, 15, 16, 255, 256, 4096, 65_537, bytes.len()] {
            let (first, second) = bytes.split_at(at);
            assert_eq!(crc32c_append(crc32c(first), second), crc32c(&bytes), "{at}");
            assert_eq!(crc32c_combine(crc32c(first), crc32c(second), second.len() as u64), crc32c(&bytes), "{at}");
        }
    }
}
