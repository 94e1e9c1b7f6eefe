//! Where the snapshots of this node are, whose they are, and which places a verb is about.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{block_on, status as server_status};
use crate::config::s3::{self, S3Config};
use crate::config::{Config, Given, Origin};
use crate::control::client;
use crate::datadir::DataDir;
use crate::error::{Exit, Explained, Failure};
use crate::snapshot::store::local::Directory;
use crate::snapshot::store::s3::Bucket;
use crate::snapshot::store::s3::store::Remote;

/// How long the launcher may take to say where its snapshots are.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Which places; without either, this node and, if snapshots are uploaded, object storage.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Which {
    /// Only those on this node; with --s3, both
    #[arg(long)]
    local: bool,
}

/// Where the snapshots of this node are, and whose they are.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) node: String,
    pub(super) s3: S3Config,
    pub(super) data: DataDir,
    /// What the command line says of `etcd-s3`.
    said: Option<bool>,
}

/// There is nothing to connect to.
#[derive(Debug, thiserror::Error)]
#[error("no bucket is configured")]
struct NoBucket;

impl Explained for NoBucket {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn next(&self) -> Option<String> {
        Some("set etcd-s3-bucket, or say --s3-bucket".into())
    }
}

/// What the command line itself says of object storage, by option name.
pub(super) fn said(given: &Given) -> BTreeMap<String, String> {
    let ours = given
        .options
        .iter()
        .filter(|(name, (_, origin))| s3::is_ours(name) && matches!(origin, Origin::CommandLine(_)));
    ours.filter_map(|(name, (texts, _))| Some(((*name).to_owned(), texts.first()?.clone()))).collect()
}

impl Place {
    /// As the running server has them: its command line and environment may say something else than ours. Without one, as configured. What
    /// our own command line says counts more than either.
    pub(super) fn of(config: &Config, given: &Given) -> Result<Self, Failure> {
        let data = DataDir::new(&config.data_dir);
        let running = block_on(server_status::fetch(&data, PATIENCE))?.ok();
        let running = running.filter(|status| !status.snapshots.dir.is_empty());
        let said = said(given);
        let (dir, node, configured) = match running {
            Some(status) => {
                let told = block_on(client::get(&data, "/v1/s3", PATIENCE))?.ok();
                let theirs: Option<BTreeMap<String, String>> = told.and_then(|body| serde_json::from_slice(&body).ok());
                let s3 = match theirs {
                    Some(theirs) => S3Config::default().with(&theirs)?,
                    None => config.snapshot.s3.clone(),
                };
                (PathBuf::from(status.snapshots.dir), status.node, s3)
            }
            None => (config.snapshot.place(&data), config.node_name.clone(), config.snapshot.s3.clone()),
        };
        let s3 = configured.with(&said)?;
        let said = said.contains_key(s3::SWITCH).then_some(s3.is_on);
        Ok(Self { dir, node, s3, data, said })
    }

    /// A name is looked up among the snapshots; anything with a slash is a path.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        if name.contains('/') { PathBuf::from(name) } else { self.dir.join(name) }
    }

    /// This node, if it is meant.
    pub(super) fn local(&self, which: Which) -> Option<Directory> {
        (which.local || self.said != Some(true)).then(|| Directory(self.dir.clone()))
    }

    /// Object storage, if it is meant.
    pub(super) async fn remote(&self, which: Which) -> Result<Option<Remote>, Failure> {
        let is_meant = match self.said {
            Some(said) => said,
            None => self.s3.is_on && !which.local,
        };
        if is_meant { self.bucket().await.map(Some) } else { Ok(None) }
    }

    /// The bucket, whether it is meant or not.
    pub(super) async fn bucket(&self) -> Result<Remote, Failure> {
        if !self.s3.has_bucket() {
            return Err(NoBucket.into());
        }
        let bucket = Bucket::connect(self.s3.target()?).await?;
        Ok(Remote::new(bucket, &self.data))
    }
}
