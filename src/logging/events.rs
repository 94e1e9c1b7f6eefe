//! The events of the log: informational lines that programs and tests wait for have a stable name in the field `event`.
//!
//! Messages may be reworded at any time; a name is never changed. Failures have the field `code` instead
//! ([`Code`](crate::error::Code)). This table is that of docs/log.md, and the names are written where the lines are logged.

/// Each event, and what it means.
pub const EVENTS: &[(&str, &str)] = &[
    ("server-starting", "quorate starts: its version, that of etcd, data directory and configuration."),
    ("new-cluster", "A new, empty cluster begins."),
    ("data-resumed", "etcd resumes the existing data."),
    ("etcd-ready", "etcd serves clients at the address in the message; again after each restart."),
    ("etcd-exited", "etcd exited unexpectedly and is restarted; `exit` is its exit status."),
    ("etcd-stopped", "etcd exited because quorate stopped it."),
    ("etcd-killed", "etcd did not exit within the grace period and is killed."),
    ("second-signal", "A second signal was received, and etcd is killed."),
    ("etcd-binary-replaced", "The etcd binary was replaced; the checked one is used until quorate restarts."),
    ("etcd-lines-dropped", "etcd logged too many lines; `dropped` of them were dropped."),
    ("orphan-found", "An etcd left by an earlier quorate is still running and is stopped first."),
    ("orphan-killed", "That etcd did not exit within the grace period and is killed."),
    ("stopping", "A signal was received, and the server stops."),
    ("stopped", "The server has stopped in order."),
    ("process-reaped", "As PID 1: an orphaned process was reaped (debug)."),
    ("reload-ended", "A reload of the configuration has ended; the message has the result."),
    ("setting-changed", "A reload changed the setting `key`."),
    ("setting-pending", "A reload found a change of the setting `key`, which takes effect at the next restart."),
    ("server-ignored", "The option `server` is ignored: this server has its own data."),
    ("access-closed", "The permissions of `path` were too open, and were fixed."),
    ("owner-changed", "The owner of `path` was changed to the user that etcd runs as."),
    ("disk-slow", "Fsync on the disk of the data takes longer than etcd recommends."),
    ("data-behind-link", "`path`, a part of the data directory, is a symbolic link."),
    ("data-in-memory", "The data directory is on a tmpfs."),
    ("first-start-interrupted", "The data directory is that of a first start that was interrupted."),
    ("data-set-aside", "Old data was moved to `to` before a new cluster."),
    ("peer-url-changed", "This server's address has changed, and its peer URL is updated."),
    ("certificate-renewed", "`certificate` was renewed; `why` is the reason."),
    ("ca-replaced", "The CA files changed, and etcd is restarted to trust them."),
    ("snapshot-scheduled", "When the next scheduled snapshot is due."),
    ("rolling-backups", "The rolling backups of RKE1's `cluster.yml` begin, with `creation` and `retention`."),
    ("snapshot-due", "A scheduled snapshot is taken now."),
    ("operation-queued", "A snapshot or another operation waits for the present one, `busy` (debug)."),
    ("snapshot-saved", "The snapshot `name` was saved and verified."),
    ("snapshot-with-alarms", "A snapshot is taken while etcd has raised `alarms`."),
    ("snapshot-streamed", "The direct copy failed, and the snapshot stream of etcd is used."),
    ("node-renamed", "Snapshots of this server under an earlier `node-name` count for retention."),
    ("foreign-snapshots", "Snapshots of this `node-name`, but of other data, are ignored by retention."),
    ("snapshot-deleted", "Retention deleted the snapshot `name`."),
    ("snapshot-uploaded", "The snapshot `name` is in object storage, verified."),
    ("drill-due", "A scheduled restore drill begins."),
    ("drill-passed", "A restore drill passed."),
    ("defragment-due", "The database is near its quota, most of it is free, and it is defragmented."),
    ("defragmented", "The database was defragmented."),
    ("alarm-cleared", "The alarm NOSPACE was disarmed, and etcd accepts writes again."),
    ("reset-discarded", "An interrupted reset or restore had not changed anything; its files were removed."),
    ("reset-finished", "An interrupted reset or restore was finished: its data was in place and verified."),
    ("reset-undone", "An interrupted reset or restore was rolled back: the previous data is in place again."),
    ("reset-not-begun", "An interrupted reset or restore had not swapped the data."),
    (
        "operation-prepared",
        "A restore over several servers is prepared here and not decided; the data from before is in use.",
    ),
    ("reset-checking", "A dry run or an undo verifies a snapshot or data, before anything is changed."),
    ("old-data-removed", "Retired data was deleted according to `etcd-old-retention`."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn events_in(dir: &Path, found: &mut BTreeSet<String>) {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                events_in(&path, found);
            } else if !path.ends_with("logging/events.rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                found.extend(
                    text.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
                );
            }
        }
    }

    #[test]
    fn every_event_is_in_the_table_and_logged_somewhere() {
        let mut logged = BTreeSet::new();
        events_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut logged);
        assert_eq!(logged, EVENTS.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn the_page_has_the_table() {
        let page = include_str!("../../docs/log.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = EVENTS.iter().map(|(name, means)| format!("| `{name}` | {means} |")).collect();
        assert_eq!(rows, expected);
    }
}
