//! Snapshots that others have uploaded: k3s and RKE2 by their layout, RKE1 by its names, and people by hand.

use std::fs;
use std::io::Write as _;

use quorate::error::Code;

use crate::kit::s3::Store;
use crate::kit::{Etcd, Node, Timed};
use crate::s3::basic::{list, restore, save};

/// A zip as Go writes it: sizes and CRC follow the data.
fn zip_of(name: &str, content: &[u8], also: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in [(name, content)].iter().chain(also) {
        let offset = zip.len();
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(content).unwrap();
        let packed = packed.finish().unwrap();
        let crc = quorate::checksum::crc32(content);
        let (small, large) = (u32::try_from(packed.len()).unwrap(), u32::try_from(content.len()).unwrap());
        zip.extend(b"PK\x03\x04\x14\x00\x08\x00\x08\x00\x00\x00\x00\x00");
        zip.extend([0; 12]);
        zip.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        zip.extend([0; 2]);
        zip.extend(name.as_bytes());
        zip.extend(&packed);
        zip.extend(b"PK\x07\x08");
        for number in [crc, small, large] {
            zip.extend(number.to_le_bytes());
        }
        directory.extend(b"PK\x01\x02\x14\x03\x14\x00\x08\x00\x08\x00\x00\x00\x00\x00");
        for number in [crc, small, large] {
            directory.extend(number.to_le_bytes());
        }
        directory.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(u32::try_from(offset).unwrap().to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, start) = (u16::try_from(also.len() + 1).unwrap(), u32::try_from(zip.len()).unwrap());
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\x00\x00\x00\x00");
    zip.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    zip.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    zip.extend(start.to_le_bytes());
    zip.extend([0; 2]);
    zip
}

#[test]
fn those_of_k3s_rke2_and_rke1_are_listed_verified_and_restored() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let item = save(&node, &["--s3=false"]);
    let path = item["location"].as_str().unwrap().strip_prefix("file://").unwrap().to_owned();
    let raw = fs::read(&path).unwrap();
    node.stop();
    // k3s keeps what it knows about a snapshot in `.metadata/<name>`, and not in JSON of ours.
    let folder = store.path("prod/.metadata");
    fs::create_dir_all(&folder).unwrap();
    let names = ["etcd-snapshot-rke2-server-1-1700000000.zip", "2026-11-21T03:00:00Z_etcd.zip", "by-hand"];
    fs::write(folder.join(names[0]), "{\"cluster\": \"c-m-1\"}").unwrap();
    fs::write(store.path(&format!("prod/{}", names[0])), zip_of("etcd-snapshot-rke2-server-1-1700000000", &raw, &[]))
        .unwrap();
    let state: (&str, &[u8]) = ("etc/kubernetes/2026-11-21T03:00:00Z_etcd.rkestate", b"{}");
    fs::write(store.path(&format!("prod/{}", names[1])), zip_of("backup/2026-11-21T03:00:00Z_etcd", &raw, &[state]))
        .unwrap();
    fs::write(store.path(&format!("prod/{}", names[2])), &raw).unwrap();
    // Others' objects, in folders of their own.
    fs::create_dir_all(store.path("prod/deeper")).unwrap();
    fs::write(store.path("prod/deeper/x"), "x").unwrap();
    let items = list(&node, &["--s3"]);
    let mut listed: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    listed.sort_unstable();
    assert_eq!(listed, [names[1], names[2], names[0]]);
    assert!(items.iter().all(|item| item["status"] == "unverified"), "{items:?}");
    assert_eq!(items.iter().find(|item| item["name"] == names[0]).unwrap()["created"], "2023-11-14T22:13:20Z");
    for name in names {
        let ran = node.quorate(&["etcd-snapshot", "verify", "--s3", name]);
        assert!(ran.succeeds().starts_with(&format!("s3://backups/prod/{name}: ")), "{}", ran.out);
    }
    assert!(list(&node, &["--s3"]).iter().all(|item| item["status"] == "good"));
    for name in names {
        let ran = restore(&node, name, &[]);
        ran.succeeds();
        node.start_ready();
        assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]).trim(), "1");
        node.stop();
    }
    // A damaged archive is reported, and nothing is touched.
    let mut damaged = zip_of("x", &raw, &[]);
    damaged[200] ^= 1;
    fs::write(store.path("prod/damaged.zip"), &damaged).unwrap();
    node.quorate(&["etcd-snapshot", "verify", "--s3", "damaged.zip"]).fails(Code::SnapshotCorrupt, &["damaged.zip"]);
    restore(&node, "damaged.zip", &[]).fails(Code::ArchiveInvalid, &["damaged.zip"]);
    node.start_ready();
    node.stop();
}
