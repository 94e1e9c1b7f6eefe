//! Other stores than the one that most tests use, and ways to them: moto, proxies, a full disk.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate::error::Code;

use crate::kit::s3::{DOMAIN, Store};
use crate::kit::{Etcd, Mount, Node, Timed, eventually, skip_without};
use crate::s3::basic::{fill, list, name_of, plain, restore, save};

/// A moto that ends with this.
struct Moto {
    child: Child,
    endpoint: String,
}

impl Moto {
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/moto/bin/moto_server");
        if !program.exists() {
            skip_without("moto", "moto is not in target/tools (make moto installs it)");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Self { child, endpoint: format!("127.0.0.1:{port}") };
        eventually("moto to listen", || TcpStream::connect(&moto.endpoint).ok());
        moto.make("backups", "");
        Some(moto)
    }

    /// A bucket, without a signature, which moto does not look at.
    fn make(&self, bucket: &str, headers: &str) {
        let mut stream = TcpStream::connect(&self.endpoint).unwrap();
        let head = format!("PUT /{bucket} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n{headers}");
        write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn config(&self, bucket: &str) -> String {
        format!(
            "etcd-s3: true\netcd-s3-endpoint: {}\netcd-s3-insecure: true\netcd-s3-access-key: a\netcd-s3-secret-key: b\n\
             etcd-s3-bucket: {bucket}\netcd-s3-folder: prod\n",
            self.endpoint
        )
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn moto_is_served_as_well() {
    let _timed = Timed::start();
    let Some(moto) = Moto::start() else { return };
    let mut node = Node::new(&Etcd::usual()).config(&moto.config("backups"));
    node.quorate(&["etcd-snapshot", "s3-check"]).succeeds();
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    fill(&node, 120, plain);
    let name = name_of(&save(&node, &[]));
    let second = name_of(&save(&node, &["--snapshot-compress=zstd"]));
    assert_eq!(list(&node, &["--s3"]).len(), 2);
    node.quorate(&["etcd-snapshot", "verify", "--all", "--s3"]).succeeds();
    node.quorate(&["etcd-snapshot", "hold", "--s3", &second]).succeeds();
    node.quorate(&["etcd-snapshot", "delete", "--s3", &second]).fails(Code::SnapshotHeld, &[&second]);
    node.quorate(&["etcd-snapshot", "release", "--s3", &second]).succeeds();
    node.quorate(&["etcd-snapshot", "delete", "--s3", &second]).succeeds();
    assert_eq!(list(&node, &["--s3"]).len(), 1);
    node.stop();
    fs::remove_dir_all(&node.data_dir).unwrap();
    restore(&node, &name, &[]).succeeds();
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]).trim(), "1");
    node.stop();
}

#[test]
fn older_versions_and_locks_of_a_bucket_are_said() {
    let _timed = Timed::start();
    let Some(moto) = Moto::start() else { return };
    moto.make("locked", "x-amz-bucket-object-lock-enabled: true\r\n");
    let mut node = Node::new(&Etcd::usual()).config(&moto.config("locked"));
    let ran = node.quorate(&["etcd-snapshot", "s3-check"]);
    let report = ran.succeeds().split_whitespace().collect::<Vec<_>>().join(" ");
    // Its answer about versions has another name than S3's.
    assert!(report.contains("versioning note ") && report.contains(" 200"), "{report}");
    assert!(report.contains("lock note on"), "{report}");
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let names: Vec<String> = (0..3).map(|_| name_of(&save(&node, &[]))).collect();
    node.quorate(&["etcd-snapshot", "prune", "--s3", "--s3-retention=1"]).succeeds();
    let left = list(&node, &["--s3"]);
    assert_eq!(left.iter().map(name_of).collect::<Vec<_>>(), names[2..], "older versions are not listed");
    node.quorate(&["etcd-snapshot", "verify", "--s3", "--all"]).succeeds();
    node.stop();
    restore(&node, &format!("s3://locked/prod/{}", names[2]), &[]).succeeds();
    node.start_ready();
    node.stop();
}

#[test]
fn a_bucket_may_be_part_of_the_hosts_name() {
    let _timed = Timed::start();
    let store = Store::start();
    // The name is unknown here; a proxy does.
    let (url, count) = proxy(Some(store.address));
    let config = store.config_without("-endpoint:");
    let more = format!("etcd-s3-endpoint: http://{DOMAIN}\netcd-s3-bucket-lookup-type: dns\netcd-s3-proxy: {url}\n");
    let mut node = Node::new(&Etcd::usual()).config(&format!("{config}{more}"));
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = name_of(&save(&node, &[]));
    assert!(count.load(Ordering::Relaxed) > 0);
    let seen = store.seen();
    assert!(seen.iter().all(|seen| seen.headers["host"] == format!("backups.{DOMAIN}")), "{seen:?}");
    assert!(seen.iter().any(|seen| seen.is("PUT", &name) && !seen.path.contains("backups")), "{seen:?}");
    assert_eq!(list(&node, &["--s3"]).len(), 1);
    node.stop();
    restore(&node, &format!("s3://backups/prod/{name}"), &[]).succeeds();
    node.start_ready();
    node.stop();
}

/// A proxy that tunnels (CONNECT) and forwards (absolute URLs), to one address or to the named host, and counts both.
fn proxy(all: Option<SocketAddr>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, counted) = (client.unwrap(), counted.clone());
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    if client.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                counted.fetch_add(1, Ordering::Relaxed);
                let text = String::from_utf8_lossy(&head).into_owned();
                let target = text.split_whitespace().nth(1).unwrap().to_owned();
                let is_tunnel = text.starts_with("CONNECT ");
                let host = target.trim_start_matches("http://").split('/').next().unwrap().to_owned();
                let mut server = all.map_or_else(|| TcpStream::connect(&host), TcpStream::connect).unwrap();
                if is_tunnel {
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                } else {
                    server.write_all(text.replacen(&format!("http://{host}"), "", 1).as_bytes()).unwrap();
                }
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    (url, count)
}

#[test]
fn a_proxy_is_used_as_configured_or_as_the_environment_says() {
    let _timed = Timed::start();
    let store = Store::start_tls();
    let node = Node::new(&Etcd::usual()).config(&store.config());
    let (url, count) = proxy(None);
    let said = format!("--s3-proxy={url}");
    node.quorate(&["etcd-snapshot", "ls", "--s3", &said]).succeeds();
    let through = count.swap(0, Ordering::Relaxed);
    assert!(through > 0, "by the option");
    node.quorate(&["etcd-snapshot", "ls", "--s3", &said, "--s3-skip-ssl-verify"]).succeeds();
    assert!(count.swap(0, Ordering::Relaxed) > 0, "by the option, without verification");
    let env = [("HTTPS_PROXY", url.as_str())];
    node.quorate_with(&env, &["etcd-snapshot", "ls", "--s3"]).succeeds();
    assert!(count.swap(0, Ordering::Relaxed) > 0, "by the environment");
    node.quorate_with(&env, &["etcd-snapshot", "ls", "--s3", "--s3-proxy=none"]).succeeds();
    let with_exception = [env[0], ("NO_PROXY", "127.0.0.1")];
    node.quorate_with(&with_exception, &["etcd-snapshot", "ls", "--s3"]).succeeds();
    assert_eq!(count.load(Ordering::Relaxed), 0, "switched off");
    // One that is not there is named, whatever the store speaks.
    let plain = Store::start();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = format!("--s3-proxy=http://{gone}");
    for endpoint in [store.endpoint(), plain.endpoint()] {
        let endpoint = format!("--s3-endpoint={endpoint}");
        let ran = node.quorate(&["etcd-snapshot", "ls", "--s3", &said, &endpoint]);
        ran.fails(Code::S3Proxy, &[&gone.to_string(), "etcd-s3-proxy"]);
    }
    // A command goes the way of the running server, whatever its own environment says.
    let mut node = node;
    node.env = vec![("HTTPS_PROXY".into(), url)];
    node.start_ready();
    // Its first start looked for snapshots of this node already.
    count.store(0, Ordering::Relaxed);
    node.quorate(&["etcd-snapshot", "ls", "--s3"]).succeeds();
    assert!(count.load(Ordering::Relaxed) > 0, "by the environment of the server");
    node.stop();
}

#[test]
fn a_disk_that_is_full_is_said_before_and_in_the_middle_of_a_download() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    node.start_ready();
    fill(&node, 200, plain);
    let name = name_of(&save(&node, &[]));
    node.stop();
    let url = format!("s3://backups/prod/{name}");
    node.env = vec![("FAILPOINTS".into(), "durable::write=1*off->return(enospc)".into())];
    restore(&node, &url, &[]).fails(Code::NoSpace, &[]);
    node.env.clear();
    restore(&node, &url, &[]).succeeds();
    node.start_ready();
    node.stop();
    let downloads = node.server_dir().join("db/download");
    let Some(_mount) = Mount::tmpfs(&downloads, "size=70m") else { return };
    restore(&node, &url, &[]).fails(Code::NoSpace, &[" 8"]);
}

#[test]
fn secrets_on_the_command_line_are_not_seen_by_others() {
    let _timed = Timed::start();
    let store = Store::start();
    let config = store.config_without("secret-key");
    let secret = crate::kit::s3::SECRET_KEY;
    let mut node = Node::new(&Etcd::usual()).config(&config).arg(&format!("--etcd-s3-secret-key={secret}"));
    node.start_ready();
    let pid = node.launcher_pid();
    for file in ["cmdline", "environ"] {
        let seen = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&seen).contains(secret), "{file}");
    }
    save(&node, &[]);
    // What a command asks for itself goes to the server, and is found in no place that others read.
    let manifests = crate::kit::files_under(&node.data_dir)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"));
    for path in manifests {
        assert!(!fs::read_to_string(&path).unwrap_or_default().contains(secret), "{}", path.display());
    }
    node.stop();
}
