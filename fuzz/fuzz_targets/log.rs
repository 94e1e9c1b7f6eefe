//! Reading any bytes as a log or Raft snapshot ends and does not panic, and a hard state appended to a log is found again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::boltdb::raft_snapshot;
use quorate::boltdb::wal::{self, WalTail, HardState};

fuzz_target!(|bytes: &[u8]| {
    let _ = wal::segment_state(bytes);
    let _ = raft_snapshot::decode(bytes);
    if let Ok(end) = WalTail::read(bytes) {
        let at = usize::try_from(end.at).unwrap_or(usize::MAX);
        let state = HardState { term: 3, vote: 2, commit: 1 };
        let longer = [&bytes[..at.min(bytes.len())], &end.append_hard_state(state)].concat();
        let found = WalTail::read(longer.as_slice()).map(|end| end.state);
        assert!(matches!(found, Ok(Some(found)) if found == state), "{found:?}");
    }
});
