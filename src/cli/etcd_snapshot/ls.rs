//! `quorate etcd-snapshot ls`.

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::etcd_snapshot::browse;
use crate::cli::etcd_snapshot::context::{SnapshotContext, StoreSelection};
use crate::cli::etcd_snapshot::item::SnapshotItem;
use crate::cli::etcd_snapshot::rows::{self, SortBy};
use crate::cli::output::{self, Format};
use crate::cli::runtime::block_on;
use crate::clock;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::snapshot::store::Store as _;

/// The status is that of the last verification; run `verify` to check again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot ls
  quorate etcd-snapshot ls --sort-by age -o wide
  quorate etcd-snapshot ls --s3 -o json
  quorate etcd-snapshot ls latest /registry/")]
pub(super) struct Args {
    /// A snapshot whose keys to list: its name, `latest`, a base name, a path, or `s3://BUCKET/KEY`
    #[arg(value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Only keys with this prefix
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// List the keys at this revision, if the snapshot still has it
    #[arg(long, value_name = "REVISION", requires = "snapshot")]
    rev: Option<i64>,
    #[command(flatten)]
    which: StoreSelection,
    /// Also show location, time, revision, key count and etcd version (same as -o wide)
    #[arg(long, short)]
    wide: bool,
    /// Order of the list [default: the oldest first]
    #[arg(long, value_enum, value_name = "FIELD")]
    sort_by: Option<SortBy>,
    /// Omit the header line
    #[arg(long)]
    no_headers: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Layout,
}

/// The values of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// For people
    #[default]
    Table,
    /// With all columns
    Wide,
    /// One name a line
    Name,
    /// A contract: fields are added, never renamed
    Json,
    /// The same as JSON
    Yaml,
}

/// An option for the list of snapshots was given together with a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{0} applies to the list of snapshots, not to the keys in one")]
struct NotForKeys(&'static str);

impl Diagnostic for NotForKeys {
    fn code(&self) -> Code {
        Code::Usage
    }

    fn next_step(&self) -> Option<String> {
        Some("omit it, or do not name a snapshot".into())
    }
}

/// JSON, written directly, since there may be thousands.
#[derive(Serialize)]
struct Items<'a> {
    items: &'a [SnapshotItem],
}

pub(super) fn run(place: &SnapshotContext, args: &Args) -> Result<Exit, AppError> {
    let format = match args.output {
        Layout::Json => Format::Json,
        Layout::Yaml => Format::Yaml,
        Layout::Table | Layout::Wide | Layout::Name => Format::Table,
    };
    if let Some(snapshot) = &args.snapshot {
        if matches!(args.output, Layout::Wide | Layout::Name) || args.wide {
            return Err(NotForKeys("-o wide or -o name").into());
        }
        return browse::list(place, snapshot, &args.prefix, args.rev, format);
    }
    let (mut items, places, failed) = block_on(collect(place, args.which))?;
    if let Some(by) = args.sort_by {
        rows::sort(&mut items, by);
    }
    if !output::structured(&Items { items: &items }, format)? {
        if args.sort_by.is_none() {
            items.sort_by(|left, right| (left.taken_at, &left.name).cmp(&(right.taken_at, &right.name)));
        }
        if !items.is_empty() {
            output::print_stdout(&text(&items, args))?;
        } else if failed.is_none() {
            output::note(&format!("quorate: there are no snapshots in {}\n", places.join(", nor in ")));
        }
    }
    match failed {
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}

fn text(items: &[SnapshotItem], args: &Args) -> String {
    let (columns, now) = (output::columns(), clock::unix_seconds(clock::now()));
    match args.output {
        Layout::Name => rows::names(items),
        Layout::Wide => rows::wide(items, !args.no_headers, columns, now),
        _ if args.wide => rows::wide(items, !args.no_headers, columns, now),
        _ => rows::short(items, !args.no_headers, columns, now),
    }
}

/// The snapshots of each store, the oldest first. If one store fails, the other is still shown.
async fn collect(place: &SnapshotContext, which: StoreSelection) -> (Vec<SnapshotItem>, Vec<String>, Option<AppError>) {
    let (mut items, mut places, mut failed) = (Vec::new(), Vec::new(), None);
    match place.local(which) {
        Ok(Some(local)) => {
            places.push(local.place());
            match local.list().await {
                Ok(all) => items.extend(all.into_iter().map(|listed| SnapshotItem::of_directory(listed, &local.0))),
                Err(failure) => failed = Some(failure),
            }
        }
        Ok(None) => {}
        Err(failure) => failed = Some(failure),
    }
    let there = async {
        let Some(remote) = place.remote(which).await? else { return Ok(()) };
        places.push(remote.place());
        for listed in remote.list().await? {
            let location = remote.location(&listed.name);
            items.push(SnapshotItem::of_listed(listed, &location));
        }
        Ok(())
    };
    if let Err(failure) = there.await {
        failed.get_or_insert(failure);
    }
    (items, places, failed)
}
