//! Whatever bytes a log or a raft snapshot has, reading it ends and does not panic, and what is put behind a log's end is found again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::boltdb::raft_snapshot;
use quorate::boltdb::wal::{self, End, HardState};

fuzz_target!(|bytes: &[u8]| {
    let _ = wal::read(bytes);
    let _ = raft_snapshot::decode(bytes);
    if let Ok(end) = End::read(bytes) {
        let at = usize::try_from(end.at).unwrap_or(usize::MAX);
        let state = HardState { term: 3, vote: 2, commit: 1 };
        let longer = [&bytes[..at.min(bytes.len())], &end.go_on_with(state)].concat();
        let found = End::read(longer.as_slice()).map(|end| end.state);
        assert!(matches!(found, Ok(Some(found)) if found == state), "{found:?}");
    }
});
