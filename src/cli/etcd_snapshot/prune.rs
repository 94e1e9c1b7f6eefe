//! `quorate etcd-snapshot prune`.

use serde::Serialize;

use crate::cli::etcd_snapshot::context::{SnapshotContext, StoreSelection};
use crate::cli::output::{self, Format};
use crate::cli::runtime::block_on;
use crate::clock;
use crate::config::Config;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::plan::owner::Owner;
use crate::plan::retention::{Policy, RetentionDecision};
use crate::plan::snapshot_name::{InvalidPrefix, NamePrefix, ON_DEMAND};
use crate::snapshot::prune;
use crate::snapshot::store::Store;
use crate::text::{duration, escape_control};

/// Deletes only snapshots that this server took (under any node name) with one base name. A snapshot is kept if any
/// rule keeps it, if it is held or damaged, or if it is the newest good one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot prune --name before-upgrade --keep-last 3 --dry-run
  quorate etcd-snapshot prune --name weekly --keep-weekly 4 --keep-monthly 12
  quorate etcd-snapshot prune --node old-host --name nightly --keep-within 30d
  quorate etcd-snapshot prune --s3 --s3-retention=30")]
pub(super) struct Args {
    /// Base name of the snapshots [scheduled ones have etcd-snapshot-name]
    #[arg(long, alias = "etcd-snapshot-name", default_value = ON_DEMAND)]
    name: String,
    /// Prune the snapshots of this node name instead of those of this server
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Keep the last N snapshots; 0 keeps all [default: as configured, if no other rule is given]
    #[arg(long, visible_aliases = ["snapshot-retention", "keep-last"], value_name = "N")]
    etcd_snapshot_retention: Option<u32>,
    /// Keep the latest snapshot of each of the last N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_hourly: u32,
    /// Keep the latest snapshot of each of the last N days that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_daily: u32,
    /// Keep the latest snapshot of each of the last N weeks that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_weekly: u32,
    /// Keep the latest snapshot of each of the last N months that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_monthly: u32,
    /// Keep the latest snapshot of each of the last N years that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_yearly: u32,
    /// Keep all snapshots newer than this age, e.g. 36h, 30d, 8w
    #[arg(long, value_name = "TIME", value_parser = duration::parse_age)]
    keep_within: Option<u64>,
    #[command(flatten)]
    which: StoreSelection,
    /// Show what would be deleted and why, without deleting anything
    #[arg(long)]
    dry_run: bool,
    /// Output format
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
struct BadName(#[from] InvalidPrefix);

impl Diagnostic for BadName {
    fn code(&self) -> Code {
        Code::InvalidSnapshotName
    }

    fn next_step(&self) -> Option<String> {
        Some("choose another --name".into())
    }
}

pub(super) fn run(config: &Config, place: &SnapshotContext, args: &Args) -> Result<Exit, AppError> {
    let owner = match &args.node {
        Some(node) => &Owner::named(node),
        None => &place.owner,
    };
    let base: NamePrefix = args.name.parse().map_err(BadName)?;
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
        // Invalid settings of one store are reported before anything is deleted in the other.
        place.check_remote(args.which)?;
        if let Some(local) = place.local(args.which)? {
            places.push(local.place());
            let policy = if is_ruled { rules } else { config.snapshot.policy() };
            let (decided, failure) = one(&local, &base, owner, &policy, now, args.dry_run).await?;
            items.extend(decided);
            failed = failure;
        }
        if let Some(remote) = place.remote(args.which).await? {
            places.push(remote.place());
            let policy = if is_ruled { rules } else { config.snapshot.policy() };
            // etcd-s3-retention applies to the bucket, in addition to rules on the command line.
            let policy = match (place.s3.retention, place.is_overridden("etcd-s3-retention")) {
                (Some(count), is_said) if is_said || !is_ruled => Policy { last: Some(count), ..policy },
                // 0 keeps all, or defers to the other rules.
                (Some(_), _) if policy.last == Some(0) => policy,
                (Some(count), _) => Policy { last: policy.last.max(Some(count)), ..policy },
                (None, _) => policy,
            };
            let (decided, failure) = one(&remote, &base, owner, &policy, now, args.dry_run).await?;
            items.extend(decided);
            failed = failed.take().or(failure);
        }
        Ok::<_, AppError>(())
    })?;
    if !output::structured(&serde_json::json!({ "items": items }), args.output)? {
        print_decisions(&items, args.dry_run)?;
        if items.is_empty() && done.is_ok() {
            let (node, places) = (&owner.node, places.join(", nor in "));
            output::note(&format!("quorate: there are no snapshots {base}-{node}-… in {places}\n"));
        }
    }
    done?;
    failed.map_or(Ok(Exit::Done), Err)
}

/// The action for each snapshot, and the totals.
fn print_decisions(items: &[Decided], dry_run: bool) -> Result<(), AppError> {
    let line = |text: String| output::fitted(&text) + "\n";
    for item in items {
        let shown = escape_control(if item.location.starts_with("s3://") { &item.location } else { &item.name });
        let reason = escape_control(&item.reason);
        match item.action {
            action if dry_run => output::print_stdout(&line(format!("{action} {shown}: {reason}")))?,
            "drop" => output::print_result(&line(format!("{shown} deleted")))?,
            "locked" => output::print_result(&line(format!("{shown} kept: {reason}")))?,
            _ => {}
        }
    }
    let of = |action: &str| items.iter().filter(|item| item.action == action).count();
    let (deleted, failed) = (of("drop"), of("failed"));
    let kept = items.len() - deleted - failed;
    let failed = if failed == 0 { String::new() } else { format!(", {failed} could not be deleted") };
    let line = if dry_run {
        format!("would keep {kept}, would delete {deleted}\n")
    } else {
        format!("kept {kept}, deleted {deleted}{failed}\n")
    };
    Ok(output::print_result(&line)?)
}

/// Applies the policy; with a dry run, only reports.
async fn one(
    store: &impl Store,
    base: &NamePrefix,
    owner: &Owner,
    policy: &Policy,
    now: u64,
    dry_run: bool,
) -> Result<(Vec<Decided>, Option<AppError>), AppError> {
    let all = store.list().await?;
    let namesakes = prune::renamed(&all, base, owner).namesakes;
    if namesakes > 0 {
        output::note(&format!(
            "quorate: note: {} in {} of a node {node} with other data left alone; to prune them: --node {node}\n",
            output::plural(namesakes, "snapshot"),
            store.place(),
            node = owner.node,
        ));
    }
    let decided = prune::plan(&all, base, owner, policy, now);
    let dropped = prune::dropped(&decided);
    let removed = if dry_run || dropped.is_empty() { None } else { Some(store.remove(&dropped).await?) };
    let outcome = |name: &String| -> Option<(&'static str, String)> {
        let removed = removed.as_ref()?;
        if let Some((_, why)) = removed.kept.iter().find(|(kept, _)| kept == name) {
            return Some(("locked", why.clone()));
        }
        (!removed.gone.contains(name)).then(|| ("failed", "could not be deleted".to_owned()))
    };
    let items = decided.into_iter().map(|(listed, verdict)| {
        let (action, reason) = match verdict {
            RetentionDecision::Keep(reason) => ("keep", reason),
            RetentionDecision::Drop(reason) => outcome(&listed.name).unwrap_or(("drop", reason)),
        };
        Decided { location: store.location(&listed.name), name: listed.name, action, reason }
    });
    let items = items.collect();
    Ok((items, removed.and_then(|removed| removed.failed)))
}
