//! RKE1's configuration: what a `cluster.yml` (a file with `services:`) says of snapshots, in our own options.
//!
//! Only `services.etcd` is read, and of that what belongs to recurring snapshots. Absent keys have the defaults of RKE's pages:
//! `snapshot` off, `creation` 5m, `retention` 24h; in `backup_config`, `enabled`, `interval_hours` 12, `retention` 6. Where
//! there is a `backup_config`, it counts, and the older keys do not. What any other source says about the same thing counts more.

use super::yaml::{Node, Value};
use crate::plan::duration;

const SCHEDULE: &str = "etcd-snapshot-schedule-cron";
const DISABLE: &str = "etcd-disable-snapshots";
const RETENTION: &str = "etcd-snapshot-retention";
const POLICY: &str = "etcd-snapshot-retention-policy";
const TIMEOUT: &str = "etcd-snapshot-timeout";
const DIR: &str = "etcd-snapshot-dir";

/// Options that say the same thing in different ways: one of them from another source replaces all of a group from here.
pub(super) const GROUPS: [&[&str]; 12] = [
    &[SCHEDULE, DISABLE],
    &[RETENTION, POLICY],
    &[TIMEOUT],
    &[DIR],
    &["etcd-s3"],
    &["etcd-s3-access-key"],
    &["etcd-s3-secret-key"],
    &["etcd-s3-bucket"],
    &["etcd-s3-region"],
    &["etcd-s3-endpoint"],
    &["etcd-s3-folder"],
    &["etcd-s3-endpoint-ca"],
];

/// The keys of `s3backupconfig`.
const S3: [(&str, &str); 7] = [
    ("access_key", "etcd-s3-access-key"),
    ("secret_key", "etcd-s3-secret-key"),
    ("bucket_name", "etcd-s3-bucket"),
    ("region", "etcd-s3-region"),
    ("endpoint", "etcd-s3-endpoint"),
    ("folder", "etcd-s3-folder"),
    ("custom_ca", "etcd-s3-endpoint-ca"),
];

/// A text with the line that it comes from.
pub(super) type Said<T> = (T, usize);

/// What a `cluster.yml` comes to.
#[derive(Debug, Default)]
pub(super) struct Translated {
    /// Our options.
    pub(super) values: Vec<(&'static str, Said<String>)>,
    /// What the operator should know.
    pub(super) notes: Vec<Said<String>>,
    /// What is wrong.
    pub(super) problems: Vec<Said<String>>,
}

impl Translated {
    fn set(&mut self, name: &'static str, text: impl Into<String>, line: usize) {
        self.values.push((name, (text.into(), line)));
    }

    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.push((text.into(), line));
    }

    fn problem(&mut self, line: usize, text: impl Into<String>) {
        self.problems.push((text.into(), line));
    }

    /// The entries of a mapping; nothing if it is empty or something else, which is a problem.
    fn map<'n>(&mut self, name: &str, node: &'n Node) -> &'n [(Node, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => &[],
            Value::Text(_) | Value::List(_) => {
                self.problem(node.line, format!("`{name}` wants a mapping"));
                &[]
            }
        }
    }

    /// What `parse` makes of a value; nothing if it is not there or empty, or wrong, which is a problem.
    fn one<T>(
        &mut self,
        entries: &[(Node, Node)],
        name: &str,
        wants: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Said<T>> {
        let node = find(entries, name)?;
        let text = match &node.value {
            Value::Nothing => return None,
            Value::Text(text) => text.as_str(),
            Value::List(_) | Value::Map(_) => "a list or a mapping",
        };
        let parsed = parse(text);
        if parsed.is_none() {
            self.problem(node.line, format!("`{name}` wants {wants}, not `{}`", crate::host::printable(text)));
        }
        parsed.map(|parsed| (parsed, node.line))
    }

    /// Says which keys are not read; `known` are read elsewhere.
    fn ignore(&mut self, place: &str, entries: &[(Node, Node)], known: &[&str]) {
        let mut others = Vec::new();
        for (key, _) in entries {
            match &key.value {
                Value::Text(name) if known.contains(&name.as_str()) => {}
                Value::Text(name) => others.push(crate::host::printable(name)),
                _ => self.problem(key.line, "a key must be a word"),
            }
        }
        if let (false, Some((key, _))) = (others.is_empty(), entries.first()) {
            self.note(key.line, format!("of {place}, these mean nothing to quorate: {}", others.join(", ")));
        }
    }
}

fn find<'n>(entries: &'n [(Node, Node)], name: &str) -> Option<&'n Node> {
    let mut all = entries.iter().filter(|(key, _)| key.value == Value::Text(name.to_owned()));
    all.next().map(|(_, value)| value)
}

/// Truth values as YAML 1.1 has them, which RKE1 reads.
fn truth(text: &str) -> Option<bool> {
    super::kinds::switch(text)
}

fn positive(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number > 0)
}

/// Translates the value of `services`, which is in `line`.
pub(super) fn translate(line: usize, services: &Node) -> Translated {
    let mut out = Translated::default();
    let entries = out.map("services", services);
    out.ignore("services", entries, &["etcd"]);
    let nothing = Node { line, value: Value::Nothing };
    let node = find(entries, "etcd").unwrap_or(&nothing);
    let etcd = out.map("etcd", node);
    out.ignore("services.etcd", etcd, &["snapshot", "creation", "retention", "backup_config"]);
    match find(etcd, "backup_config").filter(|found| found.value != Value::Nothing) {
        Some(found) => backup_config(&mut out, found, etcd),
        None => rolling(&mut out, node.line, etcd),
    }
    out
}

/// The keys of RKE 0.1: an interval, and an age.
fn rolling(out: &mut Translated, line: usize, etcd: &[(Node, Node)]) {
    let (is_on, at) = out.one(etcd, "snapshot", "true or false", truth).unwrap_or((false, line));
    let length = |text: &str| duration::parse(text).filter(|seconds| *seconds > 0);
    let wants = "a length of time such as 5m0s or 24h";
    let (creation, creation_at) = out.one(etcd, "creation", wants, length).unwrap_or((300, at));
    let (retention, retention_at) = out.one(etcd, "retention", wants, length).unwrap_or((86_400, at));
    if !is_on {
        out.set(DISABLE, "true", at);
        out.note(
            at,
            "no snapshots are taken on schedule, because `snapshot` is not true (as in RKE 0.1, where that is the default)",
        );
        return;
    }
    out.set(SCHEDULE, format!("@every {}", duration::go(creation)), creation_at);
    // Whatever its age, the last one is worth more than none.
    out.set(POLICY, format!("last=1,within={}", duration::go(retention)), retention_at);
    out.note(
        retention_at,
        format!(
            "`retention` is an age here: scheduled snapshots older than {} are deleted, except the newest",
            duration::go(retention)
        ),
    );
}

/// Where snapshots go, too.
fn s3_backup_config(out: &mut Translated, found: &Node) {
    let entries = out.map("s3backupconfig", found);
    out.ignore("s3backupconfig", entries, &S3.map(|(theirs, _)| theirs));
    for (theirs, ours) in S3 {
        let text = |text: &str| Some(text.to_owned());
        if let Some((text, line)) = out.one(entries, theirs, "a text", text).filter(|(text, _)| !text.is_empty()) {
            out.set(ours, text, line);
        }
    }
    out.set("etcd-s3", "true", found.line);
}

/// The keys of RKE 0.2: an interval, and a count.
fn backup_config(out: &mut Translated, found: &Node, etcd: &[(Node, Node)]) {
    let config = out.map("backup_config", found);
    let known = ["enabled", "interval_hours", "retention", "safe_timestamp", "timeout", "s3backupconfig"];
    out.ignore("backup_config", config, &known);
    let older: Vec<&str> =
        ["snapshot", "creation", "retention"].into_iter().filter(|name| find(etcd, name).is_some()).collect();
    if !older.is_empty() {
        out.note(found.line, format!("`backup_config` counts; the older {} of etcd do not", older.join(", ")));
    }
    let (is_on, at) = out.one(config, "enabled", "true or false", truth).unwrap_or((true, found.line));
    let (hours, hours_at) =
        out.one(config, "interval_hours", "a number of hours above 0", positive).unwrap_or((12, at));
    let (count, count_at) = out.one(config, "retention", "a number of snapshots above 0", positive).unwrap_or((6, at));
    // Our names have no colons anyway.
    out.one(config, "safe_timestamp", "true or false", truth);
    if let Some((seconds, line)) = out.one(config, "timeout", "a number of seconds above 0", positive) {
        out.set(TIMEOUT, format!("{seconds}s"), line);
    }
    if let Some(s3) = find(config, "s3backupconfig").filter(|s3| s3.value != Value::Nothing) {
        s3_backup_config(out, s3);
    }
    if !is_on {
        out.set(DISABLE, "true", at);
        out.note(at, "no snapshots are taken on schedule, because `backup_config` is not enabled");
        return;
    }
    out.set(SCHEDULE, format!("@every {hours}h"), hours_at);
    out.set(RETENTION, count.to_string(), count_at);
    out.note(
        count_at,
        format!(
            "`retention` is a count here, as the pages of RKE say: the newest {count} scheduled snapshots of this node are kept \
             (RKE's own code took it for an age, {count} times {hours} h; a page of Rancher's for days)"
        ),
    );
}
