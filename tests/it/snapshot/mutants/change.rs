//! What is changed in a database.

use std::fs;
use std::path::Path;

use quorate::boltdb::database::{Database, Length};
use quorate::boltdb::edit::{Editor, Pairs};
use quorate::boltdb::page::{Header, Kind as PageKind, Meta};

/// Chance that can be repeated (<https://prng.di.unimi.it/splitmix64.c>).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn bit(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
    }

    fn byte(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] = self.next().to_le_bytes()[0];
        }
    }
}

/// A kind of change.
pub struct Kind {
    pub name: &'static str,
    change: fn(&mut Vec<u8>, &mut Random),
}

const fn kind(name: &'static str, change: fn(&mut Vec<u8>, &mut Random)) -> Kind {
    Kind { name, change }
}

pub const KINDS: [Kind; 36] = [
    kind("a bit of a page's head", |bytes, random| page(bytes, random, |page, random| random.bit(&mut page[..16]))),
    kind("a bit of an element table", |bytes, random| table(bytes, random, Random::bit)),
    kind("a byte of an element table", |bytes, random| table(bytes, random, Random::byte)),
    kind("a bit anywhere in a page", |bytes, random| page(bytes, random, |page, random| random.bit(page))),
    kind("a byte anywhere in a page", |bytes, random| page(bytes, random, |page, random| random.byte(page))),
    kind("some bytes are zero", |bytes, random| {
        page(bytes, random, |page, random| {
            let (at, length) = (random.below(page.len()), 1 + random.below(64));
            let end = (at + length).min(page.len());
            page[at..end].fill(0);
        });
    }),
    kind("a page over another one", |bytes, random| {
        let from = random_page(bytes, random);
        let copy = bytes[from..from + PAGE].to_vec();
        page(bytes, random, |page, _| page[8..].copy_from_slice(&copy[8..]));
    }),
    kind("a bit of the root page", |bytes, random| root(bytes, random, Random::bit)),
    kind("a byte of the root page", |bytes, random| root(bytes, random, Random::byte)),
    kind("an empty root page", |bytes, random| root(bytes, random, |_, page| page[10..12].fill(0))),
    kind("a field of the heads", |bytes, random| heads(bytes, random)),
    kind("a bit of a record", |bytes, random| record(bytes, random, |_, value, random| random.bit(value))),
    kind("a byte of a record", |bytes, random| record(bytes, random, |_, value, random| random.byte(value))),
    kind("another wire type of a record", |bytes, random| {
        record(bytes, random, |_, value, random| tag(value, random, 7));
    }),
    kind("another field of a record", |bytes, random| {
        record(bytes, random, |_, value, random| tag(value, random, 0x78));
    }),
    kind("field number 0 in a record", |bytes, random| {
        record(bytes, random, |_, value, random| value.extend([random.next().to_le_bytes()[0] & 7, 0]));
    }),
    kind("an unknown field in a record", |bytes, random| {
        record(bytes, random, |_, value, random| match random.below(4) {
            0 => value.extend([0x40, 1]),
            1 => value.extend([0x42, 1, 7]),
            2 => value.extend([0x45, 1, 2, 3, 4]),
            _ => value.extend([0x43, 0x44]),
        });
    }),
    kind("a length beyond a record's end", |bytes, random| record(bytes, random, |_, value, _| value[1] = 0x7f)),
    kind("a record that is cut off", |bytes, random| {
        record(bytes, random, |_, value, random| value.truncate(random.below(value.len())));
    }),
    kind("a bit of a revision", |bytes, random| record(bytes, random, |key, _, random| random.bit(key))),
    kind("a record that is gone", |bytes, random| {
        edit(bytes, "key", |pairs| {
            let key = nth(pairs, random);
            pairs.remove(&key);
        });
    }),
    kind("a key without a name", |bytes, random| {
        record(bytes, random, |_, value, _| {
            let name = usize::from(value[1]);
            value.splice(..2 + name, []);
        });
    }),
    kind("the name of another key", |bytes, random| {
        record(bytes, random, |_, value, random| {
            let name = usize::from(value[1]);
            if name == 5 {
                value[4..7].copy_from_slice(format!("{:03}", random.below(150)).as_bytes());
            }
        });
    }),
    kind("a deletion for a value", |bytes, random| {
        record(bytes, random, |key, value, _| {
            if key.len() == 17 {
                key.push(b't');
                value.truncate(2 + usize::from(value[1]));
            }
        });
    }),
    kind("a lease", |bytes, random| small(bytes, random, "lease")),
    kind("a user", |bytes, random| small(bytes, random, "authUsers")),
    kind("a role", |bytes, random| small(bytes, random, "authRoles")),
    kind("what auth says", |bytes, random| small(bytes, random, "auth")),
    kind("a member", |bytes, random| small(bytes, random, "members")),
    kind("a removed member", |bytes, random| small(bytes, random, "members_removed")),
    kind("what the cluster says", |bytes, random| small(bytes, random, "cluster")),
    kind("what meta says", |bytes, random| small(bytes, random, "meta")),
    kind("a compaction that was scheduled", |bytes, random| mark(bytes, random, &[b"scheduledCompactRev"])),
    kind("a compaction that was finished", |bytes, random| mark(bytes, random, &[b"finishedCompactRev"])),
    kind("both compactions", |bytes, random| mark(bytes, random, &[b"scheduledCompactRev", b"finishedCompactRev"])),
    kind("no compaction", |bytes, _| {
        edit(bytes, "meta", |pairs| pairs.retain(|key, _| !key.ends_with(b"CompactRev")));
    }),
];

const PAGE: usize = 4096;

/// The changed database with its SHA-256.
pub fn sealed(kind: &Kind, database: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = database.to_vec();
    (kind.change)(&mut bytes, random);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    bytes.extend_from_slice(digest.as_ref());
    bytes
}

/// Where the pages begin that are in use and of which something is known, without the heads.
fn pages(bytes: &[u8]) -> Vec<(usize, Header)> {
    let database = Database::open(bytes, bytes.len() as u64, Length::Exact).unwrap();
    let reached = database.reachable_pages().unwrap();
    let used = (2..bytes.len() / PAGE).filter(|id| reached.is_marked(*id as u64)).map(|id| id * PAGE);
    let with_header = used.filter_map(|at| Some((at, Header::read(&bytes[at..at + PAGE])?)));
    with_header.filter(|(at, header)| header.id == (at / PAGE) as u64).collect()
}

fn random_page(bytes: &[u8], random: &mut Random) -> usize {
    let pages = pages(bytes);
    pages[random.below(pages.len())].0
}

fn page(bytes: &mut [u8], random: &mut Random, change: impl FnOnce(&mut [u8], &mut Random)) {
    let at = random_page(bytes, random);
    change(&mut bytes[at..at + PAGE], random);
}

fn table(bytes: &mut [u8], random: &mut Random, change: fn(&mut Random, &mut [u8])) {
    let pages: Vec<_> = pages(bytes)
        .into_iter()
        .filter(|(_, header)| matches!(header.kind, Some(PageKind::Leaf | PageKind::Branch)))
        .collect();
    let (at, header) = pages[random.below(pages.len())];
    change(random, &mut bytes[at + 16..at + 16 + 16 * usize::from(header.count)]);
}

fn root(bytes: &mut [u8], random: &mut Random, change: fn(&mut Random, &mut [u8])) {
    let root = Database::open_newest(&*bytes).unwrap().meta().root;
    let at = usize::try_from(root).unwrap() * PAGE;
    // What lies behind the last element is ignored.
    let used = bytes[at..at + PAGE].iter().rposition(|byte| *byte != 0).unwrap_or(16);
    change(random, &mut bytes[at..=at + used]);
}

/// A head with another field, and a right checksum.
fn heads(bytes: &mut [u8], random: &mut Random) {
    let which = random.below(3);
    let field = random.below(5);
    let bit = 1 << random.below(24);
    for id in 0..2 {
        if which == 1 - id {
            continue;
        }
        let at = id * PAGE;
        let mut meta = Meta::read(&bytes[at..at + PAGE], 0).unwrap();
        let fields =
            [&mut meta.root, &mut meta.sequence, &mut meta.freelist, &mut meta.high_water_mark, &mut meta.transaction];
        *fields.into_iter().nth(field).unwrap() ^= bit;
        bytes[at..at + PAGE].copy_from_slice(&meta.page(id as u64));
    }
}

/// Changes what a bucket holds, as a transaction does.
fn edit(bytes: &mut Vec<u8>, bucket: &str, change: impl FnOnce(&mut Pairs)) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    let open = fs::File::options().read(true).write(true).open(file.path()).unwrap();
    let mut editor = Editor::open(&open).unwrap();
    change(editor.bucket(bucket.as_bytes()).unwrap());
    editor.write(Path::new("mutant")).unwrap();
    *bytes = fs::read(file.path()).unwrap();
}

fn nth(pairs: &Pairs, random: &mut Random) -> Vec<u8> {
    pairs.keys().nth(random.below(pairs.len())).unwrap().clone()
}

fn record(bytes: &mut Vec<u8>, random: &mut Random, change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>, &mut Random)) {
    edit(bytes, "key", |pairs| {
        let mut key = nth(pairs, random);
        let mut value = pairs.remove(&key).unwrap();
        change(&mut key, &mut value, random);
        pairs.insert(key, value);
    });
}

/// Another one of these bits in the tag of a field.
fn tag(value: &mut [u8], random: &mut Random, bits: u8) {
    let mut tags = vec![0];
    let mut at = 2 + usize::from(value[1]);
    // The numbers behind the key, each of at most three bytes here, and the value.
    while at < value.len() {
        tags.push(at);
        let is_bytes = value[at] & 7 == 2;
        let length = value[at + 1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let content = if is_bytes {
            value[at + 1..at + 1 + length].iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f))
        } else {
            0
        };
        at += 1 + length + content;
    }
    let at = tags[random.below(tags.len())];
    let bit = loop {
        let bit = 1u8 << random.below(8);
        if bits & bit != 0 {
            break bit;
        }
    };
    value[at] ^= bit;
}

/// Something in a bucket where there is little: a bit or byte of its key or value, or an end of it.
fn small(bytes: &mut Vec<u8>, random: &mut Random, bucket: &str) {
    edit(bytes, bucket, |pairs| {
        if pairs.is_empty() {
            pairs.insert(vec![b'x'; 1 + random.below(9)], vec![0xff; random.below(9)]);
            return;
        }
        let mut key = nth(pairs, random);
        let mut value = pairs.remove(&key).unwrap();
        match random.below(6) {
            0 => random.bit(&mut key),
            1 => key.truncate(random.below(key.len())),
            2 => value.truncate(random.below(value.len())),
            3 => random.byte(&mut value),
            _ => random.bit(&mut value),
        }
        pairs.insert(key, value);
    });
}

fn mark(bytes: &mut Vec<u8>, random: &mut Random, names: &[&[u8]]) {
    let to = match random.below(4) {
        0 => random.next() >> random.below(60),
        1 => 1 << random.below(40),
        _ => u64::try_from(random.below(1200)).unwrap(),
    };
    edit(bytes, "meta", |pairs| {
        for name in names {
            let value = [&to.to_be_bytes()[..], b"_", &[0; 8]].concat();
            pairs.insert(name.to_vec(), value);
        }
    });
}
