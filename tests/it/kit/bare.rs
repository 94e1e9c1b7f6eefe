//! An etcd that no quorate supervises, as another member of a node's cluster.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::weight::Weight;
use super::{Access, Etcd, Node, Ports, eventually};

/// An etcd that was started by hand as another member of a node's cluster, with that node's certificates.
pub struct BareEtcd {
    process: Child,
    pub access: Access,
    _ports: Ports,
    _dir: tempfile::TempDir,
    _weight: Weight,
}

impl BareEtcd {
    /// Joins, and returns when it serves.
    pub fn join(node: &Node, etcd: &Etcd, name: &str) -> Self {
        let (weight, ports, dir) = (Weight::take(1), Ports::claim(), tempfile::tempdir().unwrap());
        let (client, peer) = (ports.client(), format!("https://127.0.0.1:{}", ports.peer()));
        let tls = node.server_dir().join("tls/etcd");
        // Once it is added, the cluster may not answer before it has started.
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
        let access = node.access().at_port(client);
        eventually("the member to serve", || access.hash_kv());
        Self { process, access, _ports: ports, _dir: dir, _weight: weight }
    }

    /// kill -9.
    pub fn kill(&self) {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGKILL).unwrap();
    }
}

impl Drop for BareEtcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
