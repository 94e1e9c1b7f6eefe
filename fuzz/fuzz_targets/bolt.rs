//! Whatever bytes a database has, reading it ends, does not panic, and takes memory in proportion to them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::boltdb::database::{Database, Length};
use quorate::snapshot::inspect;
use quorate::snapshot::usage;

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len() as u64;
    let _ = inspect::inspect(bytes, length, Length::AtLeast, &mut |_, _| std::ops::ControlFlow::Continue(()));
    let _ = usage::measure(bytes, length);
    if let Ok(database) = Database::open_newest(bytes) {
        let _ = database.last_key(b"key");
        let _ = database.any_bucket_holds(&[b"key", b"lease"]);
        let _ = database.reachable_pages();
    }
});
