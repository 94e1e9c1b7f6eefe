//! What the measurements print, and what they read of processes.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use etcd_client::{Txn, TxnOp};

use crate::kit::Node;

/// Bytes.
pub fn status_field(pid: i32, field: &str) -> u64 {
    status_field_of(pid, field).unwrap()
}

/// The same of a process that may have ended.
pub fn status_field_of(pid: i32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

#[allow(clippy::cast_precision_loss)]
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub fn row(name: &str, samples: &[Duration], aim_ms: Option<f64>, against: Option<&[Duration]>) {
    let (low, middle, high) = spread(samples);
    let aim = aim_ms.map(|aim| format!("   aim < {aim:.0} ms")).unwrap_or_default();
    let ratio = against.map(|other| format!("   quorate / this: {:.2}", spread(other).1 / middle)).unwrap_or_default();
    println!("{name:<48} {middle:>9.0} ms    ({low:.0} to {high:.0}){aim}{ratio}");
}

/// Minimum, median and maximum in milliseconds.
pub fn spread(samples: &[Duration]) -> (f64, f64, f64) {
    let mut millis: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1000.0).collect();
    millis.sort_by(f64::total_cmp);
    (millis[0], millis[millis.len() / 2], millis[millis.len() - 1])
}

/// Values as a Kubernetes API server keeps them: much that repeats, some that does not.
fn value(number: u64, size: usize) -> Vec<u8> {
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut text = format!(
        "{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"web-{number}\",\"namespace\":\"team-{}\"",
        number % 50
    );
    let mut field = 0;
    while text.len() < size {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        field += 1;
        let _ = write!(
            text,
            ",{{\"type\":\"Condition{}\",\"status\":\"True\",\"lastTransitionTime\":\"2026-11-{:02}T{:02}:{:02}:00Z\",\"uid\":\"{random:016x}\",\
             \"image\":\"registry.example.com/team/service-{}:v1.{}\",\"resources\":{{\"limits\":{{\"cpu\":\"500m\",\"memory\":\"256Mi\"}}}}}}",
            field % 7,
            random % 28 + 1,
            random % 24,
            random % 60,
            random % 300,
            random % 40
        );
    }
    text.truncate(size);
    text.into_bytes()
}

/// Fills the database with this many bytes of values.
pub fn fill(node: &Node, bytes: usize) {
    const SIZE: usize = 6000;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let keys = bytes / SIZE;
        for worker in 0..8 {
            let mut client = node.access().client().await;
            tasks.spawn(async move {
                for first in (worker * 100..keys).step_by(800) {
                    let puts: Vec<TxnOp> = (first..(first + 100).min(keys))
                        .map(|number| {
                            let key = format!("/registry/pods/team-{}/web-{number}", number % 50);
                            TxnOp::put(key, value(number as u64, SIZE), None)
                        })
                        .collect();
                    while client.txn(Txn::new().and_then(puts.clone())).await.is_err() {}
                }
            });
        }
        tasks.join_all().await;
    });
}
