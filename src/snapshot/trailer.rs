//! The SHA-256 at the end of a snapshot: etcd appends it to the database that it sends.

use aws_lc_rs::digest::{self, Context};

use crate::snapshot::file::SHA256;

/// Bytes of it.
const LENGTH: usize = 32;

/// Hashes a snapshot that comes piece by piece, and holds its last bytes back: they may be the hash of all before.
pub(super) struct TrailerCheck {
    context: Context,
    held_back: Vec<u8>,
    total: u64,
}

/// Why a snapshot does not end with the hash of its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrailerError {
    /// It ends with a whole page, or is too short.
    Missing,
    Mismatch,
}

impl TrailerCheck {
    pub(super) fn new() -> Self {
        Self { context: Context::new(&digest::SHA256), held_back: Vec::with_capacity(2 * LENGTH), total: 0 }
    }

    /// Continues with `bytes`.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (body, end) = bytes.split_at(bytes.len().saturating_sub(LENGTH));
        let surplus = (self.held_back.len() + end.len()).saturating_sub(LENGTH);
        // Where there is a body, `end` is as long as what is held back may be, so all of that is surplus.
        self.context.update(&self.held_back[..surplus]);
        self.held_back.drain(..surplus);
        self.context.update(body);
        self.held_back.extend_from_slice(end);
    }

    /// Bytes so far.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The SHA-256 of all of it, hexadecimal, if it ends with that of the database.
    pub(super) fn finish(mut self) -> Result<String, TrailerError> {
        // Pages are multiples of 512 bytes (etcd `etcdutl/snapshot`, `hasChecksum`).
        if self.total <= SHA256 || self.total % 512 != SHA256 {
            return Err(TrailerError::Missing);
        }
        if self.context.clone().finish().as_ref() != self.held_back.as_slice() {
            return Err(TrailerError::Mismatch);
        }
        self.context.update(&self.held_back);
        Ok(hex::encode(self.context.finish().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(parts: &[&[u8]]) -> Result<String, TrailerError> {
        let mut check = TrailerCheck::new();
        for part in parts {
            check.update(part);
        }
        assert_eq!(check.total(), parts.iter().map(|part| part.len() as u64).sum::<u64>());
        check.finish()
    }

    #[test]
    fn the_hash_is_found_wherever_the_stream_is_cut() {
        let database: Vec<u8> = (0..=255).cycle().take(1024).collect();
        let whole = [database.as_slice(), digest::digest(&digest::SHA256, &database).as_ref()].concat();
        let sha256 = hex::encode(digest::digest(&digest::SHA256, &whole).as_ref());
        for size in [1, 7, 31, 32, 33, 64, 500, 1024, 1056] {
            let parts: Vec<&[u8]> = whole.chunks(size).collect();
            assert_eq!(checked(&parts).as_ref(), Ok(&sha256), "{size}");
        }
        assert_eq!(checked(&[&whole[..1024]]), Err(TrailerError::Missing));
        assert_eq!(checked(&[&whole[..32]]), Err(TrailerError::Missing));
        let mut broken = whole.clone();
        broken[5] ^= 1;
        assert_eq!(checked(&[&broken]), Err(TrailerError::Mismatch));
    }
}
