//! `quorate etcd-snapshot ls`.

use serde::Serialize;

use super::super::output::{self, Format};
use super::Place;
use super::inside;
use super::item::{self, Item};
use crate::error::{Exit, Failure};
use crate::snapshot::list;

/// Shows what was found when each was last verified; only `verify` looks into them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A snapshot, by name or path: list the keys in it
    #[arg(value_name = "NAME-OR-PATH")]
    snapshot: Option<String>,
    /// Only keys that begin so
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// The keys as they were at this revision, if the snapshot still knows
    #[arg(long, value_name = "REVISION", requires = "snapshot")]
    rev: Option<i64>,
    /// Also show revision, keys, etcd and status
    #[arg(long, short)]
    wide: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// What programs read: written as it is, since there may be thousands.
#[derive(Serialize)]
struct Items<'a> {
    items: &'a [Item],
}

pub(super) fn run(place: &Place, args: &Args) -> Result<Exit, Failure> {
    if let Some(snapshot) = &args.snapshot {
        return inside::list(place, snapshot, &args.prefix, args.rev, args.output);
    }
    let dir = &place.dir;
    let items: Vec<Item> = list::list(dir)?.into_iter().map(|listed| Item::of_listed(listed, dir)).collect();
    if !output::structured(&Items { items: &items }, args.output)? {
        if items.is_empty() {
            output::talk(&format!("quorate: there are no snapshots in {}\n", dir.display()));
        } else {
            output::data(&item::table(&items, args.wide))?;
        }
    }
    Ok(Exit::Done)
}
