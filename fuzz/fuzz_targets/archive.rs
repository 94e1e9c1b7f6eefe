//! Whatever bytes a snapshot has, opening and verifying it ends, does not panic, and unpacks no more than there is room for.

#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use quorate::snapshot::verify::{self, VerifyOptions};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(bytes).is_ok() {
        let _ = verify::verify(file.path(), VerifyOptions { skip_hash: true }, &mut |_, _| std::ops::ControlFlow::Continue(()));
    }
});
