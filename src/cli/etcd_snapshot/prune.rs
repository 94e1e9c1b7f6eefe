//! `quorate etcd-snapshot prune`.

use serde::Serialize;

use super::super::block_on;
use super::super::output::{self, Format};
use super::place::{Place, Which};
use crate::clock;
use crate::config::Config;
use crate::error::{Exit, Explained, Failure};
use crate::host::printable;
use crate::plan::duration;
use crate::plan::owner::Owner;
use crate::plan::retention::{Policy, Verdict};
use crate::snapshot::name::{Base, NotABase, ON_DEMAND};
use crate::snapshot::prune;
use crate::snapshot::store::Store;

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
    #[arg(long, value_name = "TIME", value_parser = duration::parse_age)]
    keep_within: Option<u64>,
    #[command(flatten)]
    which: Which,
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
    location: String,
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
    let owner = &place.owner;
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
    let is_ruled = rules != Policy::default();
    let now = clock::unix_seconds(clock::now());
    let (mut items, mut places, mut failed) = (Vec::new(), Vec::new(), None);
    let done = block_on(async {
        if let Some(local) = place.local(args.which) {
            places.push(local.place());
            let policy = if is_ruled { rules } else { config.snapshot.policy() };
            let (decided, failure) = one(&local, &base, owner, &policy, now, args.dry_run).await?;
            items.extend(decided);
            failed = failure;
        }
        if let Some(remote) = place.remote(args.which).await? {
            places.push(remote.place());
            let policy = if is_ruled { rules } else { config.snapshot.policy() };
            // A count of the store's own is meant for the store; beside rules that were said here it is one more.
            let policy = match (place.s3.retention, place.is_said("etcd-s3-retention")) {
                (Some(count), is_said) if is_said || !is_ruled => Policy { last: Some(count), ..policy },
                // 0 keeps all, or leaves it to the other rules.
                (Some(_), _) if policy.last == Some(0) => policy,
                (Some(count), _) => Policy { last: policy.last.max(Some(count)), ..policy },
                (None, _) => policy,
            };
            let (decided, failure) = one(&remote, &base, owner, &policy, now, args.dry_run).await?;
            items.extend(decided);
            failed = failed.take().or(failure);
        }
        Ok::<_, Failure>(())
    })?;
    if !output::structured(&serde_json::json!({ "items": items }), args.output)? {
        for item in &items {
            let shown = if item.location.starts_with("s3://") { &item.location } else { &item.name };
            let shown = printable(shown);
            match item.action {
                "drop" if !args.dry_run => output::data(&format!("{shown} deleted\n"))?,
                "locked" => output::data(&format!("{shown} kept: {}\n", printable(&item.reason)))?,
                action if args.dry_run => output::data(&format!("{action} {shown}: {}\n", item.reason))?,
                _ => {}
            }
        }
        if items.is_empty() && done.is_ok() {
            output::talk(&format!(
                "quorate: there are no snapshots {base}-{}-… in {}\n",
                owner.node,
                places.join(", nor in ")
            ));
        }
    }
    done?;
    failed.map_or(Ok(Exit::Done), Err)
}

/// Decides, and does it unless it is only to be said.
async fn one(
    store: &impl Store,
    base: &Base,
    owner: &Owner,
    policy: &Policy,
    now: u64,
    dry_run: bool,
) -> Result<(Vec<Decided>, Option<Failure>), Failure> {
    let decided = prune::plan(&store.list().await?, base, owner, policy, now);
    let dropped = prune::dropped(&decided);
    let removed = if dry_run || dropped.is_empty() { None } else { Some(store.remove(&dropped).await?) };
    let fate = |name: &String| -> Option<(&'static str, String)> {
        let removed = removed.as_ref()?;
        if let Some((_, why)) = removed.kept.iter().find(|(kept, _)| kept == name) {
            return Some(("locked", why.clone()));
        }
        (!removed.gone.contains(name)).then(|| ("failed", "it could not be deleted".to_owned()))
    };
    let items = decided.into_iter().map(|(listed, verdict)| {
        let (action, reason) = match verdict {
            Verdict::Keep(reason) => ("keep", reason),
            Verdict::Drop(reason) => fate(&listed.name).unwrap_or(("drop", reason)),
        };
        Decided { location: store.location(&listed.name), name: listed.name, action, reason }
    });
    let items = items.collect();
    Ok((items, removed.and_then(|removed| removed.failed)))
}
