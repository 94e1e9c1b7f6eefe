//! Ranges of large open files: copied, written back, reserved.

#![allow(clippy::disallowed_methods, reason = "the ban points to this module")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Copies up to `length` bytes from the same offset of another file, inside the kernel if possible: at disk speed, or
/// without copying if the file system can share blocks. Returns the number of bytes; 0 at the end of the other file.
pub fn copy_range(from: &File, to: &File, offset: u64, length: usize) -> io::Result<usize> {
    use rustix::io::Errno;
    let (mut read_at, mut write_at) = (offset, offset);
    match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
        // Across file systems, or not supported by one of them.
        Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::IO) => {
            let mut buffer = vec![0; length.min(1 << 18)];
            let count = from.read_at(&mut buffer, offset)?;
            to.write_all_at(&buffer[..count], offset).map(|()| count)
        }
        Err(Errno::INTR) => copy_range(from, to, offset, length),
        done => Ok(done?),
    }
}

/// Starts writing a range of the file to disk, and waits for a range that was started before. This bounds the data in
/// flight, so that another process's sync on the same disk does not wait long and the final sync has little left. It
/// makes nothing durable: neither metadata nor the disk cache is written (`sync_file_range(2)`). If the file system
/// does not support it, the final sync does all the work.
pub fn write_back(file: &File, begin: std::ops::Range<u64>, wait_for: std::ops::Range<u64>) {
    use std::os::fd::AsRawFd as _;
    let range = |range: std::ops::Range<u64>, flags: libc::c_uint| {
        let (Ok(from), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start)) else {
            return;
        };
        // A length of 0 would mean the rest of the file.
        if length > 0 {
            #[allow(unsafe_code, reason = "no dependency wraps this call, which takes an open descriptor and numbers")]
            // SAFETY: no pointer is passed, and the descriptor is borrowed from `file` for the duration of the call.
            let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, flags) };
        }
    };
    range(begin, libc::SYNC_FILE_RANGE_WRITE);
    range(wait_for, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
}

/// Reserves space for the first `bytes` of an open file, without making it longer. Does nothing where the file system
/// does not support it.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes) {
        // Zero bytes, not supported, or interrupted: this is only an optimisation.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(()),
        done => done.map_err(io::Error::from),
    }
}
