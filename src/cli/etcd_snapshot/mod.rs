//! `quorate etcd-snapshot`: one file for each subcommand.

mod browse;
mod context;
mod delete;
mod item;
mod ls;
mod prune;
mod restore;
mod rows;
mod s3_check;
mod save;
mod server_credentials;
mod status;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::locate::{Intent, locate};
use crate::cli::options::S3Options;
use crate::cli::{interrupt, output};
use crate::config::{Config, RawOptions};
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::plan::finding::CheckRow;
use context::SnapshotContext;

/// `quorate etcd-snapshot`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Snapshot directory to work on [default: etcd-snapshot-dir of the server or the configuration]
    #[arg(long, alias = "etcd-snapshot-dir", value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// Print only results, warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(flatten)]
    s3: S3Options,
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// Take a snapshot of the running etcd, and upload it if S3 is configured
    Save(save::Args),
    /// List snapshots, or the keys in one; needs no running server
    #[command(visible_aliases = ["list", "l"])]
    Ls(ls::Args),
    /// Delete snapshots by name
    Delete(delete::Delete),
    /// Delete older snapshots of this server according to retention rules
    Prune(prune::Args),
    /// Protect snapshots from pruning and deletion
    Hold(delete::NamesToDelete),
    /// Remove the hold from snapshots
    Release(delete::NamesToDelete),
    /// Verify snapshots: checksum, page structure and contents
    Verify(verify::Args),
    /// Verify a snapshot and print hash, revision, keys, size, version and members (like etcdutl snapshot status)
    Status(status::Args),
    /// Build a new etcd data directory from a snapshot (like etcdutl snapshot restore). To restore this server use `quorate server --cluster-reset`
    Restore(restore::Args),
    /// Test the S3 configuration end to end (connect, list, upload, read back, delete)
    S3Check(s3_check::Args),
    /// Print the value of a key in a snapshot
    Get(browse::KeyArgs),
    /// Show the history of a key, as far as the snapshot contains it
    History(browse::KeyArgs),
    /// Show the keys that differ between two snapshots
    Diff(browse::DiffArgs),
}

/// The working directory is unknown.
#[derive(Debug, thiserror::Error)]
#[error("cannot make --dir absolute")]
struct InvalidDirOption(#[source] std::io::Error);

impl Diagnostic for InvalidDirOption {
    fn code(&self) -> Code {
        Code::Usage
    }
}

impl SnapshotVerb {
    fn intent(&self) -> Intent {
        match self {
            Self::Save(_) | Self::Delete(_) | Self::Prune(_) | Self::Hold(_) | Self::Release(_) | Self::S3Check(_) => {
                Intent::Write
            }
            // Writes only to the path on the command line; the source is looked up, unless it is a path.
            Self::Restore(args) if args.is_of_path() => Intent::Read,
            Self::Restore(_) => Intent::Write,
            Self::Ls(_) | Self::Verify(_) | Self::Status(_) | Self::Get(_) | Self::History(_) | Self::Diff(_) => {
                Intent::Read
            }
        }
    }
}

/// The results of `s3-check`, for `quorate doctor`.
pub(super) fn s3_findings(config: &Config, given: &RawOptions) -> Result<Vec<CheckRow>, AppError> {
    s3_check::findings(&SnapshotContext::of(config, given, None)?)
}

pub(super) fn run(given: &RawOptions, args: &Args) -> Result<Exit, AppError> {
    let given = args.s3.joined(given.clone());
    let config = locate(&given, args.verb.intent())?;
    interrupt::listen();
    if args.quiet {
        output::be_quiet();
    }
    // Relative to the working directory of the command, not of the server.
    let dir = args.dir.as_deref().map(std::path::absolute).transpose().map_err(InvalidDirOption)?;
    let place = || SnapshotContext::of(&config, &given, dir.clone());
    match &args.verb {
        SnapshotVerb::Save(args) => save::run(&config, &given, dir, args),
        SnapshotVerb::Ls(args) => ls::run(&place()?, args),
        SnapshotVerb::Delete(args) => delete::delete(&place()?, args),
        SnapshotVerb::Prune(args) => prune::run(&config, &place()?, args),
        SnapshotVerb::Hold(args) => delete::hold(&place()?, args, true),
        SnapshotVerb::Release(args) => delete::hold(&place()?, args, false),
        SnapshotVerb::Verify(args) => verify::run(&config, &place()?, args),
        SnapshotVerb::Status(args) => status::run(&place()?, args),
        SnapshotVerb::Restore(args) => restore::run(&place()?, args),
        SnapshotVerb::S3Check(args) => s3_check::run(&place()?, args),
        SnapshotVerb::Get(args) => browse::get(&place()?, args),
        SnapshotVerb::History(args) => browse::history(&place()?, args),
        SnapshotVerb::Diff(args) => browse::diff(&place()?, args),
    }
}
