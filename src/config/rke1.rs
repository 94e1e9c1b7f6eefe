//! Translates RKE1's `cluster.yml` (a file with `services:` or `nodes:`) into quorate's snapshot options.
//!
//! Only the keys of `services.etcd` about recurring snapshots are read, in the way of RKE itself (its
//! `types/rke_types.go` and `cluster/defaults.go`, 0.2 to 1.8): `null`, `""`, `0` and `{}`, which RKE's tools write,
//! are "not set" and have RKE's defaults: `snapshot` on, `creation` 12h, `retention` 72h; in `backup_config`,
//! `enabled`, `interval_hours` 12, `retention` 6. So only `snapshot: false` and `enabled: false` switch snapshots off.
//! A `backup_config` replaces the older keys. A key that is nearly one of these is an error, as in quorate's own files.
//! Every other source has precedence.

use crate::config::options;
use crate::config::suggest;
use crate::config::yaml::{Node, YamlValue};
use crate::text::{duration, escape_control};

pub(super) const SCHEDULE: &str = "etcd-snapshot-schedule-cron";
const DISABLE: &str = "etcd-disable-snapshots";
pub(super) const RETENTION: &str = "etcd-snapshot-retention";
pub(super) const POLICY: &str = "etcd-snapshot-retention-policy";
const TIMEOUT: &str = "etcd-snapshot-timeout";
const DIR: &str = "etcd-snapshot-dir";

/// Groups of related options: one of them from another source replaces the whole group from here.
const GROUPS: [&[&str]; 12] = [
    &[SCHEDULE, DISABLE],
    &[RETENTION, POLICY],
    &[TIMEOUT],
    &[DIR],
    &[options::ETCD_S3.name],
    &[options::ETCD_S3_ACCESS_KEY.name],
    &[options::ETCD_S3_SECRET_KEY.name],
    &[options::ETCD_S3_BUCKET.name],
    &[options::ETCD_S3_REGION.name],
    &[options::ETCD_S3_ENDPOINT.name],
    &[options::ETCD_S3_FOLDER.name],
    &[options::ETCD_S3_ENDPOINT_CA.name],
];

/// The group of an option that can come from a `cluster.yml`.
pub(super) fn group(name: &str) -> Option<&'static [&'static str]> {
    GROUPS.into_iter().find(|group| group.contains(&name))
}

pub(super) fn is_retention(name: &str) -> bool {
    name == RETENTION || name == POLICY
}

/// The keys of `s3backupconfig`.
pub(super) const S3: [(&str, &str); 7] = [
    ("access_key", options::ETCD_S3_ACCESS_KEY.name),
    ("secret_key", options::ETCD_S3_SECRET_KEY.name),
    ("bucket_name", options::ETCD_S3_BUCKET.name),
    ("region", options::ETCD_S3_REGION.name),
    ("endpoint", options::ETCD_S3_ENDPOINT.name),
    ("folder", options::ETCD_S3_FOLDER.name),
    ("custom_ca", options::ETCD_S3_ENDPOINT_CA.name),
];

/// RKE's defaults, in seconds.
const CREATION: u64 = 12 * 3600;
const AGE: u64 = 72 * 3600;

/// One mapping of the file: its name, the keys that are read, and other known keys of RKE1.
struct Place {
    name: &'static str,
    read: &'static [&'static str],
    others: &'static [&'static str],
}

const SERVICES: Place = Place {
    name: "services",
    read: &["etcd"],
    others: &["kube-api", "kube-controller", "scheduler", "kubelet", "kubeproxy"],
};
const ETCD: Place = Place {
    name: "services.etcd",
    read: &["snapshot", "creation", "retention", "backup_config"],
    others: &[
        "image",
        "extra_args",
        "extra_args_array",
        "extra_binds",
        "extra_env",
        "win_extra_args",
        "win_extra_args_array",
        "win_extra_binds",
        "win_extra_env",
        "external_urls",
        "ca_cert",
        "cert",
        "key",
        "path",
        "uid",
        "gid",
    ],
};
const BACKUP: Place = Place {
    name: "backup_config",
    read: &["enabled", "interval_hours", "retention", "safe_timestamp", "timeout", "s3backupconfig"],
    others: &[],
};
const S3_BACKUP: Place = Place {
    name: "s3backupconfig",
    read: &["access_key", "secret_key", "bucket_name", "region", "endpoint", "folder", "custom_ca"],
    others: &[],
};
/// A nested mapping whose keys may be misplaced one level too high.
const BELOW: [&Place; 2] = [&BACKUP, &S3_BACKUP];

pub(super) type WithLine<T> = (T, usize);

/// What a `cluster.yml` comes to.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) values: Vec<(&'static str, WithLine<String>)>,
    pub(super) notes: Vec<WithLine<String>>,
    pub(super) problems: Vec<WithLine<String>>,
    pub(super) is_retention_default: bool,
    pub(super) retention_note: Option<WithLine<String>>,
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

    /// The entries of a mapping, with their keys checked; `None` if it is not set, or not a mapping, which is reported.
    fn map<'n>(&mut self, place: &Place, node: &'n Node) -> &'n [(Node, Node)] {
        match &node.value {
            YamlValue::Map(entries) => {
                self.check_keys(place, entries);
                entries
            }
            _ if node.is_blank() => &[],
            _ => {
                let name = place.name.rsplit('.').next().unwrap_or(place.name);
                self.problem(node.line, format!("`{name}` must be a mapping"));
                &[]
            }
        }
    }

    /// Parses a value; `None` if it is not set, or invalid, which is reported.
    fn one<T>(
        &mut self,
        entries: &[(Node, Node)],
        name: &str,
        requirement: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<WithLine<T>> {
        let node = find(entries, name).filter(|node| !node.is_blank())?;
        let text = match &node.value {
            YamlValue::Text(text) => text.trim(),
            _ => "a list or a mapping",
        };
        match parse(text) {
            Parsed::As(value) => Some((value, node.line)),
            Parsed::NotSet => None,
            Parsed::Wrong => {
                self.problem(node.line, format!("`{name}` must be {requirement}, not `{}`", escape_control(text)));
                None
            }
        }
    }

    /// Reports keys that are not read, and keys that are probably misspelt.
    fn check_keys(&mut self, place: &Place, entries: &[(Node, Node)]) {
        let mut others = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for (key, _) in entries {
            let YamlValue::Text(name) = &key.value else {
                self.problem(key.line, "a key must be a word");
                continue;
            };
            let shown = escape_control(name);
            if seen.contains(&name.as_str()) {
                self.problem(key.line, format!("`{shown}` is given twice in {}", place.name));
            } else if place.read.contains(&name.as_str()) {
            } else if place.others.contains(&name.as_str()) {
                others.push(shown);
            } else if let Some(meant) = meant(name, place.read) {
                self.problem(key.line, format!("unknown key `{shown}` in {}; did you mean `{meant}`?", place.name));
            } else if let Some((below, meant)) = BELOW
                .iter()
                .filter(|below| place.name != "services" && below.name != place.name)
                .find_map(|below| Some((below, meant(name, below.read)?)))
            {
                self.problem(
                    key.line,
                    format!("`{shown}` does not belong into {}; `{meant}` belongs below `{}`", place.name, below.name),
                );
            } else {
                others.push(shown);
            }
            seen.push(name);
        }
        if let (false, Some((key, _))) = (others.is_empty(), entries.first()) {
            self.note(key.line, format!("quorate ignores these keys of {}: {}", place.name, others.join(", ")));
        }
    }
}

/// RKE1's keys have underscores; a key that differs in those, in case or in a letter or two is probably misspelt.
fn meant(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let plain = |text: &str| suggest::kebab(text).replace('-', "");
    let wrong = plain(name);
    let same = known.iter().find(|known| plain(known) == wrong).copied();
    same.or_else(|| {
        let kebabs: Vec<String> = known.iter().map(|known| suggest::kebab(known)).collect();
        let closest = suggest::closest(name, kebabs.iter().map(String::as_str))?;
        known.iter().zip(&kebabs).find(|(_, kebab)| *kebab == closest).map(|(known, _)| *known)
    })
}

enum Parsed<T> {
    As(T),
    NotSet,
    Wrong,
}

fn find<'n>(entries: &'n [(Node, Node)], name: &str) -> Option<&'n Node> {
    let mut all = entries.iter().filter(|(key, _)| key.value == YamlValue::Text(name.to_owned()));
    all.next().map(|(_, value)| value)
}

/// Truth values as YAML 1.1 has them, which RKE1 reads.
fn truth(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "y" => Parsed::As(true),
        "n" => Parsed::As(false),
        _ => crate::config::value_types::switch(text).map_or(Parsed::Wrong, Parsed::As),
    }
}

fn positive(text: &str) -> Parsed<u32> {
    match text.parse() {
        Ok(0) => Parsed::NotSet,
        Ok(number) => Parsed::As(number),
        Err(_) => Parsed::Wrong,
    }
}

fn length(text: &str) -> Parsed<u64> {
    match duration::parse(text) {
        Some(0) => Parsed::NotSet,
        Some(seconds) => Parsed::As(seconds),
        None if text == "0" => Parsed::NotSet,
        None => Parsed::Wrong,
    }
}

/// Translates the value of `services` in `line`.
pub(super) fn translate(line: usize, services: &Node) -> Translated {
    let mut out = Translated::default();
    let entries = out.map(&SERVICES, services);
    let nothing = Node { line, value: YamlValue::Nothing };
    let node = find(entries, "etcd").unwrap_or(&nothing);
    let etcd = out.map(&ETCD, node);
    // An empty mapping has RKE's defaults.
    let is_there = |found: &&Node| !found.is_blank() || matches!(found.value, YamlValue::Map(_));
    match find(etcd, "backup_config").filter(is_there) {
        Some(found) => backup_config(&mut out, found, etcd),
        None => rolling(&mut out, node.line, etcd),
    }
    out
}

/// The older keys: an interval, and an age.
fn rolling(out: &mut Translated, line: usize, etcd: &[(Node, Node)]) {
    let (is_on, at) = out.one(etcd, "snapshot", "true or false", truth).unwrap_or((true, line));
    let requirement = "a duration such as 5m0s or 24h";
    let (creation, creation_at) = out.one(etcd, "creation", requirement, length).unwrap_or((CREATION, at));
    let retention = out.one(etcd, "retention", requirement, length);
    out.is_retention_default = retention.is_none();
    let (retention, retention_at) = retention.unwrap_or((AGE, at));
    if !is_on {
        out.set(DISABLE, "true", at);
        out.note(at, "no scheduled snapshots: `snapshot` is false");
        return;
    }
    out.set(SCHEDULE, format!("@every {}", duration::format_go(creation)), creation_at);
    // The last one is kept regardless of its age.
    out.set(POLICY, format!("last=1,within={}", duration::format_age(retention)), retention_at);
    let what = format!(
        "`retention` is an age here: scheduled snapshots older than {} are deleted, except the newest",
        duration::format_go(retention)
    );
    out.retention_note = Some((what, retention_at));
}

fn s3_backup_config(out: &mut Translated, found: &Node) {
    let entries = out.map(&S3_BACKUP, found);
    let before = out.values.len();
    for (theirs, ours) in S3 {
        let text = |text: &str| Parsed::As(text.to_owned());
        if let Some((text, line)) = out.one(entries, theirs, "a text", text) {
            out.set(ours, text, line);
        }
    }
    if out.values.len() > before {
        out.set(options::ETCD_S3.name, "true", found.line);
    }
}

/// The keys since RKE 0.2: an interval, and a count.
fn backup_config(out: &mut Translated, found: &Node, etcd: &[(Node, Node)]) {
    let config = out.map(&BACKUP, found);
    let is_set = |name: &&str| find(etcd, name).is_some_and(|node| !node.is_blank());
    let older: Vec<&str> = ["snapshot", "creation", "retention"].into_iter().filter(is_set).collect();
    if !older.is_empty() {
        out.note(found.line, format!("`backup_config` replaces the older {} of etcd", older.join(", ")));
    }
    let (is_on, at) = out.one(config, "enabled", "true or false", truth).unwrap_or((true, found.line));
    let (hours, hours_at) = out.one(config, "interval_hours", "a number of hours", positive).unwrap_or((12, at));
    let count = out.one(config, "retention", "a number of snapshots", positive);
    out.is_retention_default = count.is_none();
    let (count, count_at) = count.unwrap_or((6, at));
    // quorate's snapshot names have no colons anyway.
    out.one(config, "safe_timestamp", "true or false", truth);
    if let Some((seconds, line)) = out.one(config, "timeout", "a number of seconds", positive) {
        out.set(TIMEOUT, format!("{seconds}s"), line);
    }
    if let Some(s3) = find(config, "s3backupconfig") {
        s3_backup_config(out, s3);
    }
    if !is_on {
        out.set(DISABLE, "true", at);
        out.note(at, "no scheduled snapshots: `backup_config` is not enabled");
        return;
    }
    out.set(SCHEDULE, format!("@every {hours}h"), hours_at);
    out.set(RETENTION, count.to_string(), count_at);
    let what = format!(
        "`retention` is a count here, as in RKE's documentation: the newest {count} scheduled snapshots of this node are kept \
         (RKE's own code took it for an age, {count} times {hours} h; a page of Rancher's for days)"
    );
    out.retention_note = Some((what, count_at));
}
