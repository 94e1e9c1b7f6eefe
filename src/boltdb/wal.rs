//! etcd's write-ahead log (`member/wal/*.wal`): reading its commit index, creating and extending it.
//!
//! Format (etcd `server/storage/wal`, the same in 3.4 to 3.7): frames of a little-endian u64, a protobuf
//! `walpb.Record{1: type, 2: crc, 3: data}` and zero bytes up to a multiple of eight. The u64 holds the record's length
//! in its low 56 bits and, if there is padding, 0x80 and the number of its bytes in the highest byte. Segments are
//! preallocated, so a length of zero ends the log. The crc is a running CRC-32C of the data of all records; a record of
//! type 4 begins each segment with the CRC of the previous segment. Types: 1 metadata `{1: member, 2: cluster}`, 2
//! `raftpb.Entry{1: type, 2: term, 3: index, 4: data}`, 3 `raftpb.HardState{1: term, 2: vote, 3: commit}`, 5
//! `walpb.Snapshot{1: index, 2: term, 3: ConfState}`. A segment's name is its number and the index of its first entry,
//! both in 16 hexadecimal digits.

use std::io::{self, ErrorKind, Read};

use crate::boltdb::membership::Membership;
use crate::boltdb::protobuf::{self, Message};
use crate::boltdb::raft_snapshot::{TERM, conf_state};
use crate::checksum::crc32c_append;

const METADATA: u64 = 1;
const ENTRY: u64 = 2;
const HARD_STATE: u64 = 3;
const CRC: u64 = 4;
const SNAPSHOT: u64 = 5;

const RECORD_TYPE: u64 = 1;
const RECORD_CRC: u64 = 2;
const RECORD_DATA: u64 = 3;
const HARD_STATE_COMMIT: u64 = 3;
const ENTRY_INDEX: u64 = 3;

/// Bytes that etcd preallocates for a segment.
pub const SEGMENT_BYTES: u64 = 64_000_000;
/// The name of the first segment.
pub const FIRST_SEGMENT: &str = "0000000000000000-0000000000000000.wal";

/// Larger than any record: etcd refuses requests of more than a few MiB.
const MAX_RECORD_BYTES: u64 = 512 << 20;
/// Larger than any segment, in bytes: etcd begins another one with the first record beyond [`SEGMENT_BYTES`].
pub const MAX_SEGMENT_BYTES: u64 = SEGMENT_BYTES + MAX_RECORD_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Empty. etcd never leaves that: it renames a log into place with its first records in it.
    Blank,
    Uncommitted,
    Committed,
}

/// Whether the segment has a committed entry. A Raft member commits its first entry, which adds it to the cluster,
/// before it can be elected and acknowledge anything. Stops reading at the first commit.
///
/// # Errors
/// If the segment cannot be read or is damaged before the first commit.
pub fn segment_state(mut segment: impl Read) -> io::Result<SegmentState> {
    let mut so_far = SegmentState::Blank;
    loop {
        let Some(record) = next_record(&mut segment)? else {
            return ends_in_zeros(segment).map(|()| so_far);
        };
        so_far = SegmentState::Uncommitted;
        if protobuf::number(&record, RECORD_TYPE).map_err(|_| damaged())? == Some(HARD_STATE) {
            let state = protobuf::bytes(&record, RECORD_DATA).map_err(|_| damaged())?.unwrap_or_default();
            if protobuf::number(state, HARD_STATE_COMMIT).map_err(|_| damaged())?.unwrap_or(0) > 0 {
                return Ok(SegmentState::Committed);
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
    // Frames end at multiples of eight, where the next one begins.
    if length > MAX_RECORD_BYTES || !(length + padding).is_multiple_of(8) {
        return Err(damaged());
    }
    let mut record = Vec::new();
    segment.take(length + padding).read_to_end(&mut record)?;
    if record.len() as u64 != length + padding {
        // A write that a crash interrupted: etcd drops it and continues.
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The term that it is in.
    pub term: u64,
    /// Whom it voted for in it.
    pub vote: u64,
    /// The last entry that it knows to be committed.
    pub commit: u64,
}

impl HardState {
    fn decode(data: &[u8]) -> Result<Self, protobuf::Malformed> {
        let number = |field| protobuf::number(data, field).map(Option::unwrap_or_default);
        Ok(Self { term: number(1)?, vote: number(2)?, commit: number(HARD_STATE_COMMIT)? })
    }

    fn encode(self) -> Vec<u8> {
        Message::default().number(1, self.term).number(2, self.vote).number(HARD_STATE_COMMIT, self.commit).encoded()
    }
}

/// Frames, and the running checksum after them.
struct Writer {
    bytes: Vec<u8>,
    crc: u32,
}

impl Writer {
    fn record(&mut self, kind: u64, data: &[u8]) {
        self.crc = crc32c_append(self.crc, data);
        let record = Message::default().number(RECORD_TYPE, kind).number(RECORD_CRC, self.crc.into());
        self.frame(&record.bytes(RECORD_DATA, data).encoded());
    }

    fn frame(&mut self, record: &[u8]) {
        let padding = (8 - record.len() % 8) % 8;
        let mark = if padding == 0 { 0 } else { (0x80 | padding as u64) << 56 };
        self.bytes.extend((record.len() as u64 | mark).to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }
}

/// The beginning of the log of `member` in a new cluster of these members, as `etcdutl snapshot restore` writes it. One
/// committed entry adds each member; the Raft snapshot (`raft_snapshot`) includes them.
#[must_use]
pub fn new_log(member: u64, membership: &Membership) -> Vec<u8> {
    let mut log = Writer { bytes: Vec::new(), crc: 0 };
    log.frame(&Message::default().number(RECORD_TYPE, CRC).number(RECORD_CRC, 0).encoded());
    log.record(METADATA, &Message::default().number(1, member).number(2, membership.cluster_id).encoded());
    log.record(SNAPSHOT, &Message::default().number(1, 0).number(2, 0).encoded());
    for (index, member) in (1..).zip(&membership.members) {
        let change =
            Message::default().number(1, 0).number(2, 0).number(3, member.id).bytes(4, member.json().as_bytes());
        let entry = Message::default().number(1, 1).number(2, TERM).number(ENTRY_INDEX, index);
        log.record(ENTRY, &entry.bytes(4, &change.encoded()).encoded());
    }
    let commit = membership.count();
    let vote = membership.ids().next().unwrap_or_default();
    log.record(HARD_STATE, &HardState { term: TERM, vote, commit }.encode());
    let snapshot = Message::default().number(1, commit).number(2, TERM).bytes(3, &conf_state(membership));
    log.record(SNAPSHOT, &snapshot.encoded());
    log.bytes
}

/// The end of a log's last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalTail {
    /// Bytes up to the end of its last whole record.
    pub at: u64,
    pub state: Option<HardState>,
    /// The index of the last entry, if any.
    pub last_entry: Option<u64>,
    crc: u32,
}

impl WalTail {
    /// Reads a segment to its end. A torn record at the end is ignored, as etcd does.
    pub fn read(mut segment: impl Read) -> io::Result<Self> {
        let mut end = Self { at: 0, state: None, last_entry: None, crc: 0 };
        loop {
            let Some(record) = next_record(&mut segment)? else { return Ok(end) };
            let malformed = |_| damaged();
            let number = |field| protobuf::number(&record, field).map_err(malformed);
            let read_value = || Ok::<_, io::Error>((number(RECORD_TYPE)?, number(RECORD_CRC)?));
            let data = protobuf::bytes(&record, RECORD_DATA).map_err(malformed);
            let torn = || is_torn(end.at + 8, &record);
            let ((kind, crc), data) = match (read_value(), data) {
                (Ok(read), Ok(data)) => (read, data.unwrap_or_default()),
                _ if torn() => return Ok(end),
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            if kind == Some(CRC) {
                end.crc = crc.and_then(|crc| u32::try_from(crc).ok()).ok_or_else(damaged)?;
            } else {
                let sum = crc32c_append(end.crc, data);
                if crc != Some(sum.into()) {
                    return if torn() { Ok(end) } else { Err(damaged()) };
                }
                end.crc = sum;
            }
            match kind {
                Some(HARD_STATE) => end.state = Some(HardState::decode(data).map_err(malformed)?),
                Some(ENTRY) => end.last_entry = protobuf::number(data, ENTRY_INDEX).map_err(malformed)?,
                _ => {}
            }
            end.at += 8 + (record.len() as u64).next_multiple_of(8);
        }
    }

    /// The bytes to write at [`Self::at`] so that the log ends with this hard state.
    #[must_use]
    pub fn append_hard_state(&self, state: HardState) -> Vec<u8> {
        let mut log = Writer { bytes: Vec::new(), crc: self.crc };
        log.record(HARD_STATE, &state.encode());
        log.bytes
    }
}

/// The index of the first entry of a segment, from its name.
#[must_use]
pub fn first_index(name: &str) -> Option<u64> {
    let (_, index) = name.strip_suffix(".wal")?.split_once('-')?;
    u64::from_str_radix(index, 16).ok()
}

/// A disk writes sectors: a record with a sector of zeros is torn (etcd `wal/decoder.go`, `isTornEntry`).
fn is_torn(offset: u64, record: &[u8]) -> bool {
    const SECTOR: u64 = 512;
    let mut rest = record;
    let mut at = offset;
    while !rest.is_empty() {
        let count = usize::try_from(SECTOR - at % SECTOR).unwrap_or(512).min(rest.len());
        let (sector, others) = rest.split_at(count);
        if sector.iter().all(|byte| *byte == 0) {
            return true;
        }
        rest = others;
        at += count as u64;
    }
    false
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

    fn state_at(log: &[u8]) -> usize {
        let frame = [0x19, 0, 0, 0, 0, 0, 0, 0x87];
        log.windows(8).position(|window| window == frame).unwrap()
    }

    #[test]
    fn a_real_log_has_a_commit_from_its_state_record_on() {
        let log = golden();
        assert_eq!(segment_state(log.as_slice()).unwrap(), SegmentState::Committed);
        let before = &log[..state_at(&log)];
        assert_eq!(segment_state(before).unwrap(), SegmentState::Uncommitted);
        let reserved = [before, &[0; 4096]].concat();
        assert_eq!(segment_state(reserved.as_slice()).unwrap(), SegmentState::Uncommitted);
        assert_eq!(
            segment_state(&log[..state_at(&log) + 12]).unwrap(),
            SegmentState::Uncommitted,
            "a record that was cut off"
        );
        for blank in [&[0; 4096][..], &[]] {
            assert_eq!(segment_state(blank).unwrap(), SegmentState::Blank);
        }
    }

    #[test]
    fn a_state_without_commit_is_none() {
        let mut log = golden();
        let commit = state_at(&log) + 8 + 24;
        assert_eq!(log[commit - 1..=commit], [0x18, 1]);
        log[commit] = 0;
        assert_eq!(segment_state(log.as_slice()).unwrap(), SegmentState::Uncommitted);
    }

    #[test]
    fn the_bytes_are_those_that_etcd_writes() {
        let one = Membership::new(&[("n1".into(), vec!["http://127.0.0.1:25380".into()])], "etcd-cluster").unwrap();
        let log = new_log(one.members[0].id, &one);
        assert_eq!(log, golden()[..log.len()]);
        assert!(golden()[log.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_end_is_found_and_gone_on_with() {
        let log = new_log(
            1,
            &Membership::new(&[("a".into(), vec!["http://h:1".into()]), ("b".into(), vec!["http://h:2".into()])], "t")
                .unwrap(),
        );
        let end = WalTail::read(log.as_slice()).unwrap();
        assert_eq!((end.at, end.last_entry), (log.len() as u64, Some(2)));
        let state = HardState { commit: 9, ..end.state.unwrap() };
        let longer = [&log[..], &end.append_hard_state(state), &[0; 4096]].concat();
        let found = WalTail::read(longer.as_slice()).unwrap();
        assert_eq!(found.state, Some(state));
        assert_eq!(found.at + 4096, longer.len() as u64);
        // A torn record: its sector was not written.
        let mut torn = [&log[..], &[0; 4096]].concat();
        let large = 0x0400u64.to_le_bytes();
        torn[log.len()..log.len() + 8].copy_from_slice(&large);
        torn[log.len() + 8] = 8;
        assert_eq!(WalTail::read(torn.as_slice()).unwrap(), end);
        // A flipped bit is damage.
        let mut damaged = log.clone();
        let at = damaged.len() - 40;
        damaged[at] ^= 1;
        assert!(WalTail::read(damaged.as_slice()).is_err());
        // A frame whose end is not aligned: found by fuzzing.
        let mut crooked = log.clone();
        crooked[0] += 1;
        assert!(WalTail::read(crooked.as_slice()).is_err());
        assert_eq!(first_index("0000000000000003-000000000000abcd.wal"), Some(0xabcd));
    }

    #[test]
    fn damage_is_never_taken_for_an_empty_log() {
        let log = golden();
        // A page of zeros over the beginning, an impossible length.
        assert!(segment_state([&[0; 64], &log[64..]].concat().as_slice()).is_err());
        assert!(segment_state([0xff; 64].as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = segment_state(bytes.as_slice());
            let _ = WalTail::read(bytes.as_slice());
        }
    }
}
