//! Reads a configuration file that an operator named: a regular file, or a pipe from `--config <(…)`.
//!
//! A pipe is read once, with a limit on its length and a timeout. An empty pipe is an error: the command at its other
//! end has failed, or it was read before.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, makedev};

use crate::clock;
use crate::host;

/// Maximum length of a pipe or file, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Timeout for the other end of a pipe.
const PIPE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the file or pipe holds.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)?;
    if found.file_type().is_fifo() {
        return read_pipe(path, PIPE_TIMEOUT);
    }
    // /dev/null, device 1:3 on Linux, means "no configuration".
    if found.file_type().is_char_device() && found.rdev() == makedev(1, 3) {
        return Ok(Vec::new());
    }
    host::read_small(path)
}

fn read_pipe(path: &Path, timeout: Duration) -> io::Result<Vec<u8>> {
    let deadline = clock::monotonic() + timeout;
    // Neither opening nor reading blocks: poll waits, with a timeout.
    let mut pipe =
        File::from(nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?);
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let remaining = deadline.saturating_duration_since(clock::monotonic());
        let millis = u16::try_from(remaining.as_millis()).unwrap_or(u16::MAX);
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if remaining.is_zero() || poll(&mut polled, PollTimeout::from(millis))? == 0 {
            let message = format!("the other end of this pipe did not finish within {} s", timeout.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        match pipe.read(&mut buffer) {
            Ok(0) if bytes.is_empty() => {
                let message = "the pipe is empty: it was read before, or the command at its other end failed";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > MAX_BYTES {
            return Err(io::Error::other("larger than 1 MiB"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn pipe(dir: &tempfile::TempDir) -> std::path::PathBuf {
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        path
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = pipe(&dir);
        let write = |bytes: Vec<u8>| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut file = File::options().write(true).open(path).unwrap();
                // In pieces, as a slow command does.
                bytes.chunks(70_000).try_for_each(|part| file.write_all(part)).is_ok()
            })
        };
        let writer = write(vec![b'#'; 200_000]);
        assert_eq!(read(&path).unwrap().len(), 200_000);
        assert!(writer.join().unwrap());
        let writer = write(vec![b'#'; 2 << 20]);
        assert!(read(&path).unwrap_err().to_string().contains("larger than 1 MiB"));
        assert!(!writer.join().unwrap(), "the reader has gone");
        let writer = write(Vec::new());
        assert!(read(&path).unwrap_err().to_string().contains("the pipe is empty"));
        writer.join().unwrap();
    }

    #[test]
    fn a_pipe_without_a_writer_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = read_pipe(&pipe(&dir), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        assert!(read(Path::new("/dev/zero")).is_err());
        assert!(read(dir.path()).is_err());
    }
}
