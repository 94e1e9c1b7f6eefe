//! Copies of the live database: what etcd would have sent, page by page, under all that can happen to it meanwhile.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{AlarmAction, AlarmType, Compare, CompareOp, Txn, TxnOp};
use quorate::boltdb::database::{Database, Length};
use quorate::datadir::DataDir;
use quorate::etcd::client::EtcdClient;
use quorate::job::JobControl;
use quorate::snapshot::live::PinnedDatabase;
use quorate::snapshot::save::copy;
use quorate::snapshot::save::sink::Sink;
use quorate::snapshot::save::space::SpaceCheckedWriter;
use quorate::snapshot::verify::{self, Verified, VerifyOptions};

use crate::kit::{Etcd, Node, Timed, eventually};
use crate::snapshot::save::{begin, fill, list, path_of, save};

crate::matrix!(a_copy_is_what_etcd_would_have_sent);

const COPY: &str = "etcd-snapshot-copy: true\nnode-name: node\n";
/// What must not be found in a copy once it was deleted.
const SECRET: &[u8] = b"correct horse battery staple";

fn finds(path: &Path, words: &[u8]) -> bool {
    fs::read(path).unwrap().windows(words.len()).any(|window| window == words)
}

mod cases {
    use super::*;

    pub fn a_copy_is_what_etcd_would_have_sent(etcd: &Etcd) {
        let mut node = Node::new(etcd).config(COPY);
        node.start_ready();
        fill(&node, 200);
        let lease = node.etcdctl(&["lease", "grant", "1000"]);
        let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
        node.etcdctl(&["put", "leased", "x", "--lease", &lease]);
        node.etcdctl(&["user", "add", "user:secret"]);
        // Many records, so that they have pages of their own.
        for number in 0..60 {
            let value = [SECRET, &[b'y'; 3000]].concat();
            node.etcdctl(&["put", &format!("secret/{number}"), std::str::from_utf8(&value).unwrap()]);
        }
        node.etcdctl(&["del", "--prefix", "secret/"]);
        let revision = list_revision(&node);
        node.etcdctl(&["compact", "--physical=true", &revision]);
        node.etcdctl(&["put", "after", "1"]);

        let sent = node.dir.path().join("sent.db");
        // etcd 3.6 records its storage version some seconds after its start, perhaps between the two.
        let copied = eventually("a copy of the moment that etcd has sent", || {
            let _ = fs::remove_file(&sent);
            node.etcdctl(&["snapshot", "save", sent.to_str().unwrap()]);
            let copied = path_of(&save(&node, &[]));
            let status = |path: &Path| crate::snapshot::verify::status_by_etcd(path).unwrap();
            (status(&sent) == status(&copied)).then_some(copied)
        });
        assert!(!node.has_event("snapshot-streamed"), "{}", node.log());
        node.quorate(&["etcd-snapshot", "verify", "--against-live", copied.to_str().unwrap()]).succeeds();
        assert!(!finds(&copied, SECRET), "what was deleted lives on");
        node.stop();
    }
}

fn list_revision(node: &Node) -> String {
    eventually("the revision", || node.status_json()["member"]["revision"].as_i64().map(|_| ()));
    let status = node.etcdctl(&["endpoint", "status", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status[0]["Status"]["header"]["revision"].to_string()
}

#[test]
fn a_failed_copy_falls_back_to_the_stream_and_a_cancelled_copy_leaves_nothing() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config(COPY).env("FAILPOINTS", "snapshot::copy=return");
    node.start_ready();
    fill(&node, 200);
    let item = save(&node, &[]);
    assert_eq!(item["status"], "good");
    node.wait_event("snapshot-streamed", &[]);
    node.stop();
    // Slow enough to be caught in the middle: 20 ms for each MiB, and the disk.
    node.env = vec![("FAILPOINTS".into(), "snapshot::write=sleep(50)".into())];
    node.start_ready();
    let dir = node.server_dir().join("db/snapshots");
    let hidden = || fs::read_dir(&dir).unwrap().flatten().filter(|entry| entry.path().is_file()).count() > 1;
    let saving = begin(&node, &["--name=second"]);
    eventually("a snapshot to be begun", || hidden().then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(saving.id().cast_signed()), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    drop(saving.wait_with_output());
    eventually("nothing to be left of it", || (!hidden()).then_some(()));
    assert_eq!(list(&node).len(), 1);
    node.stop();
}

/// The proof that copies are what etcd has: as many as `QUORATE_SOAK_SAVES` says for each version, while keys, leases, users and
/// alarms change, history is compacted and the database defragmented. Each is compared page by page with what etcd sends of the very
/// same transaction, verified, and its HashKV compared with the live member's.
mod soak {
    use super::*;

    #[test]
    #[ignore = "many minutes: make soak"]
    fn copies_are_what_etcd_has_v3_4() {
        copies("3.4");
    }

    #[test]
    #[ignore = "many minutes: make soak"]
    fn copies_are_what_etcd_has_v3_5() {
        copies("3.5");
    }

    #[test]
    #[ignore = "many minutes: make soak"]
    fn copies_are_what_etcd_has_v3_6() {
        copies("3.6");
    }

    #[test]
    #[ignore = "many minutes: make soak"]
    fn copies_are_what_etcd_has_v3_7() {
        copies("3.7");
    }

    #[derive(Debug, Default)]
    struct Counts {
        copies: u64,
        replaced: u64,
        hashes: u64,
        writes: u64,
    }

    fn copies(minor: &'static str) {
        let Some(etcd) = Etcd::find(minor) else { return };
        let wanted: u64 = std::env::var("QUORATE_SOAK_SAVES").map_or(1000, |text| text.parse().unwrap());
        let mut node = Node::new(&etcd).config("etcd-disable-snapshots: true\netcd-auto-defrag: false\n");
        node.start_ready();
        fill(&node, 180);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let counts = runtime.block_on(run(&node, wanted));
        println!("{minor}: {counts:?}");
        assert!(counts.copies >= wanted && counts.hashes >= wanted / 3 && counts.writes > wanted, "{counts:?}");
        node.stop();
    }

    async fn run(node: &Node, wanted: u64) -> Counts {
        let data = DataDir::new(&node.data_dir);
        let url = format!("https://127.0.0.1:{}", node.ports.client());
        let is_over = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(AtomicU64::new(0));
        let mut load = tokio::task::JoinSet::new();
        for seed in 0..3 {
            load.spawn(write(node.access().client().await, seed, is_over.clone(), writes.clone()));
        }
        let calm = Arc::new(tokio::sync::Mutex::new(()));
        load.spawn(upset(node.access().client().await, is_over.clone(), calm.clone()));
        let mut counts = Counts::default();
        let deadline = Instant::now() + Duration::from_secs(3600);
        while counts.copies < wanted {
            assert!(Instant::now() < deadline, "{counts:?}");
            let mut client = EtcdClient::connect(&data, &url).await.unwrap();
            // Without a compaction in between, every other time, the live member can return the hash of the same revision.
            let calm = if counts.copies % 2 == 0 { Some(calm.lock().await) } else { None };
            let hostile = (counts.copies % 40 == 39).then(|| {
                let (data, url) = (data.clone(), url.clone());
                tokio::spawn(async move {
                    let mut client = EtcdClient::connect_for(&data, &url, Duration::from_secs(60)).await.unwrap();
                    client.defragment().await
                })
            });
            let done = copy_and_compare(&mut client, &data).await;
            if let Some(hostile) = hostile {
                // Some versions refuse or wait; none may spoil the copy.
                let _ = hostile.await.unwrap();
            }
            let Some(verified) = done else {
                counts.replaced += 1;
                continue;
            };
            counts.copies += 1;
            let inspection = &verified.inspection;
            if let Ok(live) = client.hash_kv(inspection.revision).await
                && live.compact_revision == inspection.compact_revision.unwrap_or(-1)
                && live.compact_revision < inspection.revision
            {
                assert_eq!(live.hash, inspection.hash_kv, "at revision {}", inspection.revision);
                counts.hashes += 1;
            }
            drop(calm);
        }
        is_over.store(true, Ordering::Relaxed);
        load.join_all().await;
        counts.writes = writes.load(Ordering::Relaxed);
        counts
    }

    /// Copies, then reads what etcd sends of the same transaction, and compares. Nothing if the file was replaced meanwhile.
    async fn copy_and_compare(client: &mut EtcdClient, data: &DataDir) -> Option<Verified> {
        let live = PinnedDatabase::pin(client, data).await.ok()?;
        assert!(live.is_pinned(), "large enough to be held: {}", live.size());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        let (live, done) = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                let mut sink =
                    Sink::raw(File::create_new(&path).unwrap(), SpaceCheckedWriter::new(path.parent().unwrap()));
                let done = copy::copy(&live, &mut sink, &JobControl::default());
                (live, done)
            }
        })
        .await
        .unwrap();
        if let Err(error) = done {
            assert!(matches!(error, copy::CopyError::Database(_)), "{error:?}");
            return None;
        }
        let sent = live.received().await.unwrap();
        tokio::task::spawn_blocking(move || {
            let copied = fs::read(&path).unwrap();
            let verified =
                verify::verify(&path, VerifyOptions::default(), &mut |_, _| ControlFlow::Continue(())).unwrap();
            assert_eq!(sent.len(), copied.len());
            let size = sent.len() - 32;
            let database = Database::open(&sent[..size], size as u64, Length::Exact).unwrap();
            let (page_size, reached) = (database.meta().page_size as usize, database.reachable_pages().unwrap());
            let pages = sent[..size].chunks(page_size).zip(copied[..size].chunks(page_size));
            for (id, (sent, copied)) in pages.enumerate() {
                if reached.is_marked(id as u64) {
                    assert!(sent == copied, "page {id} is not what etcd sent");
                } else {
                    assert!(copied.iter().all(|byte| *byte == 0), "page {id} is no zeros");
                }
            }
            Some(verified)
        })
        .await
        .unwrap()
    }

    /// Puts, deletes, transactions, leases and users.
    async fn write(mut client: etcd_client::Client, seed: u64, is_over: Arc<AtomicBool>, writes: Arc<AtomicU64>) {
        let mut random = seed;
        while !is_over.load(Ordering::Relaxed) {
            // Knuth's MMIX constants: any sequence will do.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (what, number) = (random >> 60, (random >> 32) % 2000);
            let key = format!("soak/{number:04}");
            let size = if what == 3 { 20_000 } else { usize::try_from(random >> 40 & 0x7ff).unwrap() };
            // What is refused (an alarm, a defragmentation) is refused.
            let done = match what {
                0 | 1 => client.delete(key, None).await.is_ok(),
                2 => {
                    let when = Compare::version(key.clone(), CompareOp::Greater, 0);
                    let then = [TxnOp::put(key.clone(), "t", None), TxnOp::delete(format!("{key}x"), None)];
                    client.txn(Txn::new().when([when]).and_then(then)).await.is_ok()
                }
                4 => {
                    let lease = i64::try_from(number + 1).unwrap();
                    let options = etcd_client::LeaseGrantOptions::new().with_id(lease);
                    let _ = client.lease_grant(600, Some(options)).await;
                    let options = etcd_client::PutOptions::new().with_lease(lease);
                    client.put(key, "leased", Some(options)).await.is_ok()
                }
                5 => client.lease_revoke(i64::try_from(number + 1).unwrap()).await.is_ok(),
                6 if number % 20 == 0 => {
                    let _ = client.user_add(key.clone(), "x", None).await;
                    client.role_add(key).await.is_ok()
                }
                _ => client.put(key, vec![b'v'; size], None).await.is_ok(),
            };
            writes.fetch_add(u64::from(done), Ordering::Relaxed);
        }
    }

    /// Compactions, defragmentations and alarms.
    async fn upset(mut client: etcd_client::Client, is_over: Arc<AtomicBool>, calm: Arc<tokio::sync::Mutex<()>>) {
        let mut round = 0u64;
        while !is_over.load(Ordering::Relaxed) {
            round += 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let _calm = calm.lock().await;
            let Ok(read) = client.get("soak", None).await else { continue };
            let revision = read.header().unwrap().revision();
            let _ = client.compact((revision - 200).max(1), None).await;
            if round.is_multiple_of(30) {
                let _ = client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await;
            }
        }
    }
}
