//! Several servers that a test starts, stops and looks at together.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::weight::Weight;
use super::{Etcd, Host, Network, Node, Ports};

/// How much of each log is printed when a test fails.
const LAST_LINES: usize = 50;

/// Servers `node1`, `node2`, … with the same ports, each with an address of its own: 127.0.0.2 and up, or 10.77.0.1 and up in a
/// [`Network`].
pub struct Cluster {
    // Before the network, which its processes use until they end.
    nodes: Vec<Node>,
    network: Option<Network>,
    _weight: Weight,
}

impl Cluster {
    /// `count` servers on loopback addresses. They are independent: each starts an etcd with one member.
    pub fn independent(etcd: &Etcd, count: usize) -> Self {
        assert!((1..=5).contains(&count), "127.0.0.2 to 127.0.0.6");
        let host = |node: usize| {
            let address = IpAddr::from(Ipv4Addr::new(127, 0, 0, u8::try_from(node + 2).unwrap()));
            Host { address, loopback: address, namespace: None }
        };
        Self::on(etcd, count, host, None)
    }

    /// The same, each in a network namespace; `None`, recorded as skipped, where that is not allowed.
    pub fn independent_in_network(etcd: &Etcd, count: usize) -> Option<Self> {
        let network = Network::new(count)?;
        let host = |node: usize| Host {
            address: network.address(node),
            namespace: Some(network.namespace(node)),
            ..Host::default()
        };
        let hosts: Vec<Host> = (0..count).map(host).collect();
        Some(Self::on(etcd, count, |node| hosts[node].clone(), Some(network)))
    }

    fn on(etcd: &Etcd, count: usize, host: impl Fn(usize) -> Host, network: Option<Network>) -> Self {
        let weight = Weight::take(count);
        let ports = Arc::new(Ports::claim());
        let node = |number: usize| {
            let name = format!("node{}", number + 1);
            let mut node = Node::part_of_cluster(&name, host(number), Arc::clone(&ports), Some(etcd.binary()));
            node.is_quiet = true;
            node
        };
        Self { nodes: (0..count).map(node).collect(), network, _weight: weight }
    }

    /// Changes how each server will be started.
    pub fn with(mut self, mut change: impl FnMut(Node) -> Node) -> Self {
        self.nodes = self.nodes.drain(..).map(&mut change).collect();
        self
    }

    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("a cluster in a network")
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Does the same with every server at the same time, and gives the results in their order. The first panic goes on here.
    #[track_caller]
    pub fn all<T: Send>(&self, act: impl Fn(&Node) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = self.nodes.iter().map(|node| scope.spawn(move || act(node))).collect();
            // All are joined before any panic goes on.
            let results: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            results.into_iter().map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    #[track_caller]
    pub fn all_mut<T: Send>(&mut self, act: impl Fn(&mut Node) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = self.nodes.iter_mut().map(|node| scope.spawn(move || act(node))).collect();
            let results: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            results.into_iter().map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    #[track_caller]
    pub fn start_ready(&mut self) {
        self.nodes.iter_mut().for_each(Node::start);
        self.all_mut(Node::wait_ready);
    }

    #[track_caller]
    pub fn stop(&mut self) {
        self.all_mut(Node::stop);
    }

    /// The server whose etcd leads, if all that answer name the same leader.
    pub fn leader(&self) -> Option<&Node> {
        let members = self.all(|node| {
            let status: serde_json::Value = serde_json::from_str(&node.status().out).ok()?;
            Some(status["member"].clone()).filter(serde_json::Value::is_object)
        });
        let named: Vec<&str> = members.iter().flatten().filter_map(|member| member["leader_id"].as_str()).collect();
        let leader = named.first()?;
        let is_agreed = named.iter().all(|name| name == leader);
        let leads = |member: &Option<serde_json::Value>| {
            member.as_ref().is_some_and(|member| member["is_leader"] == true && member["id"] == **leader)
        };
        self.nodes.get(members.iter().position(leads)?).filter(|_| is_agreed)
    }

    /// The last lines of every log, in the order of their times, each with the name of its server.
    pub fn timeline(&self) -> String {
        interleave(self.nodes.iter().map(|node| (node.name.as_str(), node.log())))
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, node: usize) -> &Node {
        &self.nodes[node]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("---- the last {LAST_LINES} lines of each server ----\n{}", self.timeline());
        }
    }
}

/// Sorts lines by time. A line without a time, such as one of a panic, follows the line before it.
fn interleave<'a>(logs: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut lines = Vec::new();
    for (name, log) in logs {
        let all: Vec<&str> = log.lines().collect();
        let mut last = String::new();
        for line in &all[all.len().saturating_sub(LAST_LINES)..] {
            if let Some(time) = time_of(line) {
                time.clone_into(&mut last);
            }
            lines.push((last.clone(), format!("{name}: {line}\n")));
        }
    }
    // Stable: lines of the same time stay in the order of their log.
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    lines.into_iter().map(|(_, line)| line).collect()
}

/// `2026-11-21T03:04:05.678Z`, with which a line begins, or which is the `time` of one in JSON.
fn time_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix("{\"time\":\"").unwrap_or(line);
    let time = line.get(..24)?;
    (time.ends_with('Z') && time.as_bytes()[10] == b'T').then_some(time)
}

#[test]
fn lines_are_in_the_order_of_their_times() {
    let one = "2026-11-21T03:04:05.000Z INFO a\n  more of a\n2026-11-21T03:04:07.000Z INFO c\n".to_owned();
    let two = "{\"time\":\"2026-11-21T03:04:06.000Z\",\"message\":\"b\"}\n".to_owned();
    let text = interleave([("one", one), ("two", two)].into_iter());
    let order: Vec<&str> = text.lines().map(|line| &line[..4]).collect();
    assert_eq!(order, ["one:", "one:", "two:", "one:"], "{text}");
    let long: String = (0..200).map(|number| format!("line {number}\n")).collect();
    assert_eq!(interleave([("one", long)].into_iter()).lines().count(), LAST_LINES);
}
