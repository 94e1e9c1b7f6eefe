//! `quorate etcd-snapshot`: what a person does with snapshots. A file a verb.

mod delete;
mod item;
mod ls;
mod prune;
mod save;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use super::locate;
use crate::config::{Config, Given};
use crate::datadir::DataDir;
use crate::error::{Exit, Failure};

/// `quorate etcd-snapshot`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take a snapshot of the running etcd
    Save(save::Args),
    /// List the snapshots of this node, whether a server runs or not
    #[command(visible_aliases = ["list", "l"])]
    Ls(ls::Args),
    /// Delete snapshots by name
    Delete(delete::Delete),
    /// Delete this node's older snapshots, and keep what the rules keep
    Prune(prune::Args),
    /// Never prune or delete these
    Hold(delete::Names),
    /// Let these be pruned and deleted again
    Release(delete::Names),
    /// Say whether snapshots are good: their hash, their structure and what is in them
    Verify(verify::Args),
}

pub(super) fn run(given: &Given, args: &Args) -> Result<Exit, Failure> {
    let config = locate(given)?;
    match &args.verb {
        Verb::Save(args) => save::run(&config, args),
        Verb::Ls(args) => ls::run(&config, args),
        Verb::Delete(args) => delete::delete(&config, args),
        Verb::Prune(args) => prune::run(&config, args),
        Verb::Hold(args) => delete::hold(&config, args, true),
        Verb::Release(args) => delete::hold(&config, args, false),
        Verb::Verify(args) => verify::run(&config, args),
    }
}

/// Where the snapshots of this node are.
fn snapshot_dir(config: &Config) -> PathBuf {
    config.snapshot.place(&DataDir::new(&config.data_dir))
}

/// A name is looked up among the snapshots; anything with a slash is a path.
fn path_of(config: &Config, name: &str) -> PathBuf {
    if name.contains('/') { PathBuf::from(name) } else { snapshot_dir(config).join(name) }
}
