//! `quorate etcd-snapshot prune`.

use serde::Serialize;

use super::super::output::{self, Format};
use super::Place;
use crate::clock;
use crate::config::Config;
use crate::error::{Exit, Explained, Failure};
use crate::host::printable;
use crate::plan::duration;
use crate::plan::retention::{Policy, Verdict};
use crate::snapshot::name::{Base, NotABase, ON_DEMAND};
use crate::snapshot::prune;

/// Deletes this node's older snapshots of one base name. What any of the rules keeps stays, and so do the newest good one, those
/// that are held, and those that are damaged.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Base name; the scheduled ones are called by etcd-snapshot-name
    #[arg(long, default_value = ON_DEMAND)]
    name: String,
    /// Keep the newest so many; 0 keeps all [default: as configured, if no other rule is given]
    #[arg(long, visible_aliases = ["snapshot-retention", "keep-last"], value_name = "N")]
    etcd_snapshot_retention: Option<u32>,
    /// Keep the newest of each of the last N hours that have any
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_hourly: u32,
    /// … days
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_daily: u32,
    /// … weeks
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_weekly: u32,
    /// … months
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_monthly: u32,
    /// … years
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_yearly: u32,
    /// Keep all that are not older, such as 36h, 30d, 8w
    #[arg(long, value_name = "TIME", value_parser = |text: &str| duration::parse(text).ok_or("wants a time such as 36h, 30d, 8w"))]
    keep_within: Option<u64>,
    /// Only say what would be kept and deleted, and why
    #[arg(long)]
    dry_run: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Decided {
    name: String,
    action: &'static str,
    reason: String,
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct BadName(#[from] NotABase);

impl Explained for BadName {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn next(&self) -> Option<String> {
        Some("choose another --name".into())
    }
}

pub(super) fn run(config: &Config, place: &Place, args: &Args) -> Result<Exit, Failure> {
    let Place { dir, node } = place;
    let base: Base = args.name.parse().map_err(BadName)?;
    let rules = Policy {
        last: args.etcd_snapshot_retention,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within: args.keep_within,
    };
    let policy = if rules == Policy::default() { config.snapshot.policy() } else { rules };
    let decided = prune::plan(dir, &base, node, &policy, clock::unix_seconds(clock::now()))?;
    if !args.dry_run {
        prune::carry_out(dir, &decided)?;
    }
    let items: Vec<Decided> = decided
        .into_iter()
        .map(|(listed, verdict)| match verdict {
            Verdict::Keep(reason) => Decided { name: listed.name, action: "keep", reason },
            Verdict::Drop(reason) => Decided { name: listed.name, action: "drop", reason },
        })
        .collect();
    if output::structured(&serde_json::json!({ "items": items }), args.output)? {
        return Ok(Exit::Done);
    }
    for item in items.iter().filter(|item| args.dry_run || item.action == "drop") {
        let name = printable(&item.name);
        let line = format!("{} {name}: {}\n", item.action, item.reason);
        output::data(&if args.dry_run { line } else { format!("{name} deleted\n") })?;
    }
    if items.is_empty() {
        output::talk(&format!("quorate: there are no snapshots {base}-{node}-… in {}\n", dir.display()));
    }
    Ok(Exit::Done)
}
