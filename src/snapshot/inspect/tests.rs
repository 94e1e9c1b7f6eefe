use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::boltdb::edit::Editor;
use crate::boltdb::keyspace::revision_key;
use crate::boltdb::protobuf::Message;
use crate::boltdb::walk::CONTINUE;

/// Databases of etcd 3.4 to 3.7, also the seeds for fuzzing.
fn seeds() -> Vec<Vec<u8>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/bolt");
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn look(bytes: &[u8]) -> Result<Inspection, ReadError> {
    inspect(bytes, bytes.len() as u64, Length::Exact, &mut |_, _| CONTINUE)
}

#[test]
fn databases_of_every_version_are_understood() {
    let found: Vec<Inspection> = seeds().iter().map(|bytes| look(bytes).unwrap()).collect();
    assert_eq!(found.len(), 4);
    for (inspection, version) in found.iter().zip(["3.4.0", "3.5.0", "3.6.0", "3.7.0"]) {
        assert_eq!(inspection.etcd_version().as_deref(), Some(version));
        assert_eq!((inspection.revision, inspection.compact_revision), (8, Some(4)), "{version}");
        assert_eq!((inspection.keys, inspection.leases, inspection.members.len()), (2, 1, 1), "{version}");
        // The same keys and values at the same revisions have the same hash in every version.
        assert_eq!(inspection.hash_kv, found[0].hash_kv, "{version}");
    }
}

/// A database that was changed with the editor.
struct Changed(File);

impl Changed {
    fn of(seed: &[u8], change: impl FnOnce(&mut Editor<'_>)) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(seed).unwrap();
        let mut editor = Editor::open(&file).unwrap();
        change(&mut editor);
        editor.write(Path::new("x")).unwrap();
        Self(file)
    }

    fn look(&self, limits: Limits) -> Result<Inspection, ReadError> {
        inspect_within(&self.0, self.0.metadata().unwrap().len(), Length::Exact, limits, &mut |_, _| CONTINUE)
    }
}

fn key_value(key: &[u8], create: i64, mod_revision: i64, version: u64) -> Vec<u8> {
    let number = |number: i64| u64::try_from(number).unwrap();
    let message = Message::default().bytes(1, key).number(2, number(create)).number(3, number(mod_revision));
    message.number(4, version).bytes(5, b"value").encoded()
}

fn deletion(main: i64) -> Vec<u8> {
    [&revision_key(main)[..], b"t"].concat()
}

/// A history from revision 2 on: key, and whether it is deleted.
fn with_history(changes: &[(u8, bool)], marks: [Option<i64>; 2]) -> Changed {
    Changed::of(&seeds()[1], |editor| {
        let records = editor.bucket(b"key").unwrap();
        records.clear();
        for (main, (key, is_deletion)) in (2..).zip(changes) {
            if *is_deletion {
                records.insert(deletion(main), Message::default().bytes(1, &[*key]).encoded());
            } else {
                records.insert(revision_key(main).to_vec(), key_value(&[*key], 2, main, 2));
            }
        }
        let meta = editor.bucket(b"meta").unwrap();
        for (name, mark) in [&b"scheduledCompactRev"[..], b"finishedCompactRev"].iter().zip(marks) {
            meta.remove(*name);
            meta.extend(mark.map(|mark| (name.to_vec(), revision_key(mark).to_vec())));
        }
    })
}

/// With each of these etcd exits, panics, or serves something else than was written.
#[test]
fn what_no_etcd_runs_on_is_not_good() {
    type Change = fn(&mut Editor<'_>);
    fn put(editor: &mut Editor<'_>, bucket: &str, key: &[u8], value: &[u8]) {
        editor.bucket(bucket.as_bytes()).unwrap().insert(key.to_vec(), value.to_vec());
    }
    fn last(editor: &mut Editor<'_>, change: impl FnOnce(&mut Vec<u8>)) {
        change(editor.bucket(b"key").unwrap().last_entry().unwrap().into_mut());
    }
    let kinds: [(&str, Change); 26] = [
        ("a record with another wire type", |editor| last(editor, |value| value[0] = 0x08)),
        ("a record with field number 0", |editor| last(editor, |value| value.extend([0, 0]))),
        ("a record with a length beyond its end", |editor| last(editor, |value| value[1] = 0x7f)),
        ("a record of another revision", |editor| put(editor, "key", &revision_key(9), &key_value(b"k", 2, 8, 1))),
        ("a record with an empty key", |editor| put(editor, "key", &revision_key(9), &key_value(b"", 9, 9, 1))),
        ("a record without anything", |editor| put(editor, "key", &revision_key(9), b"")),
        ("a revision that is missing", |editor| put(editor, "key", &revision_key(10), &key_value(b"k", 10, 10, 1))),
        ("a revision twice", |editor| {
            put(editor, "key", &deletion(8), &Message::default().bytes(1, b"k").encoded());
            put(editor, "key", &revision_key(8), &key_value(b"k", 8, 8, 1));
        }),
        ("a lease that is none", |editor| put(editor, "lease", &[0; 8], &[0xff])),
        ("a lease with a key of 7 bytes", |editor| put(editor, "lease", &[0; 7], &[0x10, 60])),
        ("a lease of another id", |editor| put(editor, "lease", &[9; 8], &[0x10, 60])),
        ("a user that is none", |editor| put(editor, "authUsers", b"u", b"u")),
        ("a user of another name", |editor| put(editor, "authUsers", b"u", &[0x0a, 1, b'v'])),
        ("a role that is none", |editor| put(editor, "authRoles", b"r", b"r")),
        ("a short revision of auth", |editor| put(editor, "auth", b"authRevision", &[1])),
        ("auth neither on nor off", |editor| put(editor, "auth", b"authEnabled", &[3])),
        ("an alarm that is none", |editor| put(editor, "alarm", &[0xff], b"")),
        ("a member that is none", |editor| put(editor, "members", b"1", b"{")),
        ("a member with an id that is none", |editor| put(editor, "members_removed", b"one", b"removed")),
        ("a version that is none", |editor| put(editor, "cluster", b"clusterVersion", b"3.5")),
        ("a downgrade that is none", |editor| put(editor, "cluster", b"downgrade", b"")),
        ("a short consistent index", |editor| put(editor, "meta", b"consistent_index", &[1])),
        ("voters that are none", |editor| put(editor, "meta", b"confState", b"[")),
        ("storage of an etcd that has no version of it", |editor| put(editor, "meta", b"storageVersion", b"3.4.0")),
        ("a compaction beyond the newest revision", |editor| {
            put(editor, "meta", b"scheduledCompactRev", &revision_key(900));
            put(editor, "meta", b"finishedCompactRev", &revision_key(900));
        }),
        ("a compaction that was finished but not scheduled", |editor| {
            put(editor, "meta", b"finishedCompactRev", &revision_key(5));
        }),
    ];
    for seed in seeds() {
        assert!(Changed::of(&seed, |_| {}).look(Limits::USUAL).is_ok());
        for (what, change) in kinds {
            let found = Changed::of(&seed, change).look(Limits::USUAL);
            assert!(matches!(found, Err(ReadError::Damaged(_))), "{what}: {found:?}");
        }
    }
}

/// The root page is empty, or a bucket has another name: etcd starts, with nothing in it.
#[test]
fn a_database_without_its_buckets_is_not_good() {
    for seed in seeds() {
        let root = usize::try_from(Database::open_newest(&seed[..]).unwrap().meta().root).unwrap() * 4096;
        let word = |at: usize| u32::from_le_bytes(seed[at..at + 4].try_into().unwrap()) as usize;
        for index in 0..schema::BUCKETS.len() {
            let at = root + 16 + 16 * index;
            let mut renamed = seed.clone();
            renamed[at + word(at + 4) + word(at + 8) - 1] ^= 1;
            let found = look(&renamed).unwrap_err().to_string();
            assert!(found.contains("is missing") || found.contains("not in order"), "{found}");
        }
        let mut without = seed.clone();
        without[root + 10..root + 12].fill(0);
        assert!(look(&without).unwrap_err().to_string().contains("is missing"));
    }
}

#[test]
fn a_finished_compaction_leaves_one_record_of_each_key() {
    let put = |key| (key, false);
    let delete = |key| (key, true);
    let history = [put(1), put(2), put(1), delete(2), put(3)];
    for (changes, marks, keys) in [
        (&history[..], [None, None], Some(2)),
        // Scheduled, and not finished yet.
        (&history, [Some(4), None], Some(2)),
        (&history, [Some(5), None], Some(2)),
        // Finished: of each key at most one record, and no deletion.
        (&history, [Some(4), Some(4)], None),
        (&[put(1), put(2), put(3), delete(2)], [Some(4), Some(4)], Some(2)),
        (&[put(1), put(3), delete(2)], [Some(4), Some(4)], Some(2)),
        (&[put(1), put(2), put(3), delete(2)], [Some(5), Some(5)], None),
        (&[put(1), put(2), delete(2), put(3)], [Some(5), Some(5)], None),
        // Beyond the newest record: its deletions were the newest.
        (&[put(1), put(2)], [Some(9), Some(9)], Some(2)),
        (&[put(1), put(2)], [Some(9), Some(3)], Some(2)),
        (&[put(1), put(1)], [Some(9), Some(2)], None),
        (&[], [Some(9), Some(9)], Some(0)),
    ] {
        let found = with_history(changes, marks).look(Limits::USUAL);
        assert_eq!(found.ok().map(|found| found.keys), keys, "{changes:?} {marks:?}");
    }
}

#[test]
fn an_empty_keyspace_is_good_and_known_to_be_empty() {
    let found = with_history(&[], [None, None]).look(Limits::USUAL).unwrap();
    assert_eq!((found.revision, found.keys, found.is_empty()), (1, 0, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The result is the same with any memory limit.
    #[test]
    fn in_as_many_walks_as_it_takes_the_same_is_found(
        changes in proptest::collection::vec((0u8..60, any::<bool>()), 0..300), at in 0i64..300,
    ) {
        let scheduled = (at > 0 && !changes.is_empty()).then(|| at.min(i64::try_from(changes.len()).unwrap() + 1));
        let all = with_history(&changes, [scheduled, None]);
        let expected = all.look(Limits::USUAL).unwrap();
        let alive = changes.iter().rev().fold(std::collections::BTreeMap::new(), |mut newest, (key, is_deleted)| {
            newest.entry(*key).or_insert(!is_deleted);
            newest
        });
        prop_assert_eq!(expected.keys, alive.values().filter(|is_alive| **is_alive).count() as u64);
        prop_assert_eq!(all.look(Limits { newest: 8, once: 4 }).unwrap(), expected);
        // The same, compacted.
        let distinct: std::collections::BTreeSet<u8> = changes.iter().map(|(key, _)| *key).collect();
        let once: Vec<(u8, bool)> = distinct.iter().map(|key| (*key, false)).collect();
        let finished = i64::try_from(once.len()).unwrap() + 1;
        let history: Vec<(u8, bool)> = once.into_iter().chain(changes).collect();
        let all = with_history(&history, [Some(finished), Some(finished)]);
        prop_assert_eq!(all.look(Limits { newest: 8, once: 4 }).unwrap(), all.look(Limits::USUAL).unwrap());
    }

    #[test]
    fn no_byte_makes_it_panic(which in 0usize..4, at in 0usize..20_480, byte: u8, cut in 0usize..20_480) {
        let mut bytes = seeds().swap_remove(which);
        bytes[at] = byte;
        let _ = look(&bytes);
        let _ = crate::snapshot::usage::measure(bytes.as_slice(), bytes.len() as u64);
        let _ = look(&bytes[..cut]);
    }
}
