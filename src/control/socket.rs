//! Binding and connecting a Unix socket whose path may be longer than a socket address can hold (107 bytes).
//!
//! The directory is opened and the socket named through `/proc/self/fd/N`, which is always short.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use tokio::net::{UnixListener, UnixStream};

use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_FILE};
use crate::error::{Code, Diagnostic};

/// Why the socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A foreign file is in its place.
    #[error("{} exists and is not a socket of this user", .0.display())]
    Foreign(PathBuf),
    #[error("cannot serve the control API on {}", path.display())]
    Bind { path: PathBuf, source: io::Error },
}

impl Diagnostic for SocketError {
    fn code(&self) -> Code {
        match self {
            Self::Foreign(_) => Code::SocketPathTaken,
            Self::Bind { .. } => Code::ListenFailed,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Foreign(path) => Some(format!("check it (ls -l {0}), and move it away", path.display())),
            Self::Bind { .. } => None,
        }
    }
}

fn short(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(DataDir::SOCKET_NAME)
}

/// Binds the socket with mode 0600. The caller holds the lock, so an existing socket of ours is stale.
pub(super) fn bind(data: &DataDir) -> Result<UnixListener, SocketError> {
    let path = data.socket();
    let failed = |source| SocketError::Bind { path: path.clone(), source };
    match fs::symlink_metadata(&path) {
        Ok(found) if found.file_type().is_socket() && found.uid() == nix::unistd::geteuid().as_raw() => {
            durable::remove_file(&path).map_err(|error| failed(error.source))?;
        }
        Ok(_) => return Err(SocketError::Foreign(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let dir = File::open(data.server()).map_err(failed)?;
    // No other user can connect, from the beginning.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(short(&dir));
    umask(before);
    let listener = listener.map_err(failed)?;
    durable::set_mode(&path, PRIVATE_FILE).map_err(|error| failed(error.source))?;
    Ok(listener)
}

/// Connects to the socket of a running launcher.
pub(super) async fn connect(server_dir: &Path) -> io::Result<UnixStream> {
    let dir = File::open(server_dir)?;
    UnixStream::connect(short(&dir)).await
}
