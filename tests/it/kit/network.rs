//! A network for several servers: a namespace for each, joined by a bridge in a namespace of its own. Links can be cut and slowed.
//!
//! Nothing of it is in the namespace of the machine, so tests do not meet and need no free addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::skip;

const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "quorate-test";
/// A MAC address that no interface has: packets to it are lost.
const UNUSED_MAC: &str = "02:00:00:00:00:fe";

/// Namespaces on one network. They are removed when this is dropped.
#[derive(Debug)]
pub struct Network {
    /// `quorate-test-PID-NUMBER`.
    name: String,
    nodes: usize,
}

impl Network {
    /// A network of `nodes` nodes; `None`, recorded as skipped, where namespaces are not allowed.
    pub fn new(nodes: usize) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        if !nix::unistd::geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        remove_abandoned();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("{PREFIX}-{}-{number}", std::process::id()), nodes };
        let bridge = network.bridge();
        let is_allowed = run("ip", &["netns", "add", &bridge]).is_some()
            && run("ip", &["-n", &bridge, "link", "add", "bridge", "type", "bridge"]).is_some();
        if !is_allowed {
            skip("network namespaces with a bridge are not allowed here");
            return None;
        }
        must(&["-n", &bridge, "link", "set", "bridge", "up"]);
        for node in 0..nodes {
            network.add(node);
        }
        Some(network)
    }

    fn add(&self, node: usize) {
        let (bridge, namespace, port) = (self.bridge(), self.namespace(node), format!("node{node}"));
        must(&["netns", "add", &namespace]);
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &namespace];
        must(&[&["-n", &bridge, "link", "add", &port][..], &pair].concat());
        must(&["-n", &bridge, "link", "set", &port, "master", "bridge", "up"]);
        must(&["-n", &namespace, "address", "add", &format!("{}/24", self.address(node)), "dev", "eth0"]);
        must(&["-n", &namespace, "link", "set", "lo", "up"]);
        must(&["-n", &namespace, "link", "set", "eth0", "up"]);
    }

    fn bridge(&self) -> String {
        format!("{}-bridge", self.name)
    }

    /// The namespace of a node, counted from 0.
    pub fn namespace(&self, node: usize) -> String {
        assert!(node < self.nodes);
        format!("{}-node{node}", self.name)
    }

    /// The address of a node on the network.
    pub fn address(&self, node: usize) -> IpAddr {
        assert!(node < self.nodes);
        Ipv4Addr::new(10, 77, 0, u8::try_from(node + 1).unwrap()).into()
    }

    /// Drops silently what `from` sends to `to`, also over open connections.
    pub fn cut(&self, from: usize, to: usize) {
        let (namespace, address) = (self.namespace(from), self.address(to).to_string());
        must(&[
            "-n",
            &namespace,
            "neigh",
            "replace",
            &address,
            "lladdr",
            UNUSED_MAC,
            "dev",
            "eth0",
            "nud",
            "permanent",
        ]);
    }

    /// Cuts both directions between two nodes.
    pub fn partition(&self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Cuts a node off from all others.
    pub fn isolate(&self, node: usize) {
        for other in (0..self.nodes).filter(|other| *other != node) {
            self.partition(node, other);
        }
    }

    /// Removes every cut and every delay.
    pub fn heal(&self) {
        for node in 0..self.nodes {
            must(&["-n", &self.namespace(node), "neigh", "flush", "dev", "eth0", "nud", "permanent"]);
            // There may be none.
            let _ = tc(&self.namespace(node), &["qdisc", "del", "dev", "eth0", "root"]);
        }
    }

    /// Delays what a node sends; false, recorded as skipped, if the kernel has no netem.
    pub fn delay(&self, node: usize, milliseconds: u32) -> bool {
        let delay = format!("{milliseconds}ms");
        let is_done =
            tc(&self.namespace(node), &["qdisc", "replace", "dev", "eth0", "root", "netem", "delay", &delay]).is_some();
        if !is_done {
            skip("this kernel cannot delay packets (tc netem)");
        }
        is_done
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in (0..self.nodes).map(|node| self.namespace(node)).chain([self.bridge()]) {
            let _ = run("ip", &["netns", "delete", &namespace]);
        }
    }
}

/// Runs `act` in a network namespace, in a thread that has entered it; here if there is none.
pub fn inside<T: Send>(namespace: Option<&str>, act: impl FnOnce() -> T + Send) -> T {
    let Some(namespace) = namespace else { return act() };
    let in_thread = || {
        let file = std::fs::File::open(path_of(namespace)).unwrap();
        nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(in_thread).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// A command that runs `program` in a network namespace, under the same pid.
pub fn command_in(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path_of(namespace).display())).arg("--").arg(program);
    command
}

fn path_of(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// Removes the namespaces of test processes that were killed.
fn remove_abandoned() {
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = run("ip", &["netns", "delete", &name]);
        }
    }
}

fn tc(namespace: &str, args: &[&str]) -> Option<Output> {
    run("tc", &[&["-n", namespace], args].concat())
}

fn must(args: &[&str]) {
    run("ip", args).unwrap_or_else(|| panic!("ip {args:?} failed"));
}

fn run(program: &str, args: &[&str]) -> Option<Output> {
    Command::new(program).args(args).output().ok().filter(|output| output.status.success())
}
