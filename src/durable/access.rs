//! Who may do what with a file, and whose files are trusted.

pub const PRIVATE_FILE: u32 = 0o600;

pub const PRIVATE_DIR: u32 = 0o700;

pub const EXECUTABLE: u32 = 0o755;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub mode: u32,
    /// Its group, if not the default for new files.
    pub group: Option<u32>,
}

impl From<u32> for Access {
    fn from(mode: u32) -> Self {
        Self { mode, group: None }
    }
}

/// Whether `uid` is our user or root.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == own_uid()
}

pub(super) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}
