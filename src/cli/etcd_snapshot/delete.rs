//! `quorate etcd-snapshot delete`, `hold` and `release`.

use super::super::{block_on, output};
use super::place::{Place, Which};
use crate::error::{Exit, Failure};
use crate::host::printable;
use crate::snapshot::list::Listed;
use crate::snapshot::prune::{self, PruneError};
use crate::snapshot::store::Store;
use crate::snapshot::store::local::Directory;
use crate::snapshot::store::s3::store::Remote;

/// All names are looked for before any is deleted.
#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    #[command(flatten)]
    names: Names,
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
    #[command(flatten)]
    which: Which,
}

/// What was found of the names in both places.
struct Found {
    local: Option<(Directory, Vec<Listed>, Vec<Listed>)>,
    remote: Option<(Remote, Vec<Listed>, Vec<Listed>)>,
}

/// Each name must be in one of the places at least.
async fn find(place: &Place, args: &Names) -> Result<Found, Failure> {
    let (local, remote) = (place.local(args.which), place.remote(args.which).await?);
    let local = match local {
        Some(store) => Some((store.list().await?, store)),
        None => None,
    };
    let remote = match remote {
        Some(store) => Some((store.list().await?, store)),
        None => None,
    };
    let has =
        |all: Option<&Vec<Listed>>, name: &String| all.is_some_and(|all| all.iter().any(|listed| listed.name == *name));
    for name in &args.names {
        if !has(local.as_ref().map(|(all, _)| all), name) && !has(remote.as_ref().map(|(all, _)| all), name) {
            return Err(PruneError::NotFound(printable(name)).into());
        }
    }
    let here =
        |all: &Vec<Listed>| -> Vec<String> { args.names.iter().filter(|name| has(Some(all), name)).cloned().collect() };
    let local = match local {
        Some((all, store)) => Some((store, prune::find(&all, &here(&all))?, all)),
        None => None,
    };
    let remote = match remote {
        Some((all, store)) => Some((store, prune::find(&all, &here(&all))?, all)),
        None => None,
    };
    Ok(Found { local, remote })
}

pub(super) fn delete(place: &Place, args: &Delete) -> Result<Exit, Failure> {
    block_on(async {
        let Found { local, remote } = find(place, &args.names).await?;
        // All of it is looked at before any is deleted.
        for (found, all) in
            local.iter().map(|(_, found, all)| (found, all)).chain(remote.iter().map(|(_, found, all)| (found, all)))
        {
            prune::may_go(all, found, args.force)?;
        }
        if let Some((store, found, _)) = local {
            remove(&store, &found, printable).await?;
        }
        if let Some((store, found, _)) = remote {
            remove(&store, &found, |name| printable(&store.location(name))).await?;
        }
        Ok(Exit::Done)
    })?
}

async fn remove(store: &impl Store, found: &[Listed], shown: impl Fn(&str) -> String) -> Result<(), Failure> {
    let names: Vec<String> = found.iter().map(|listed| listed.name.clone()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let removed = store.remove(&names).await?;
    for name in removed.gone {
        output::data(&format!("{} deleted\n", shown(&name)))?;
    }
    for (name, why) in removed.kept {
        output::data(&format!("{} kept: {}\n", shown(&name), printable(&why)))?;
    }
    removed.failed.map_or(Ok(()), Err)
}

pub(super) fn hold(place: &Place, args: &Names, held: bool) -> Result<Exit, Failure> {
    block_on(async {
        let Found { local, remote } = find(place, args).await?;
        for found in local.iter().map(|(_, found, _)| found).chain(remote.iter().map(|(_, found, _)| found)) {
            prune::may_be_held(found)?;
        }
        if let Some((store, found, _)) = local {
            set(&store, &found, held, printable).await?;
        }
        if let Some((store, found, _)) = remote {
            set(&store, &found, held, |name| printable(&store.location(name))).await?;
        }
        Ok(Exit::Done)
    })?
}

async fn set(store: &impl Store, found: &[Listed], held: bool, shown: impl Fn(&str) -> String) -> Result<(), Failure> {
    for listed in found {
        store.hold(listed, held).await?;
        let word = if held { "held: it is never pruned" } else { "released" };
        output::data(&format!("{} {word}\n", shown(&listed.name)))?;
    }
    Ok(())
}
