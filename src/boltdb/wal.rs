//! etcd's write-ahead log (`member/wal/*.wal`), as far as it tells whether anything was ever committed.
//!
//! Format (etcd `server/storage/wal`, the same in 3.4 to 3.7): frames of a little-endian u64, a protobuf
//! `walpb.Record{1: type, 2: crc, 3: data}` and zero bytes up to a multiple of eight. The u64 holds the record's length in its
//! low 56 bits and, if there is padding, 0x80 and the number of its bytes in the highest byte. Segments are reserved
//! beforehand, so a length of zero ends the log. Record type 3 holds a `raftpb.HardState{1: term, 2: vote, 3: commit}`.

use std::io::{self, ErrorKind, Read};

use super::protobuf;

const HARD_STATE: u64 = 3;
const RECORD_TYPE: u64 = 1;
const RECORD_DATA: u64 = 3;
const HARD_STATE_COMMIT: u64 = 3;

/// Larger than any record: etcd refuses requests of more than a few MiB.
const LONGEST_RECORD: u64 = 512 << 20;

/// What a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Nothing at all. etcd never leaves that: it puts a log into place with its first records in it.
    Blank,
    /// Records, but none that says that an entry was committed.
    Uncommitted,
    /// An entry was committed.
    Committed,
}

/// Whether the segment says that an entry was committed. A raft member commits its first entry, the one that makes it a
/// member, before it can be elected and acknowledge anything. Reads no further than it must.
///
/// # Errors
/// If the segment cannot be read, or is damaged, so that it does not tell.
pub fn read(mut segment: impl Read) -> io::Result<Segment> {
    let mut so_far = Segment::Blank;
    loop {
        let Some(record) = next_record(&mut segment)? else {
            return ends_in_zeros(segment).map(|()| so_far);
        };
        so_far = Segment::Uncommitted;
        if protobuf::number(&record, RECORD_TYPE).map_err(|_| damaged())? == Some(HARD_STATE) {
            let state = protobuf::bytes(&record, RECORD_DATA).map_err(|_| damaged())?.unwrap_or_default();
            if protobuf::number(state, HARD_STATE_COMMIT).map_err(|_| damaged())?.unwrap_or(0) > 0 {
                return Ok(Segment::Committed);
            }
        }
    }
}

/// The next whole record, or `None` at the end of the log.
fn next_record(segment: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut field = [0; 8];
    match segment.read_exact(&mut field) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let field = u64::from_le_bytes(field);
    if field == 0 {
        return Ok(None);
    }
    let length = field & 0x00ff_ffff_ffff_ffff;
    let padding = if field >> 63 == 1 { (field >> 56) & 0x7 } else { 0 };
    if length > LONGEST_RECORD {
        return Err(damaged());
    }
    let mut record = Vec::new();
    segment.take(length + padding).read_to_end(&mut record)?;
    if record.len() as u64 != length + padding {
        // A write that a crash cut off: etcd drops it and goes on.
        return Ok(None);
    }
    record.truncate(usize::try_from(length).map_err(|_| damaged())?);
    Ok(Some(record))
}

/// Zeros in the middle of a log are damage, not its end.
fn ends_in_zeros(mut rest: impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(()),
            count if buffer[..count].iter().all(|byte| *byte == 0) => {}
            _ => return Err(damaged()),
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the write-ahead log is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The beginning of a log as etcdutl 3.5.30 writes it for one member: crc, metadata, snapshot, entry, state with commit 1,
    /// snapshot.
    const GOLDEN: &str = "040000000000008408041000000000001f000000000000810801109fa7c7ca0a\
        1a1508b3ff8af0eee7e781820110b1d7eddaa4ea95fb20000d00000000000083\
        080510f5e287511a04080010000000006f00000000000081080210c4bceeed0f\
        1a65080110011801225d0800100018b3ff8af0eee7e7818201224c7b22696422\
        3a393336383530363734323439303730393933392c227065657255524c73223a\
        5b22687474703a2f2f3132372e302e302e313a3235333830225d2c226e616d65\
        223a226e31227d0019000000000000870803109dabd0bc071a0f080110b3ff8a\
        f0eee7e78182011801000000000000001d00000000000083080510d087a7db0b\
        1a13080110011a0d08b3ff8af0eee7e781820128000000000000000000000000";

    fn golden() -> Vec<u8> {
        let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// Where the state record begins.
    fn state_at(log: &[u8]) -> usize {
        let frame = [0x19, 0, 0, 0, 0, 0, 0, 0x87];
        log.windows(8).position(|window| window == frame).unwrap()
    }

    #[test]
    fn a_real_log_has_a_commit_from_its_state_record_on() {
        let log = golden();
        assert_eq!(read(log.as_slice()).unwrap(), Segment::Committed);
        let before = &log[..state_at(&log)];
        assert_eq!(read(before).unwrap(), Segment::Uncommitted);
        let reserved = [before, &[0; 4096]].concat();
        assert_eq!(read(reserved.as_slice()).unwrap(), Segment::Uncommitted);
        assert_eq!(read(&log[..state_at(&log) + 12]).unwrap(), Segment::Uncommitted, "a record that was cut off");
        for blank in [&[0; 4096][..], &[]] {
            assert_eq!(read(blank).unwrap(), Segment::Blank);
        }
    }

    #[test]
    fn a_state_without_commit_is_none() {
        let mut log = golden();
        let commit = state_at(&log) + 8 + 24;
        assert_eq!(log[commit - 1..=commit], [0x18, 1]);
        log[commit] = 0;
        assert_eq!(read(log.as_slice()).unwrap(), Segment::Uncommitted);
    }

    #[test]
    fn damage_is_never_taken_for_an_empty_log() {
        let log = golden();
        // A page of zeros over the beginning, a length that cannot be.
        assert!(read([&[0; 64], &log[64..]].concat().as_slice()).is_err());
        assert!(read([0xff; 64].as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(bytes.as_slice());
        }
    }
}
