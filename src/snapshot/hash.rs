//! Checksums of files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::digest::Context;

const CHUNK: usize = 1 << 18;

/// Hashes the first `length` bytes. `goes_on` receives the number of hashed bytes, and returns false to stop.
pub fn feed(context: &mut Context, file: &File, length: u64, goes_on: impl Fn(u64) -> bool) -> io::Result<()> {
    let mut at = 0;
    for_each_chunk(file, length, |piece| {
        context.update(piece);
        at += piece.len() as u64;
        goes_on(at)
    })
}

/// Reads the first `length` bytes in chunks, until `take` returns false.
pub fn for_each_chunk(file: &File, length: u64, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], at)?;
        at += wanted as u64;
        if !take(&buffer[..wanted]) {
            break;
        }
    }
    Ok(())
}
