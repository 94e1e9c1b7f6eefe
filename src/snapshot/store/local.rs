//! Snapshots in a directory of this node.

use std::path::PathBuf;

use crate::durable;
use crate::error::AppError;
use crate::job::blocking;
use crate::snapshot::list::{self, Listed};
use crate::snapshot::manifest::{self, Manifest};
use crate::snapshot::prune::{self, PruneError};
use crate::snapshot::store::{Removed, Store};

#[derive(Clone, Debug)]
pub struct Directory(pub PathBuf);

impl Directory {
    /// On a separate thread: there may be thousands, on a slow disk.
    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&std::path::Path) -> Result<T, PruneError> + Send + 'static,
    ) -> Result<T, AppError> {
        let dir = self.0.clone();
        Ok(blocking(move || work(&dir)).await??)
    }
}

impl Store for Directory {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn location(&self, name: &str) -> String {
        format!("file://{}", self.0.join(name).display())
    }

    async fn list(&self) -> Result<Vec<Listed>, AppError> {
        self.run_blocking(|dir| Ok(list::list(dir)?)).await
    }

    async fn remove(&self, names: &[String]) -> Result<Removed, AppError> {
        let names = names.to_vec();
        self.run_blocking(move |dir| {
            let mut removed = Removed::default();
            for name in names {
                let path = dir.join(&name);
                let done = durable::remove_file(&path).and_then(|_| manifest::remove(dir, &name));
                if let Err(error) = done {
                    // A failure does not stop the deletion of the others.
                    removed.failed.get_or_insert_with(|| error.into());
                }
                if std::fs::symlink_metadata(&path).is_err() {
                    removed.gone.push(name);
                }
            }
            Ok(removed)
        })
        .await
    }

    async fn hold(&self, listed: &Listed, held: bool) -> Result<(), AppError> {
        let manifest = Manifest { held, ..listed.manifest.clone().unwrap_or_else(|| prune::unknown(listed)) };
        self.run_blocking(move |dir| Ok(manifest.write(dir)?)).await
    }
}
