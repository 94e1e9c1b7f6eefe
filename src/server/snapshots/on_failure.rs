//! `etcd-snapshot-on-failure`: the operator's command, run when a scheduled snapshot or drill fails.

use std::process::Stdio;
use std::time::Duration;

use crate::error::ErrorReport;
use crate::etcd::process::{kill_group, operator_environment, spawn_registered};

const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs it in the shell, with the error in its environment.
pub(crate) async fn run(command: String, report: ErrorReport, node: String) {
    let mut shell = std::process::Command::new("/bin/sh");
    operator_environment(&mut shell);
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell.args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.env("QUORATE_SNAPSHOT_ERROR", report.to_string()).env("QUORATE_SNAPSHOT_NODE", &node);
    let (mut child, _registered) = match spawn_registered(shell) {
        Ok(spawned) => spawned,
        Err(error) => return tracing::error!(%error, "etcd-snapshot-on-failure cannot be run"),
    };
    match tokio::time::timeout(COMMAND_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if status.success() => tracing::info!("etcd-snapshot-on-failure was run"),
        Ok(Ok(status)) => tracing::error!(%status, "etcd-snapshot-on-failure failed"),
        Ok(Err(error)) => tracing::error!(%error, "cannot wait for etcd-snapshot-on-failure"),
        Err(_) => {
            tracing::error!(seconds = COMMAND_TIMEOUT.as_secs(), "etcd-snapshot-on-failure timed out and was killed");
            if let Some(pid) = child.id() {
                kill_group(pid);
            }
        }
    }
}
