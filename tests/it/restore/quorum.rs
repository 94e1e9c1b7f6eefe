//! A quorum that is lost, and one that is not.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PHRASE, epoch, left_nothing, restored, said};
use crate::kit::{Etcd, Node, Ports, Timed, eventually, is_running};

/// An etcd that was started by hand as another member of a node's cluster, with that node's certificates.
pub struct Member {
    process: Child,
    pub client: u16,
    _ports: Ports,
    _dir: tempfile::TempDir,
    tls: PathBuf,
}

impl Member {
    /// Joins, and returns when it serves.
    pub fn join(node: &Node, etcd: &Etcd, name: &str) -> Self {
        let (ports, dir) = (Ports::claim(), tempfile::tempdir().unwrap());
        let (client, peer) = (ports.client(), format!("https://127.0.0.1:{}", ports.peer()));
        let tls = node.server_dir().join("tls/etcd");
        // Once it is added, nobody answers before it has started.
        // One that has just joined has no name before it has said so.
        let mut cluster: Vec<String> = eventually("all members to have names", || {
            let list = node.etcdctl(&["member", "list"]);
            let members: Vec<Vec<&str>> = list.lines().map(|line| line.split(", ").collect()).collect();
            let are_named = members.iter().all(|fields| !fields[2].is_empty());
            are_named.then(|| members.iter().map(|fields| format!("{}={}", fields[2], fields[3])).collect())
        });
        cluster.push(format!("{name}={peer}"));
        eventually("the member to be added", || {
            let ran = node.quorate(&["etcdctl", "--", "member", "add", name, &format!("--peer-urls={peer}")]);
            (ran.code == Some(0)).then_some(())
        });
        let file = |name: &str| tls.join(name).to_str().unwrap().to_owned();
        let log = File::create(dir.path().join("log")).unwrap();
        let process = Command::new(etcd.binary())
            .env_clear()
            .arg(format!("--name={name}"))
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .args(
                ["--listen-client-urls", "--advertise-client-urls"]
                    .map(|flag| format!("{flag}=https://127.0.0.1:{client}")),
            )
            .args(["--listen-peer-urls", "--initial-advertise-peer-urls"].map(|flag| format!("{flag}={peer}")))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .args(["--initial-cluster-state=existing", "--client-cert-auth", "--peer-client-cert-auth", "--logger=zap"])
            .args(["--heartbeat-interval=20", "--election-timeout=200"])
            .arg(format!("--cert-file={}", file("server-client.crt")))
            .arg(format!("--key-file={}", file("server-client.key")))
            .arg(format!("--trusted-ca-file={}", file("server-ca.crt")))
            .arg(format!("--peer-cert-file={}", file("peer-server-client.crt")))
            .arg(format!("--peer-key-file={}", file("peer-server-client.key")))
            .arg(format!("--peer-trusted-ca-file={}", file("peer-ca.crt")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let member = Self { process, client, _ports: ports, _dir: dir, tls };
        eventually("the member to serve", || member.hash_kv(client));
        member
    }

    fn ask<T>(&self, port: u16, ask: impl AsyncFnOnce(&mut etcd_client::Client) -> Option<T>) -> Option<T> {
        let file = |name: &str| fs::read(self.tls.join(name)).unwrap();
        let tls = etcd_client::TlsOptions::new()
            .ca_certificate(etcd_client::Certificate::from_pem(file("server-ca.crt")))
            .identity(etcd_client::Identity::from_pem(file("client.crt"), file("client.key")));
        let options = etcd_client::ConnectOptions::new().with_tls(tls).with_timeout(std::time::Duration::from_secs(2));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = format!("https://127.0.0.1:{port}");
            let mut client = etcd_client::Client::connect([url], Some(options)).await.ok()?;
            ask(&mut client).await
        })
    }

    /// `HashKV` of the member that clients reach at a port.
    pub fn hash_kv(&self, port: u16) -> Option<u32> {
        self.ask(port, async |client| Some(client.hash_kv(0).await.ok()?.hash()))
    }

    /// The names of the members that it knows.
    fn members(&self) -> Option<Vec<String>> {
        let mut names = self.ask(self.client, async |client| {
            let list = client.member_list().await.ok()?;
            Some(list.members().iter().map(|member| member.name().to_owned()).collect::<Vec<_>>())
        })?;
        names.sort();
        Some(names)
    }

    fn put(&self, key: &str) -> Option<()> {
        self.ask(self.client, async |client| client.put(key, "x", None).await.ok().map(|_| ()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn three(node: &mut Node, etcd: &Etcd) -> (Member, Member) {
    node.start_ready();
    (Member::join(node, etcd, "second"), Member::join(node, etcd, "third"))
}

fn lose_quorum(etcd: &Etcd) {
    let mut node = Node::new(etcd);
    let (second, third) = three(&mut node, etcd);
    let pids = [&second, &third].map(|member| Pid::from_raw(member.process.id().cast_signed()));
    eventually("all three to be known", || (node.status_json()["member"]["members"] == 3).then_some(()));
    let written: usize = 200;
    let access = node.access();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut client = access.client().await;
        for number in 0..written {
            client.put(format!("k{number}"), "v", None).await.unwrap();
        }
    });
    // All of it at once, in the middle of everything.
    for pid in pids {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let child = node.signal_child(Signal::SIGKILL);
    node.kill_launcher();
    drop((second, third));
    eventually("etcd to be gone", || (!is_running(child)).then_some(()));
    let before = epoch(&node);
    let ran = node.run_server_with(&["--cluster-reset"]);
    restored(&ran);
    assert!(said(&ran).contains("which had 3 members, is reset"), "{}", ran.err);
    assert!(said(&ran).contains("move its server/db/etcd away"), "{}", ran.err);
    left_nothing(&node);
    node.start_ready();
    assert_eq!(crate::restore::keys(&node).split(' ').count(), written);
    assert_eq!(node.status_json()["member"]["members"], 1);
    assert_eq!(epoch(&node), before + 1);
    node.stop();
}

#[test]
fn a_lost_quorum_is_reset_without_losing_a_write() {
    let _timed = Timed::start();
    for minor in ["3.4", "3.5", "3.6", "3.7"] {
        if let Some(etcd) = Etcd::find(minor) {
            lose_quorum(&etcd);
        }
    }
}

#[test]
fn members_that_are_alive_do_not_notice_the_reset_of_another() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    let (second, third) = three(&mut node, &etcd);
    let names = eventually("the names", || second.members().filter(|names| names.iter().all(|name| !name.is_empty())));
    assert_eq!(names.len(), 3);
    node.stop();
    eventually("the two to go on", || second.put("during"));
    let ran = node.run_server_with(&["--cluster-reset"]);
    assert!(said(&ran).contains(PHRASE), "{}", ran.err);
    node.start_ready();
    eventually("the two to serve", || third.put("after"));
    for member in [&second, &third] {
        assert_eq!(member.members().as_ref(), Some(&names), "nobody was removed");
    }
    assert_eq!(second.hash_kv(second.client), second.hash_kv(third.client));
    assert_eq!(node.status_json()["member"]["members"], 1);
    assert!(!node.etcdctl(&["get", "after"]).contains("after"), "they are two clusters now");
    node.stop();
}

#[test]
fn a_reset_of_a_server_that_runs_or_has_no_data_is_refused() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.run_server_with(&["--cluster-reset"])
        .fails(5, &["nothing was changed", "nothing to reset", "--cluster-reset-restore-path=PATH"]);
    node.start_ready();
    node.run_server_with(&["--cluster-reset"]).fails(3, &["is in use by pid", "systemctl stop quorate-server"]);
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    // By environment, and in the configuration: once, and then never again by itself.
    node.env = vec![("QUORATE_CLUSTER_RESET".into(), "true".into())];
    restored(&node.run_server());
    node.run_server().fails(4, &["reset-flag"]);
    node.env.clear();
    node.start_ready();
    assert_eq!(crate::restore::keys(&node), "a");
    node.stop();
    fs::write(node.config_path(), "cluster-reset: true\n").unwrap();
    restored(&node.run_server());
    node.run_server().fails(4, &["reset-flag"]);
}

/// What is not in the database yet is in the log, torn at its end by the crash.
#[test]
fn a_torn_log_is_read_as_far_as_it_goes() {
    let _timed = Timed::start();
    for minor in ["3.4", "3.5", "3.6", "3.7"] {
        let Some(etcd) = Etcd::find(minor) else { continue };
        let mut node = Node::new(&etcd);
        node.start_ready();
        for number in 0..20 {
            node.etcdctl(&["put", &format!("k{number}"), "v"]);
        }
        let child = node.signal_child(Signal::SIGKILL);
        node.kill_launcher();
        eventually("etcd to be gone", || (!is_running(child)).then_some(()));
        let wal = fs::read_dir(node.etcd_dir().join("member/wal")).unwrap().flatten().map(|entry| entry.path());
        let last = wal.filter(|path| path.extension().is_some_and(|ending| ending == "wal")).max().unwrap();
        let mut bytes = fs::read(&last).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // A length, and the first bytes of a record that was never written to its end.
        let at = end.next_multiple_of(8);
        bytes[at..at + 8].copy_from_slice(&2000u64.to_le_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&[8, 2, 16, 1]);
        fs::write(&last, bytes).unwrap();
        restored(&node.run_server_with(&["--cluster-reset"]));
        node.start_ready();
        assert_eq!(crate::restore::keys(&node).split(' ').count(), 20, "{minor}");
        node.stop();
    }
}
