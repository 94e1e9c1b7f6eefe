//! The command line of `quorate etcd-snapshot verify`.

use std::path::PathBuf;

use crate::cli::etcd_snapshot::context::StoreSelection;
use crate::cli::output::Format;

/// Exits 0 if all of them are good.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot verify --all
  quorate etcd-snapshot verify latest --against-live
  quorate etcd-snapshot verify --drill s3://backups/prod/latest
  quorate etcd-snapshot verify --all --s3")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(in crate::cli::etcd_snapshot) struct Args {
    /// Names, `latest`, base names, paths (anything with a /), or `s3://BUCKET/KEY`
    #[arg(required_unless_present = "all", value_name = "SNAPSHOT")]
    pub(super) names: Vec<String>,
    /// All snapshots
    #[arg(long, conflicts_with = "names")]
    pub(super) all: bool,
    /// Rehearse a restore: build data from the snapshot, run an isolated etcd on it, compare, and remove all of it
    #[arg(long, conflicts_with_all = ["all", "against_live"])]
    pub(super) drill: bool,
    /// Directory for the files of --drill [default: under the data directory, if there is one]
    #[arg(long, value_name = "DIR", requires = "drill")]
    pub(super) drill_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) which: StoreSelection,
    /// Also compare keys and values with the running member at the revision of the snapshot (HashKV)
    #[arg(long)]
    pub(super) against_live: bool,
    /// Accept a raw copy of member/snap/db (no trailing hash)
    #[arg(long)]
    pub(super) skip_hash_check: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(super) output: Format,
}
