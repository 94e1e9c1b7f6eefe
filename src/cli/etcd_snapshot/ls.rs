//! `quorate etcd-snapshot ls`.

use serde::Serialize;

use super::super::block_on;
use super::super::output::{self, Format};
use super::inside;
use super::item::{self, Item};
use super::place::{Place, Which};
use crate::error::{Exit, Failure};
use crate::snapshot::store::Store as _;

/// Shows what was found when each was last verified; only `verify` looks into them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A snapshot, by name, path or `s3://BUCKET/KEY`: list the keys in it
    #[arg(value_name = "NAME-OR-PATH")]
    snapshot: Option<String>,
    /// Only keys that begin so
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// The keys as they were at this revision, if the snapshot still knows
    #[arg(long, value_name = "REVISION", requires = "snapshot")]
    rev: Option<i64>,
    #[command(flatten)]
    which: Which,
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
    let (items, places, failed) = block_on(collect(place, args.which))?;
    if !output::structured(&Items { items: &items }, args.output)? {
        if items.is_empty() && failed.is_none() {
            output::talk(&format!("quorate: there are no snapshots in {}\n", places.join(", nor in ")));
        } else if !items.is_empty() {
            output::data(&item::table(&items, args.wide, output::columns()))?;
        }
    }
    match failed {
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}

/// What is in each place. If one cannot be looked into, the other is shown all the same.
async fn collect(place: &Place, which: Which) -> (Vec<Item>, Vec<String>, Option<Failure>) {
    let (mut items, mut places, mut failed) = (Vec::new(), Vec::new(), None);
    if let Some(local) = place.local(which) {
        places.push(local.place());
        match local.list().await {
            Ok(all) => items.extend(all.into_iter().map(|listed| Item::of_directory(listed, &local.0))),
            Err(failure) => failed = Some(failure),
        }
    }
    let there = async {
        let Some(remote) = place.remote(which).await? else { return Ok(()) };
        places.push(remote.place());
        for listed in remote.list().await? {
            let location = remote.location(&listed.name);
            items.push(Item::of_listed(listed, &location, None));
        }
        Ok(())
    };
    if let Err(failure) = there.await {
        failed.get_or_insert(failure);
    }
    (items, places, failed)
}
