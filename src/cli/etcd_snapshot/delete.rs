//! `quorate etcd-snapshot delete`, `hold` and `release`.

use crate::cli::etcd_snapshot::context::{SnapshotContext, StoreSelection};
use crate::cli::output;
use crate::cli::runtime::block_on;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::snapshot::list::Listed;
use crate::snapshot::prune;
use crate::snapshot::store::local::Directory;
use crate::snapshot::store::locate::{self, similar_name};
use crate::snapshot::store::s3::store::Remote;
use crate::snapshot::store::{Removed, Store};
use crate::text::escape_control;

/// If one of the names is not found, is held, or is the last good snapshot, nothing is deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot delete before-upgrade-node1-1795602850
  quorate etcd-snapshot delete --local before-upgrade-node1-1795602850
  quorate etcd-snapshot delete s3://backups/prod/on-demand-node1-1795602850")]
pub(super) struct Delete {
    #[command(flatten)]
    names: NamesToDelete,
    /// Delete even the last good snapshot, or one whose manifest is unreadable
    #[arg(long)]
    force: bool,
}

/// A hold is kept until it is released, here and in S3.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot hold before-upgrade-node1-1795602850
  quorate etcd-snapshot release before-upgrade-node1-1795602850
  quorate etcd-snapshot hold --s3 before-upgrade-node1-1795602850")]
pub(super) struct NamesToDelete {
    /// Names or locations as in `ls`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    which: StoreSelection,
}

/// The action, for messages.
#[derive(Clone, Copy, Debug)]
enum DeleteAction {
    Delete,
    Hold,
    Release,
}

impl DeleteAction {
    /// The participle, for "nothing was …".
    fn undone(self) -> &'static str {
        match self {
            Self::Delete => "deleted",
            Self::Hold => "held",
            Self::Release => "released",
        }
    }
}

/// One of the names matches no snapshot.
#[derive(Debug, thiserror::Error)]
#[error("snapshot {name} not found in {}; nothing was {}", places.join(", nor in "), act.undone())]
struct SnapshotMissing {
    name: String,
    places: Vec<String>,
    act: DeleteAction,
    similar: Option<String>,
}

impl Diagnostic for SnapshotMissing {
    fn code(&self) -> Code {
        Code::SnapshotNotFound
    }

    fn next_step(&self) -> Option<String> {
        const LIST: &str = "quorate etcd-snapshot ls shows all";
        Some(match &self.similar {
            Some(name) => format!("did you mean {}? {LIST}", escape_control(name)),
            None => LIST.into(),
        })
    }
}

/// A store with its snapshots, and the named ones among them.
struct In<S> {
    store: S,
    all: Vec<Listed>,
    named: Vec<Listed>,
}

impl<S: Store> In<S> {
    async fn of(store: S) -> Result<Self, AppError> {
        Ok(Self { all: store.list().await?, store, named: Vec::new() })
    }

    /// Records a named snapshot, if it exists.
    fn take(&mut self, name: &str) -> bool {
        let Some(found) = self.all.iter().find(|listed| listed.name == name) else { return false };
        if !self.named.contains(found) {
            self.named.push(found.clone());
        }
        true
    }
}

/// The snapshots for the names.
#[derive(Default)]
struct DeleteTarget {
    local: Option<In<Directory>>,
    /// The configured bucket, and those of URLs.
    remote: Vec<In<Remote>>,
}

impl DeleteTarget {
    /// Each name must exist in at least one store.
    async fn of(place: &SnapshotContext, args: &NamesToDelete, act: DeleteAction) -> Result<Self, AppError> {
        let mut found = Self::default();
        let is_url = |name: &String| name.starts_with("s3://");
        if !args.names.iter().all(is_url) {
            found.local = match place.local(args.which)? {
                Some(store) => Some(In::of(store).await?),
                None => None,
            };
        }
        if args.names.iter().any(|name| !name.contains('/'))
            && let Some(store) = place.remote(args.which).await?
        {
            found.remote.push(In::of(store).await?);
        }
        let is_configured = !found.remote.is_empty();
        for name in &args.names {
            let (is_there, places) = if is_url(name) {
                found.take_url(place, name).await?
            } else if name.contains('/') {
                found.take_path(place, name)
            } else {
                found.take_name(name, is_configured)
            };
            if !is_there {
                return Err(found.missing(name, &places, act).into());
            }
        }
        Ok(found)
    }

    fn take_name(&mut self, name: &str, is_configured: bool) -> (bool, Vec<String>) {
        let (mut is_there, mut places) = (false, Vec::new());
        if let Some(local) = &mut self.local {
            is_there |= local.take(name);
            places.push(local.store.place());
        }
        if let Some(remote) = self.remote.first_mut().filter(|_| is_configured) {
            is_there |= remote.take(name);
            places.push(remote.store.place());
        }
        (is_there, places)
    }

    /// A path, or a `file://` URL, of a file in the snapshot directory.
    fn take_path(&mut self, place: &SnapshotContext, named: &str) -> (bool, Vec<String>) {
        let path = std::path::absolute(locate::path_of(named)).unwrap_or_default();
        let name = path.file_name().filter(|_| path.parent() == Some(place.dir.as_path()));
        let is_there = match (&mut self.local, name) {
            (Some(local), Some(name)) => local.take(&name.to_string_lossy()),
            _ => false,
        };
        (is_there, vec![place.dir.display().to_string()])
    }

    async fn take_url(&mut self, place: &SnapshotContext, url: &str) -> Result<(bool, Vec<String>), AppError> {
        let Some((remote, name)) = place.at(url).await? else { return Ok((false, Vec::new())) };
        let shown = remote.place();
        let known = self.remote.iter().position(|known| known.store.place() == shown);
        let index = if let Some(index) = known {
            index
        } else {
            self.remote.push(In::of(remote).await?);
            self.remote.len() - 1
        };
        Ok((self.remote[index].take(&name), vec![shown]))
    }

    fn missing(&self, named: &str, places: &[String], act: DeleteAction) -> SnapshotMissing {
        let here = self.local.iter().flat_map(|local| &local.all);
        let there = self.remote.iter().flat_map(|remote| &remote.all);
        let names: Vec<&str> = here.chain(there).map(|listed| listed.name.as_str()).collect();
        let word = named.rsplit('/').next().unwrap_or(named);
        let similar = similar_name(word, names.into_iter()).map(str::to_owned);
        let places = places.iter().map(|place| escape_control(place)).collect();
        SnapshotMissing { name: escape_control(named), places, act, similar }
    }

    /// Each store with its named snapshots.
    fn all(&self) -> impl Iterator<Item = (&Vec<Listed>, &Vec<Listed>)> {
        let here = self.local.iter().map(|local| (&local.all, &local.named));
        here.chain(self.remote.iter().map(|remote| (&remote.all, &remote.named)))
    }
}

pub(super) fn delete(place: &SnapshotContext, args: &Delete) -> Result<Exit, AppError> {
    block_on(async {
        let found = DeleteTarget::of(place, &args.names, DeleteAction::Delete).await?;
        // All are checked before any is deleted.
        for (all, named) in found.all() {
            prune::check_deletable(all, named, args.force)?;
        }
        if let Some(local) = found.local {
            remove(&local, escape_control).await?;
        }
        for remote in found.remote {
            remove(&remote, |name| escape_control(&remote.store.location(name))).await?;
        }
        Ok(Exit::Done)
    })?
}

async fn remove(place: &In<impl Store>, shown: impl Fn(&str) -> String) -> Result<(), AppError> {
    let names: Vec<String> = place.named.iter().map(|listed| listed.name.clone()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let Removed { gone, kept, failed } = place.store.remove(&names).await?;
    for name in gone {
        output::print_result(&(output::fitted(&format!("{} deleted", shown(&name))) + "\n"))?;
    }
    for (name, why) in kept {
        output::print_result(&(output::fitted(&format!("{} kept: {}", shown(&name), escape_control(&why))) + "\n"))?;
    }
    failed.map_or(Ok(()), Err)
}

pub(super) fn hold(place: &SnapshotContext, args: &NamesToDelete, held: bool) -> Result<Exit, AppError> {
    block_on(async {
        let found =
            DeleteTarget::of(place, args, if held { DeleteAction::Hold } else { DeleteAction::Release }).await?;
        for (_, named) in found.all() {
            prune::may_be_held(named)?;
        }
        if let Some(local) = found.local {
            set(&local, held, escape_control).await?;
        }
        for remote in found.remote {
            set(&remote, held, |name| escape_control(&remote.store.location(name))).await?;
        }
        Ok(Exit::Done)
    })?
}

async fn set(place: &In<impl Store>, held: bool, shown: impl Fn(&str) -> String) -> Result<(), AppError> {
    for listed in &place.named {
        place.store.hold(listed, held).await?;
        let word = if held { "held: it is never pruned" } else { "released" };
        output::print_result(&(output::fitted(&format!("{} {word}", shown(&listed.name))) + "\n"))?;
    }
    Ok(())
}
