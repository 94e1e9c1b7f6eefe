//! Puts etcd and etcdctl into the executable when `QUORATE_EMBED_ETCD` names a directory that holds them.
//!
//! Writes `embedded.rs`: a table of files with their compressed bytes, sizes and SHA-256. Without the variable the
//! table is empty and `quorate` looks for an etcd elsewhere.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a build script has nobody to return an error to"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use sha2::{Digest as _, Sha256};

const PROGRAMS: [&str; 2] = ["etcd", "etcdctl"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=QUORATE_EMBED_ETCD");
    println!("cargo::rerun-if-env-changed=QUORATE_COMMIT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let embed = env::var_os("QUORATE_EMBED_ETCD").filter(|dir| !dir.is_empty()).map(PathBuf::from);

    let mut table = String::from("static FILES: &[EmbeddedFile] = &[\n");
    let mut all = Sha256::new();
    for program in embed.iter().flat_map(|_| PROGRAMS) {
        let source = embed.as_deref().unwrap_or(Path::new("")).join(program);
        println!("cargo::rerun-if-changed={}", source.display());
        let bytes = fs::read(&source)
            .unwrap_or_else(|error| panic!("QUORATE_EMBED_ETCD: cannot read {}: {error}", source.display()));
        let digest = hex(&Sha256::digest(&bytes));
        all.update(program);
        all.update(&digest);
        let compressed = out.join(format!("{program}.zst"));
        fs::write(&compressed, compress(&bytes)).expect("OUT_DIR is writable");
        let _ = writeln!(
            table,
            "    EmbeddedFile {{ name: {program:?}, size: {}, sha256: {digest:?}, zstd: include_bytes!({:?}) }},",
            bytes.len(),
            compressed.to_str().expect("OUT_DIR is UTF-8")
        );
    }
    table.push_str("];\n");
    let version = embed.as_deref().map(version_of).unwrap_or_default();
    let _ = writeln!(table, "const VERSION: &str = {version:?};");
    let _ = writeln!(table, "const SHA256: &str = {:?};", hex(&all.finalize()));
    fs::write(out.join("embedded.rs"), table).expect("OUT_DIR is writable");
}

/// What `etcd --version` says in its first line; for another machine's etcd, which does not run here, nothing.
fn version_of(dir: &Path) -> String {
    let output = std::process::Command::new(dir.join("etcd")).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("etcd Version: ")).unwrap_or("unknown").trim().to_owned()
}

/// As small as is sensible for a release, quickly otherwise.
fn compress(bytes: &[u8]) -> Vec<u8> {
    let level = if env::var("PROFILE").is_ok_and(|profile| profile == "release") { 19 } else { 3 };
    zstd::bulk::compress(bytes, level).expect("compression in memory does not fail")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
