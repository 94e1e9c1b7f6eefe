//! Snapshots that were made to take all memory or time: their claimed sizes are not trusted.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use quorate::boltdb::database::Database;
use quorate::boltdb::page::{self, Meta, Pair};

use quorate::error::Code;

use crate::kit::{Ran, Timed, executable};

/// What `docs/snapshots.md` says that a snapshot takes at most, whatever it holds.
const BOUND_KIB: usize = 320 << 10;
/// Milliseconds are right; a busy machine may need longer, and 16 TiB take for ever.
const PROMPT: Duration = Duration::from_secs(10);
const PAGE: usize = 4096;

/// Runs quorate with this much memory that it can write to.
fn bounded(args: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -d {BOUND_KIB}; exec \"$@\"")).arg("sh").arg(executable()).args(args);
    Ran::of(&command.output().unwrap())
}

fn seed() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/bolt/etcd-3.5")).unwrap()
}

/// With the SHA-256 of what is there at its end.
fn sealed(path: &Path) -> PathBuf {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let (mut at, size) = (0, file.metadata().unwrap().len());
    while at < size {
        let count = usize::try_from(size - at).unwrap().min(buffer.len());
        file.read_exact_at(&mut buffer[..count], at).unwrap();
        hash.update(&buffer[..count]);
        at += count as u64;
    }
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(hash.finish().as_ref()).unwrap();
    path.to_path_buf()
}

fn packed(path: &Path) -> PathBuf {
    let packed = path.with_extension("zst");
    zstd::stream::copy_encode(File::open(path).unwrap(), File::create(&packed).unwrap(), 1).unwrap();
    packed
}

/// Both heads, changed.
fn with_heads(bytes: &mut [u8], change: impl Fn(&mut Meta)) {
    for id in 0..2 {
        let at = id * PAGE;
        let mut meta = Meta::read(&bytes[at..at + PAGE], 0).unwrap();
        change(&mut meta);
        bytes[at..at + PAGE].copy_from_slice(&meta.page(id as u64));
    }
}

fn root(bytes: &[u8]) -> usize {
    usize::try_from(Database::open_newest(bytes).unwrap().meta().root).unwrap() * PAGE
}

#[test]
fn a_page_that_claims_terabytes_is_refused_at_once_and_hides_no_other() {
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    let snapshots = dir.path().join("server/db/snapshots");
    fs::create_dir_all(&snapshots).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = snapshots.join(name);
        fs::write(&path, bytes).unwrap();
        sealed(&path)
    };
    write("good-n-1700000000", &seed());
    let mut of_page = seed();
    let at = root(&of_page);
    of_page[at + 12..at + 16].fill(0xff);
    let mut of_both = of_page.clone();
    with_heads(&mut of_both, |meta| meta.high_water_mark = 1 << 33);
    let hostile = [write("of-page-n-1700000001", &of_page), write("of-both-n-1700000002", &of_both)];
    let data = ["--data-dir", dir.path().to_str().unwrap()];
    let begun = Instant::now();
    let listed = bounded(&[&["etcd-snapshot", "ls", "-o", "json"][..], &data].concat());
    let items: serde_json::Value = serde_json::from_str(listed.succeeds()).unwrap();
    assert_eq!(items["items"].as_array().unwrap().len(), 3, "{items}");
    for path in &hostile {
        let path = path.to_str().unwrap();
        let out = dir.path().join("out");
        let out = ["--data-dir-out", out.to_str().unwrap()];
        for args in [
            &["etcd-snapshot", "verify", path][..],
            &["etcd-snapshot", "status", path],
            &["etcd-snapshot", "get", path, "key"],
            &[&["etcd-snapshot", "restore", path][..], &out].concat(),
        ] {
            let ran = bounded(&[args, &data].concat());
            assert!(matches!(ran.error_code(), Some(Code::SnapshotCorrupt | Code::ArchiveInvalid)), "{ran:#?}");
            assert!(ran.code == Some(1) && ran.has_next_step(), "{ran:#?}");
        }
    }
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    assert!(!dir.path().join("out").exists());
}

/// A database with a bucket with this many values of this many zeros, of which the disk has none.
fn with_large_values(path: &Path, count: usize, length: usize) -> PathBuf {
    let mut bytes = seed();
    let mut buckets = Database::open_newest(&bytes[..]).unwrap().top_level().unwrap();
    let pages = (bytes.len() / PAGE) as u64;
    buckets.insert(b"zeros".to_vec(), [(pages + 1).to_le_bytes(), [0; 8]].concat());
    let pairs: Vec<Pair<'_>> = buckets.iter().map(|(key, value)| Pair { key, value, is_bucket: true }).collect();
    let mut root = page::leaf(pages, &pairs, 4096).unwrap();
    root.resize(PAGE, 0);
    let used = 16 + count * (16 + 1 + length);
    let overflow = u32::try_from(used.div_ceil(PAGE) - 1).unwrap();
    let mut leaf = [&(pages + 1).to_le_bytes()[..], &2u16.to_le_bytes()].concat();
    leaf.extend(u16::try_from(count).unwrap().to_le_bytes());
    leaf.extend(overflow.to_le_bytes());
    for index in 0..count {
        let position = 16 * (count - index) + index * (1 + length);
        for field in [0, position, 1, length] {
            leaf.extend(u32::try_from(field).unwrap().to_le_bytes());
        }
    }
    let end = pages + 2 + u64::from(overflow);
    with_heads(&mut bytes, |meta| (meta.root, meta.high_water_mark) = (pages, end));
    let file = File::create(path).unwrap();
    file.write_all_at(&[&bytes[..], &root, &leaf].concat(), 0).unwrap();
    for index in 0..count {
        let at = (pages + 1) * PAGE as u64 + (16 + 16 * count + index * (1 + length)) as u64;
        file.write_all_at(&[u8::try_from(index + 1).unwrap()], at).unwrap();
    }
    file.set_len(end * PAGE as u64).unwrap();
    sealed(path)
}

#[test]
fn a_bomb_takes_no_more_memory_than_is_said() {
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    // 540 MiB in some kilobytes, and all of it is read: what is good may be large.
    let good = with_large_values(&dir.path().join("good"), 9, 60 << 20);
    let small = packed(&good);
    assert!(fs::metadata(&small).unwrap().len() < 100 << 10);
    for path in [&good, &small] {
        let ran = bounded(&["etcd-snapshot", "verify", path.to_str().unwrap(), "--data-dir", "/nonexistent"]);
        assert!(ran.succeeds().contains(": good"), "{ran:?}");
    }
    // A page that runs over all of it and holds nothing.
    let mut begun = fs::read(&good).unwrap();
    begun.truncate(begun.len() - 32);
    let (at, pages) = (root(&begun), u32::try_from(begun.len() / PAGE).unwrap());
    let overflow = pages - 1 - u32::try_from(at / PAGE).unwrap();
    begun[at + 12..at + 16].copy_from_slice(&overflow.to_le_bytes());
    fs::write(dir.path().join("empty"), &begun).unwrap();
    drop(begun);
    let empty = packed(&sealed(&dir.path().join("empty")));
    let ran = bounded(&["etcd-snapshot", "verify", empty.to_str().unwrap(), "--data-dir", "/nonexistent"]);
    ran.fails(Code::SnapshotCorrupt, &["byte"]);
}
