//! Why the child cannot be kept running, or cannot be ended.

use crate::error::{Code, Diagnostic};
use crate::etcd::log_line;

/// The child was killed, but still exists.
#[derive(Debug, thiserror::Error)]
#[error("etcd (pid {0}) was killed but does not exit: it waits for a disk that does not respond")]
pub struct Unkillable(pub(super) i32);

impl Diagnostic for Unkillable {
    fn code(&self) -> Code {
        Code::EtcdUnkillable
    }

    fn next_step(&self) -> Option<String> {
        Some(format!("check dmesg, and cat /proc/{}/stack; a later start waits until it is gone", self.0))
    }
}

/// The child cannot be kept running.
#[derive(Debug, thiserror::Error)]
#[error("etcd exited {times} times right after its start, the last time with {exit}; its last lines:{}", indented(.lines))]
pub struct KeepsExiting {
    pub(super) times: u32,
    pub(super) exit: String,
    pub(super) lines: Vec<String>,
}

/// The lines as an indented list, for a message.
#[must_use]
pub fn indented(lines: &[String]) -> String {
    if lines.is_empty() {
        return "\n    (it printed nothing)".into();
    }
    lines.iter().map(|line| format!("\n    {}", log_line::short(line))).collect()
}

impl Diagnostic for KeepsExiting {
    fn code(&self) -> Code {
        Code::EtcdKeepsExiting
    }

    fn next_step(&self) -> Option<String> {
        Some("the reason is in etcd's lines above; fix it and start again. quorate did not touch the data".into())
    }
}
