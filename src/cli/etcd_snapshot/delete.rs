//! `quorate etcd-snapshot delete`, `hold` and `release`.

use super::super::output;
use super::Place;
use crate::error::{Exit, Failure};
use crate::snapshot::prune;

/// All names are looked for before any is deleted.
#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// Names as in `ls`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Also the last good one, and one whose manifest cannot be read
    #[arg(long)]
    force: bool,
}

/// The names of snapshots.
#[derive(Debug, clap::Args)]
pub(super) struct Names {
    /// Names as in `ls`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) fn delete(place: &Place, args: &Delete) -> Result<Exit, Failure> {
    for name in prune::delete(&place.dir, &args.names, args.force)? {
        output::data(&format!("{name} deleted\n"))?;
    }
    Ok(Exit::Done)
}

pub(super) fn hold(place: &Place, args: &Names, held: bool) -> Result<Exit, Failure> {
    for name in prune::hold(&place.dir, &args.names, held)? {
        output::data(&format!("{name} {}\n", if held { "held: it is never pruned" } else { "released" }))?;
    }
    Ok(Exit::Done)
}
