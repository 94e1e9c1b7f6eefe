//! The compression of a snapshot: from the configuration, or detected by the first bytes of a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    Raw,
    /// In a zip archive, as RKE2 does.
    Zip,
    Zstd,
}

impl Compression {
    /// The one of a name, `zstd` or `zip`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Zip, Self::Zstd].into_iter().find(|compression| compression.word() == name)
    }

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "",
            Self::Zip => "zip",
            Self::Zstd => "zstd",
        }
    }

    /// The compression of a file that begins with `head`, of which four bytes are enough (RFC 8878 for zstd's, APPNOTE.TXT 4.3.7
    /// for zip's).
    #[must_use]
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Raw,
        }
    }

    /// As [`Self::detect`], of an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        let mut head = [0; 4];
        let count = file.read_at(&mut head, 0)?;
        Ok(Self::detect(&head[..count]))
    }
}
