//! `quorate etcd-snapshot`: what a person does with snapshots. A file a verb.

mod delete;
mod inside;
mod item;
mod ls;
mod prune;
mod restore;
mod save;
mod status;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::status as server_status;
use super::{block_on, locate};
use crate::config::{Config, Given};
use crate::datadir::DataDir;
use crate::error::{Exit, Failure};

/// How long the launcher may take to say where its snapshots are.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// List the snapshots of this node, whether a server runs or not; with a snapshot, list the keys in it
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
    /// Verify one and print hash, revision, keys, size, version and members, as etcdutl does
    Status(status::Args),
    /// Make a data directory for any etcd from one; to restore this server, see server --cluster-reset
    Restore(restore::Args),
    /// Print the value of a key in a snapshot
    Get(inside::OfKey),
    /// Print everything that a snapshot still knows of a key
    History(inside::OfKey),
    /// Print the keys that differ between two snapshots
    Diff(inside::Two),
}

/// Where the snapshots of this node are, and whose they are.
struct Place {
    dir: PathBuf,
    node: String,
}

impl Place {
    /// As the running server has them: its command line and environment may say something else than ours. Without one, as configured.
    fn of(config: &Config) -> Result<Self, Failure> {
        let data = DataDir::new(&config.data_dir);
        let running =
            block_on(server_status::fetch(&data, PATIENCE))?.ok().filter(|status| !status.snapshots.dir.is_empty());
        Ok(match running {
            Some(status) => Self { dir: PathBuf::from(status.snapshots.dir), node: status.node },
            None => Self { dir: config.snapshot.place(&data), node: config.node_name.clone() },
        })
    }

    /// A name is looked up among the snapshots; anything with a slash is a path.
    fn path_of(&self, name: &str) -> PathBuf {
        if name.contains('/') { PathBuf::from(name) } else { self.dir.join(name) }
    }
}

pub(super) fn run(given: &Given, args: &Args) -> Result<Exit, Failure> {
    let config = locate(given)?;
    let place = || Place::of(&config);
    match &args.verb {
        Verb::Save(args) => save::run(&config, args),
        Verb::Ls(args) => ls::run(&place()?, args),
        Verb::Delete(args) => delete::delete(&place()?, args),
        Verb::Prune(args) => prune::run(&config, &place()?, args),
        Verb::Hold(args) => delete::hold(&place()?, args, true),
        Verb::Release(args) => delete::hold(&place()?, args, false),
        Verb::Verify(args) => verify::run(&config, &place()?, args),
        Verb::Status(args) => status::run(&place()?, args),
        Verb::Restore(args) => restore::run(&place()?, args),
        Verb::Get(args) => inside::get(&place()?, args),
        Verb::History(args) => inside::history(&place()?, args),
        Verb::Diff(args) => inside::diff(&place()?, args),
    }
}
