//! What the measurements print, and what they read of processes.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::fs;
use std::time::Duration;

/// Bytes.
pub fn status_field(pid: i32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
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
