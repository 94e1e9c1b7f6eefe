//! Why an operation in a directory that another user may change is refused.

use std::path::PathBuf;

use crate::durable::error::WriteError;
use crate::error::{Code, Diagnostic};
use crate::text::format_bytes;

/// More entries than any directory of etcd or quorate has.
pub(super) const MAX_ENTRIES: usize = 100_000;

/// Why an operation in an open directory failed.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    #[error(transparent)]
    System(#[from] WriteError),
    /// A link that is not followed.
    #[error("{} is a symbolic link that user {owner} can change, so quorate does not follow it", path.display())]
    Link {
        path: PathBuf,
        /// The owner of its parent directory, or of the link itself.
        owner: u32,
    },
    /// On the path of a link, a directory of one user leads to files of another user.
    #[error("{} leads out of a directory that user {owner} can change, so quorate does not go there", path.display())]
    LedAway {
        path: PathBuf,
        /// The user who could have redirected the path.
        owner: u32,
    },
    #[error("{} is a symbolic link to a target that does not exist", .0.display())]
    Dangling(PathBuf),
    /// Another type of file than expected.
    #[error("{} is a {found}, but should be a {wanted}", path.display())]
    Kind { path: PathBuf, found: &'static str, wanted: &'static str },
    /// It belongs to the wrong user.
    #[error("{} belongs to user {found}, but should belong to user {wanted}", path.display())]
    Owner { path: PathBuf, found: u32, wanted: u32 },
    /// Too many entries to look at.
    #[error("{} has more than {MAX_ENTRIES} entries", .0.display())]
    Crowded(PathBuf),
    /// Too large to be what it should be.
    #[error("{} has {}, but should have at most {}", path.display(), format_bytes(*size), format_bytes(*limit))]
    Large { path: PathBuf, size: u64, limit: u64 },
    /// A file or directory that must be there is not.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It was replaced while we worked on it.
    #[error("{} was replaced while quorate worked on it", .0.display())]
    Replaced(PathBuf),
    /// Another file system is mounted in a directory to remove.
    #[error("{} is a mount point, so it is not removed", .0.display())]
    Mounted(PathBuf),
}

impl Diagnostic for DirError {
    fn code(&self) -> Code {
        match self {
            Self::System(error) => error.code(),
            Self::Link { .. } | Self::LedAway { .. } => Code::UntrustedPath,
            Self::Owner { .. } => Code::WrongOwner,
            Self::Dangling(_) => Code::DanglingLink,
            Self::Kind { .. } | Self::Large { .. } => Code::UnexpectedFile,
            Self::Crowded(_) => Code::TooManyEntries,
            Self::Missing(_) => Code::FileMissing,
            Self::Replaced(_) => Code::FileReplaced,
            Self::Mounted(_) => Code::MountPoint,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::System(error) => return error.next_step(),
            Self::Link { path, .. } | Self::LedAway { path, .. } => format!(
                "see who created it (ls -ld {0}). If you did, remove the link and mount its target there instead: rm {0} && mkdir {0} && \
                 mount --bind TARGET {0}",
                path.display()
            ),
            Self::Dangling(path) => format!(
                "mount its target (readlink {0}), or, if there is no data there, remove the link: rm {0}",
                path.display()
            ),
            Self::Kind { path, .. } | Self::Large { path, .. } => {
                format!("see what it is (ls -ld {0}), and move it away: mv {0} /var/tmp/", path.display())
            }
            Self::Owner { path, wanted, .. } => {
                format!("see what it is (ls -ld {0}); if it belongs there: chown -h {wanted} {0}", path.display())
            }
            Self::Missing(path) => format!("see what is there: ls -la {}", path.parent().unwrap_or(path).display()),
            Self::Crowded(path) => format!("see what is in it: ls -f {} | head", path.display()),
            Self::Replaced(path) => {
                format!("find out who changes it (ls -ld {0}; fuser -v {0}), stop that, and try again", path.display())
            }
            Self::Mounted(path) => format!("umount {}", path.display()),
        })
    }
}
