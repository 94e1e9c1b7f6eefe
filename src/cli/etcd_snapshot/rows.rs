//! The table of `ls`: one row for each snapshot, with its locations.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use clap::ValueEnum;

use crate::cli::etcd_snapshot::item::SnapshotItem;
use crate::cli::output;
use crate::cli::table::{Column, table};
use crate::clock;
use crate::text::{age, escape_control, format_bytes};

/// The values of `--sort-by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SortBy {
    /// The newest first
    Age,
    /// In alphabetical order
    Name,
    /// The largest first
    Size,
}

/// In this order.
pub(super) fn sort(items: &mut [SnapshotItem], by: SortBy) {
    match by {
        SortBy::Age => items.sort_by_key(|item| std::cmp::Reverse(item.taken_at)),
        SortBy::Name => items.sort_by(|left, right| left.name.cmp(&right.name)),
        SortBy::Size => items.sort_by_key(|item| std::cmp::Reverse(item.size)),
    }
}

/// A snapshot, in one store or several.
struct Row<'i> {
    items: Vec<&'i SnapshotItem>,
}

/// Groups copies of the same snapshot, in the order of their first occurrence.
fn rows(items: &[SnapshotItem]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut places = std::collections::HashMap::<&str, Vec<usize>>::new();
    for item in items {
        let same = places.entry(&item.name).or_default();
        let is_same = |index: &&usize| rows[**index].items.iter().all(|known| is_copy(known, item));
        if let Some(index) = same.iter().find(is_same) {
            rows[*index].items.push(item);
        } else {
            same.push(rows.len());
            rows.push(Row { items: vec![item] });
        }
    }
    rows
}

/// True if two with the same name in two stores are the same snapshot, as far as known.
fn is_copy(one: &SnapshotItem, other: &SnapshotItem) -> bool {
    let is_same = match (&one.sha256, &other.sha256) {
        (Some(one), Some(other)) => one == other,
        _ => one.size == other.size || one.status != "good" || other.status != "good",
    };
    is_same && one.is_there() != other.is_there()
}

fn place(item: &SnapshotItem) -> &'static str {
    if item.is_there() { "s3" } else { "node" }
}

impl<'i> Row<'i> {
    fn first(&self) -> &'i SnapshotItem {
        self.items[0]
    }

    fn where_it_is(&self) -> String {
        self.items.iter().map(|item| place(item)).collect::<Vec<_>>().join(", ")
    }

    /// One word for all stores, or one for each.
    fn status(&self) -> String {
        let first = &self.first().status;
        let mut words = if self.items.iter().all(|item| item.status == *first) {
            vec![first.clone()]
        } else {
            self.items.iter().map(|item| format!("{} {}", place(item), item.status)).collect()
        };
        if self.items.iter().any(|item| item.held) {
            words.push("held".into());
        }
        words.join(", ")
    }
}

/// A name for each snapshot.
pub(super) fn names(items: &[SnapshotItem]) -> String {
    rows(items).iter().map(|row| format!("{}\n", escape_control(&row.first().name))).collect()
}

fn age_of(item: &SnapshotItem, now: u64) -> String {
    now.checked_sub(item.taken_at).map_or_else(|| "future".into(), age::short)
}

/// Name, Age, Size, Status and Where: a row for each snapshot.
pub(super) fn short(items: &[SnapshotItem], with_head: bool, columns: Option<usize>, now: u64) -> String {
    const HEAD: [Column; 5] = [
        Column::long("Name"),
        Column::left("Age"),
        Column::right("Size"),
        Column::left("Status"),
        Column::left("Where"),
    ];
    let rows: Vec<Vec<String>> = rows(items)
        .iter()
        .map(|row| {
            let item = row.first();
            vec![
                escape_control(&item.name),
                age_of(item, now),
                format_bytes(item.size),
                row.status(),
                row.where_it_is(),
            ]
        })
        .collect();
    // Lines wrap on a terminal that is too narrow.
    table(&HEAD, &rows, with_head, columns).or_else(|| table(&HEAD, &rows, with_head, None)).unwrap_or_default()
}

/// All facts, one row for each store; several lines for each snapshot on a terminal that is too narrow.
pub(super) fn wide(items: &[SnapshotItem], with_head: bool, columns: Option<usize>, now: u64) -> String {
    const HEAD: [Column; 9] = [
        Column::left("Name"),
        Column::left("Location"),
        Column::right("Size"),
        Column::left("Created"),
        Column::left("Age"),
        Column::right("Revision"),
        Column::right("Keys"),
        Column::left("Etcd"),
        Column::left("Status"),
    ];
    let unknown = || "-".to_owned();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            vec![
                escape_control(&item.name),
                escape_control(&item.location),
                format_bytes(item.size),
                created(item, columns.is_some()),
                age_of(item, now),
                item.revision.map_or_else(unknown, |revision| revision.to_string()),
                item.keys.map_or_else(unknown, |keys| keys.to_string()),
                item.etcd_version.as_deref().map_or_else(unknown, escape_control),
                Row { items: vec![item] }.status(),
            ]
        })
        .collect();
    table(&HEAD, &rows, with_head, columns).unwrap_or_else(|| records(items, columns.unwrap_or(output::WIDTH), now))
}

/// Local time with its offset on a terminal, otherwise UTC.
fn created(item: &SnapshotItem, is_local: bool) -> String {
    if is_local { clock::local(UNIX_EPOCH + Duration::from_secs(item.taken_at)) } else { item.created.clone() }
}

/// Some lines for each snapshot.
fn records(items: &[SnapshotItem], columns: usize, now: u64) -> String {
    const INDENT: usize = 12;
    let mut text = String::new();
    for row in rows(items) {
        let item = row.first();
        let _ = writeln!(text, "{}", output::truncate_middle(&escape_control(&item.name), columns));
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<10}{}", output::wrap_text(value, INDENT, columns));
        };
        for (index, item) in row.items.iter().enumerate() {
            // The name is above.
            let place = item.location.strip_suffix(item.name.as_str()).unwrap_or(&item.location);
            let location = output::truncate_middle(&escape_control(place), columns.saturating_sub(INDENT));
            line(if index == 0 { "location" } else { "" }, &location);
        }
        line("size", &format_bytes(item.size));
        line("created", &format!("{} ({})", created(item, true), age::ago(item.taken_at, now)));
        let mut facts = Vec::new();
        facts.extend(item.revision.map(|revision| format!("revision {revision}")));
        facts.extend(item.keys.map(|keys| format!("{keys} keys")));
        facts.extend(item.etcd_version.as_deref().map(|version| format!("etcd {}", escape_control(version))));
        if !facts.is_empty() {
            line("contents", &facts.join(", "));
        }
        line("status", &row.status());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::list::{Listed, SnapshotStatus};
    use crate::snapshot::manifest::Manifest;

    const NOW: u64 = 1_795_296_318;

    fn item(name: &str, location: &str, status: SnapshotStatus, sha256: &str) -> SnapshotItem {
        let manifest = Manifest {
            name: name.into(),
            sha256: sha256.into(),
            revision: 426,
            keys: 423,
            etcd_version: "3.5.30".into(),
            created: "2026-11-21T21:21:58Z".into(),
            ..Manifest::default()
        };
        let listed =
            Listed { name: name.into(), size: 20_480, created: 1_795_296_118, status, manifest: Some(manifest) };
        SnapshotItem::of_listed(listed, &format!("{location}/{name}"))
    }

    const DIR: &str = "file:///var/lib/quorate/server/db/snapshots";
    const BUCKET: &str = "s3://backups/a/folder/that/is/quite/deep/in/the/bucket";

    #[test]
    fn a_snapshot_is_a_row_with_its_places_and_what_is_wrong_with_it() {
        let name = "etcd-snapshot-node-1-1795296118";
        let mut held = item("held-node-1-1795296118", DIR, SnapshotStatus::Good, "aa");
        held.held = true;
        let items = [
            item(name, DIR, SnapshotStatus::Good, "aa"),
            item(name, BUCKET, SnapshotStatus::Good, "aa"),
            item("damaged", DIR, SnapshotStatus::Corrupt, "bb"),
            item("damaged", BUCKET, SnapshotStatus::Good, "bb"),
            item("two", DIR, SnapshotStatus::Good, "cc"),
            item("two", BUCKET, SnapshotStatus::Good, "dd"),
            held,
            item("copied-in", DIR, SnapshotStatus::Partial, ""),
        ];
        let text = short(&items, true, None, NOW);
        let expected = [
            "Name                             Age      Size  Status                 Where",
            "etcd-snapshot-node-1-1795296118  3m20s  20 KiB  good                   node, s3",
            "damaged                          3m20s  20 KiB  node corrupt, s3 good  node, s3",
            "two                              3m20s  20 KiB  good                   node",
            "two                              3m20s  20 KiB  good                   s3",
            "held-node-1-1795296118           3m20s  20 KiB  good, held             node",
            "copied-in                        3m20s  20 KiB  partial                node",
        ];
        let shown: Vec<String> = text.lines().map(|line| line.replace("20.0 KiB", "20 KiB")).collect();
        for (line, expected) in shown.iter().zip(expected) {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(line), words(expected));
        }
        assert_eq!(shown.len(), expected.len());
        assert_eq!(names(&items).lines().count(), 6);
    }

    #[test]
    fn everything_fits_a_terminal_of_80_columns() {
        let long =
            format!("{}-a-node-with-a-rather-long-name-1795296118.zip", "before-the-upgrade-of-everything".repeat(3));
        let items = [
            item(&long, DIR, SnapshotStatus::Good, "aa"),
            item(&long, BUCKET, SnapshotStatus::Good, "aa"),
            item("数据库快照数据库快照数据库快照数据库快照数据库快照-1795296118", DIR, SnapshotStatus::Unreadable, ""),
        ];
        for text in [short(&items, true, Some(80), NOW), wide(&items, true, Some(80), NOW)] {
            assert!(text.lines().all(|line| output::width(line) <= 80), "{text}");
            assert!(text.contains("1795296118.zip"), "the time distinguishes them: {text}");
        }
        let text = wide(&items, true, Some(80), NOW);
        assert!(text.contains("file:///") && text.contains("s3://"), "{text}");
        // Not on a terminal: complete, in UTC, with the columns of RKE2's table.
        let text = wide(&items, true, None, NOW);
        assert!(text.starts_with("Name ") && text.contains(&format!("{BUCKET}/{long}")), "{text}");
        assert!(["Location", "Size", "Created"].iter().all(|name| text.lines().next().unwrap().contains(name)));
        assert!(text.contains("2026-11-21T21:21:58Z"), "{text}");
        assert!(!short(&items, false, None, NOW).contains("Name"));
    }

    #[test]
    fn the_order_can_be_chosen() {
        let with =
            |name: &str, taken_at, size| SnapshotItem { size, taken_at, ..item(name, DIR, SnapshotStatus::Good, "") };
        let mut items = [with("b", 1, 10), with("a", 3, 5), with("c", 2, 20)];
        for (by, expected) in [(SortBy::Age, "acb"), (SortBy::Name, "abc"), (SortBy::Size, "cba")] {
            sort(&mut items, by);
            assert_eq!(items.iter().map(|item| item.name.as_str()).collect::<String>(), expected);
        }
    }
}
