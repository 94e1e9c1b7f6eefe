//! Takes a snapshot of the data in use before it is replaced.

use crate::clock;
use crate::cluster::record::ClusterRecord;
use crate::etcd::client;
use crate::job::blocking;
use crate::log_failure;
use crate::plan::retention::Policy;
use crate::plan::snapshot_name::NamePrefix;
use crate::recovery::operation::Operation;
use crate::recovery::report::RecoveryReport;
use crate::snapshot::prune;
use crate::snapshot::save::{self, SaveRequest};
use crate::snapshot::store::local::Directory;
use crate::snapshot::store::{Removed, Store as _};

impl Operation<'_> {
    /// A snapshot of the data in use, as far as they can be read without their log. It may fail: the data
    /// themselves are kept too.
    pub(crate) async fn save_pre_restore_snapshot(&self, before: Option<&ClusterRecord>, report: &mut RecoveryReport) {
        let data = self.data.clone();
        let known = before.cloned().unwrap_or_default();
        let request = SaveRequest {
            dir: self.config.snapshot.place(self.data),
            base: NamePrefix::pre_restore(),
            node: self.config.node_name.clone(),
            packing: self.config.snapshot.packing,
            reason: "pre-restore",
            labels: std::collections::BTreeMap::default(),
            lineage: known.lineage.clone(),
            live: None,
            last_named: 0,
            job: self.control.clone(),
        };
        let facts = client::MemberSource {
            member_id: known.member_id,
            cluster_id: known.cluster_id,
            version: known.etcd_version.map(|version| version.to_string()).unwrap_or_default(),
            db_size: 0,
            alarms: Vec::new(),
        };
        let dir = request.dir.clone();
        (self.progress)("saving the data in use", 0, 0);
        let saved = blocking(move || save::save_offline(&request, &data, &facts)).await;
        match saved {
            Ok(Ok(manifest)) => {
                tracing::info!(
                    name = manifest.name,
                    revision = manifest.revision,
                    "saved a snapshot of the data in use first"
                );
                report.pre_restore_snapshot = Some(dir.join(&manifest.name));
            }
            Ok(Err(why)) => report.notes.push(format!(
                "cannot take a snapshot of the data in use first ({}); the data itself is kept",
                why.to_report().message
            )),
            Err(why) => report.notes.push(format!("cannot take a snapshot of the data in use first: {why}")),
        }
    }

    /// As many are kept as retired data directories.
    pub(crate) async fn prune_pre_restore_snapshots(&self) {
        let local = Directory(self.config.snapshot.place(self.data));
        let policy = Policy { last: Some(self.config.etcd_old_retention), ..Policy::default() };
        let now = clock::unix_seconds(clock::now());
        let pruned = async {
            let all = local.list().await?;
            let owner = crate::cluster::file::owner(self.data, &self.config.node_name, None);
            let decided = prune::plan(&all, &NamePrefix::pre_restore(), &owner, &policy, now);
            local.remove(&prune::dropped(&decided)).await
        };
        match pruned.await {
            Ok(Removed { gone, failed, .. }) => {
                for name in gone {
                    tracing::info!(name, "pruned a pre-restore snapshot; etcd-old-retention applies to these, too");
                }
                if let Some(failure) = failed {
                    log_failure!(warn, failure.to_report(), "cannot prune some older pre-restore snapshots");
                }
            }
            Err(failure) => {
                log_failure!(warn, failure.to_report(), "cannot prune older pre-restore snapshots");
            }
        }
    }
}
