//! A snapshot as `ls` and `save` show it. The fields of the JSON are documented in `docs/snapshots.md`; added to, never renamed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::super::output;
use crate::clock;
use crate::host::printable;
use crate::plan::space::human;
use crate::snapshot::list::{self, Listed};
use crate::snapshot::manifest::Manifest;

/// One snapshot.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) location: String,
    pub(super) size: u64,
    pub(super) created: String,
    pub(super) revision: Option<i64>,
    pub(super) keys: Option<u64>,
    pub(super) etcd_version: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) compression: String,
    pub(super) reason: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) status: String,
    pub(super) verified_at: Option<String>,
    pub(super) held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uploaded_to: Option<String>,
}

impl Item {
    /// One of a directory.
    pub(super) fn of_directory(listed: Listed, dir: &Path) -> Self {
        let path = dir.join(&listed.name);
        let revision = if listed.manifest.is_none() { list::peek(&path) } else { None };
        Self::of_listed(listed, &format!("file://{}", path.display()), revision)
    }

    /// One that is at `location`; `revision` is known from elsewhere than its manifest.
    pub(super) fn of_listed(listed: Listed, location: &str, revision: Option<i64>) -> Self {
        let created = clock::rfc3339(UNIX_EPOCH + Duration::from_secs(listed.created));
        let known = listed.manifest.map(|manifest| Self::of_manifest(manifest, location.to_owned()));
        let unknown = || Self {
            location: location.to_owned(),
            name: listed.name.clone(),
            node: None,
            size: listed.size,
            created,
            revision,
            keys: None,
            etcd_version: None,
            sha256: None,
            compression: String::new(),
            reason: None,
            labels: BTreeMap::new(),
            status: String::new(),
            verified_at: None,
            held: false,
            uploaded_to: None,
        };
        Self { size: listed.size, status: listed.status.word().into(), ..known.unwrap_or_else(unknown) }
    }

    /// One that was saved a moment ago.
    pub(super) fn of_manifest(manifest: Manifest, location: String) -> Self {
        Self {
            location,
            name: manifest.name,
            node: Some(manifest.node),
            size: manifest.size,
            created: manifest.created,
            revision: Some(manifest.revision),
            keys: Some(manifest.keys),
            etcd_version: Some(manifest.etcd_version),
            sha256: Some(manifest.sha256),
            compression: manifest.compression,
            reason: Some(manifest.reason),
            labels: manifest.labels,
            status: manifest.verification.as_ref().map_or_else(|| "unverified".into(), |found| found.status.clone()),
            verified_at: manifest.verification.map(|found| found.at),
            held: manifest.held,
            uploaded_to: None,
        }
    }
}

/// Between columns.
const GAP: usize = 2;
/// Which column says where.
const LOCATION: usize = 1;
/// It is no narrower.
const NARROWEST: usize = 10;

/// Name, Location, Size, Created; with `wide` also revision, keys, etcd and status. Where a terminal of `columns` is too narrow for whole
/// locations, they are where the names are, as far as there is room.
pub(super) fn table(items: &[Item], wide: bool, columns: Option<usize>) -> String {
    let mut head = vec!["Name", "Location", "Size", "Created"];
    if wide {
        head.extend(["Revision", "Keys", "Etcd", "Status"]);
    }
    let unknown = || "-".to_owned();
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for item in items {
        let mut row = vec![printable(&item.name), printable(&item.location), human(item.size), item.created.clone()];
        if wide {
            row.push(item.revision.map_or_else(unknown, |revision| revision.to_string()));
            row.push(item.keys.map_or_else(unknown, |keys| keys.to_string()));
            row.push(item.etcd_version.clone().unwrap_or_else(unknown));
            row.push(if item.held { format!("{}, held", item.status) } else { item.status.clone() });
        }
        rows.push(row);
    }
    let mut widths = widths(&rows);
    let whole: usize = widths.iter().map(|width| width + GAP).sum();
    if let Some(over) = columns.and_then(|columns| whole.checked_sub(GAP + columns)).filter(|over| *over > 0) {
        let room = widths[LOCATION].saturating_sub(over).max(NARROWEST);
        for row in rows.iter_mut().skip(1) {
            let place = row[LOCATION].strip_suffix(row[0].as_str()).unwrap_or(&row[LOCATION]);
            row[LOCATION] = output::cut_at_start(place.strip_prefix("file://").unwrap_or(place), room);
        }
        widths = self::widths(&rows);
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{:1$}", "", width - cell.chars().count()))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    (0..rows.first().map_or(0, Vec::len)).map(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_shortened_where_a_terminal_is_narrow() {
        let item = |location: &str| {
            let listed = Listed {
                name: "etcd-snapshot-node-1-1795296118".into(),
                size: 20_480,
                created: 1_795_296_118,
                status: list::Status::Good,
                manifest: None,
            };
            Item::of_listed(listed, &format!("{location}/etcd-snapshot-node-1-1795296118"), None)
        };
        let items = [item("file:///var/lib/quorate/server/db/snapshots"), item("s3://backups/prod")];
        let whole = table(&items, false, None);
        assert!(
            whole.contains("file:///var/lib/quorate/server/db/snapshots/etcd-snapshot-node-1-1795296118  20.0 KiB")
        );
        assert_eq!(whole, table(&items, false, Some(200)));
        let narrow = table(&items, false, Some(80));
        assert!(narrow.contains("1795296118  …/db/snapshots/  20.0 KiB  2026-11-21T21:21:58Z"), "{narrow}");
        assert!(narrow.contains("1795296118  …/backups/prod/"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert_eq!(table(&items, false, Some(60)).lines().map(|line| line.chars().count()).max(), Some(75));
    }
}
