//! Building a data directory from any bytes ends, does not panic, and its result is good.

#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use quorate::boltdb::membership::Membership;
use quorate::version::Version;
use quorate::recovery::build::{self, DataDirSpec};
use quorate::job::JobControl;
use quorate::snapshot::file;
use quorate::snapshot::verify::{self, VerifyOptions};

fuzz_target!(|bytes: &[u8]| {
    let (Ok(mut snapshot), Ok(dir)) = (tempfile::NamedTempFile::new(), tempfile::tempdir()) else { return };
    if snapshot.write_all(bytes).is_err() {
        return;
    }
    let Ok(opened) = file::open(snapshot.path()) else { return };
    let Ok(membership) = Membership::new(&[("n".into(), vec!["http://h:1".into()])], "t") else { return };
    let target = Version::new(3, 4 + u32::from(bytes.first().copied().unwrap_or(0) % 4), 0);
    let spec = DataDirSpec { name: "n".into(), membership, target, raise: 1000, allow_empty: true };
    let out = dir.path().join("out");
    if build::build(&opened, &out, &spec, &JobControl::default(), &mut |_, _| {}).is_ok() {
        let built = verify::verify(&out.join("member/snap/db"), VerifyOptions { skip_hash: true }, &mut |_, _| std::ops::ControlFlow::Continue(()));
        assert!(built.is_ok(), "what was built is not whole: {built:?}");
    }
});
