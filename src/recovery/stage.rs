//! Builds the new data next to the data in use: from a snapshot, or from the replayed log.

use std::path::{Path, PathBuf};

use crate::boltdb::membership::Member;
use crate::clock;
use crate::cluster::record::{ClusterRecord, ServerRecord};
use crate::datadir::DataDir;
use crate::durable::{self, DirError, OnPath as _, PRIVATE_DIR, PRIVATE_FILE};
use crate::error::AppError;
use crate::etcd::data_state::data_state;
use crate::faults;
use crate::host;
use crate::job::blocking;
use crate::pki::{self, CaSource};
use crate::plan::renewal::EtcdState;
use crate::plan::start::{self, DataState};
use crate::recovery::build::{self, Built, DataDirSpec};
use crate::recovery::error::ResetError;
use crate::recovery::expected::ExpectedCluster;
use crate::recovery::isolated_etcd::{self, IsolatedEtcd};
use crate::recovery::journal::{ExpectedData, Journal, OperationKind};
use crate::recovery::operation::{Operation, Prepared, RESERVED_FREE_BYTES};
use crate::recovery::paths::RecoveryPaths;
use crate::recovery::report::RecoveryReport;
use crate::recovery::workspace::{RecoveryDirs, Work};
use crate::recovery::{replay, resume, retired};
use crate::snapshot::browse;
use crate::snapshot::file::{self, SnapshotFile};
use crate::snapshot::verify::VerifyError;

/// The copy in which an etcd applies the log.
const REPLAY: &str = "replay";

impl Operation<'_> {
    /// Builds the new data next to the data in use.
    pub(crate) async fn build_new_data(
        &mut self,
        kind: OperationKind,
        snapshot: Option<PathBuf>,
        expected: &ExpectedCluster,
    ) -> Result<Prepared, AppError> {
        let data = self.data;
        let before = crate::cluster::file::load(data)?;
        let found = data_state(data)?;
        let paths = RecoveryPaths::of(data, clock::unix_seconds(clock::now()))?;
        let opened = if let Some(path) = snapshot {
            Some(self.open_snapshot(path).await?)
        } else {
            self.check_data(found, before.as_ref())?;
            None
        };
        let mut report = RecoveryReport {
            kind: Some(kind),
            from: opened.as_ref().map(|snapshot| snapshot.path.clone()),
            old: paths.old.clone().filter(|_| retired::is_in_use(self.data)),
            members_before: before.as_ref().map_or(0, ClusterRecord::member_count).max(self.members_now()),
            ..RecoveryReport::default()
        };
        report.space = Some(self.check_room(&paths, opened.as_ref())?);
        let token = self.read_secrets(&mut report).await?;
        let place = RecoveryDirs::of(data)?.ok_or_else(|| DirError::Missing(data.db()))?;
        let work = place.clear(data)?;
        let raise = if kind == OperationKind::Reset { 0 } else { self.config.cluster_reset_bump_revision };
        let spec = self.spec(expected, raise)?;
        let built = match opened {
            Some(snapshot) => self.build(snapshot, &work, &spec).await,
            None => self.replay(&work, &spec, &mut report).await,
        };
        let (held, shown) = work.names();
        let built = built.map_err(|failure| failure.to_report().renamed(&held, &shown))?;
        // Only now: a snapshot that cannot be restored leaves no files behind.
        if found == DataState::Present && !self.options.no_pre_restore_snapshot {
            self.save_pre_restore_snapshot(before.as_ref(), &mut report).await;
        }
        // Before the owner changes: the same directory must be swapped in later.
        let member = work.enter(&[Work::BUILT, DataDir::MEMBER_NAME])?.id()?;
        faults::point("restore::give").on("hand over", &work.path(Work::BUILT))?;
        data.chown_to_etcd_user(&work.enter(&[Work::BUILT])?)?;
        report.size = built.size;
        report.revision = Some((built.revision_before, built.inspection.revision));
        report.keys = Some(built.inspection.keys);
        report.members_before = report.members_before.max(built.members_before);
        report.cleared_alarms.clone_from(&built.cleared_alarms);
        report.notes.extend(built.note.clone());
        let mut journal =
            Journal::begin(kind, clock::rfc3339(clock::now()), paths, self.record(before.as_ref(), &spec));
        journal.before = before;
        journal.expected = Some(ExpectedData::of(&built.inspection, built.size));
        if let Some(token) = token {
            durable::write_file(&resume::staged_token(data), token.as_bytes(), PRIVATE_FILE)?;
        }
        Ok(Prepared { journal, report, member })
    }

    /// The number of members in the present database, if readable.
    fn members_now(&self) -> usize {
        let members = self.data.bolt().ok().flatten().and_then(|file| browse::members(&file).ok());
        members.map_or(0, |members| members.len())
    }

    /// The data to reset must exist, and be readable for this etcd.
    pub(crate) fn check_data(&self, found: DataState, before: Option<&ClusterRecord>) -> Result<(), AppError> {
        match found {
            DataState::Present => {}
            DataState::Absent | DataState::NeverInitialized => {
                let (etcd, invocation) = (self.data.etcd(), Box::new(self.config.invocation.clone()));
                return Err(ResetError::NoData { etcd, invocation, newest: self.newest.clone().map(Box::new) }.into());
            }
            DataState::MissingWal => return Err(ResetError::MissingWal(self.data.etcd()).into()),
        }
        if let Some(last) = before.and_then(|cluster| cluster.etcd_version) {
            start::check_versions(last, self.program.version)?;
        }
        Ok(())
    }

    async fn open_snapshot(&self, path: PathBuf) -> Result<SnapshotFile, AppError> {
        let opened = blocking(move || file::open(&path)).await??;
        if opened.trailer.is_none() && !self.options.skip_hash {
            return Err(VerifyError::NoHash(opened.path).into());
        }
        Ok(opened)
    }

    fn check_room(&self, paths: &RecoveryPaths, snapshot: Option<&SnapshotFile>) -> Result<(u64, u64), ResetError> {
        let dir = paths.work.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_path_buf();
        let needed =
            RESERVED_FREE_BYTES + snapshot.map_or_else(|| replay::size(self.data), |snapshot| snapshot.database_size);
        let free = host::free_bytes(&dir).unwrap_or(u64::MAX);
        if free < needed { Err(ResetError::Space { needed, free, dir }) } else { Ok((needed, free)) }
    }

    /// CAs and token: existing ones are kept. A given token becomes the server's token at the end.
    async fn read_secrets(&self, report: &mut RecoveryReport) -> Result<Option<String>, AppError> {
        let had_none = !self.data.certificate("server-ca").certificate.exists();
        let (data, names) = (self.data.clone(), self.config.certificate_names());
        blocking(move || pki::ensure(&data, &names, CaSource::Create, EtcdState::Stopped)).await??;
        if had_none {
            let tls = self.data.tls();
            report.notes.push(format!(
                "this server had no certificates, so it created new CAs: clients need new certificates, from {0} (server-ca.crt, client.crt, \
                 client.key)",
                tls.display()
            ));
        }
        let Some(given) = &self.config.token else {
            pki::token::ensure(self.data, None)?;
            return Ok(None);
        };
        let (token, is_of_another) = pki::token::given_or_new(self.data, given)?;
        if is_of_another {
            report.notes.push(
                "the given token named another CA; its password is kept, with the hash of this server's CA".into(),
            );
        }
        Ok(Some(token))
    }

    fn spec(&self, expected: &ExpectedCluster, raise: u64) -> Result<DataDirSpec, AppError> {
        let membership = expected.membership().map_err(ResetError::from)?;
        let (name, target) = (expected.own_name.clone(), self.program.version);
        Ok(DataDirSpec { name, membership, target, raise, allow_empty: self.options.allow_empty })
    }

    fn record(&self, before: Option<&ClusterRecord>, spec: &DataDirSpec) -> ClusterRecord {
        let now = clock::unix_seconds(clock::now());
        let server = |member: &Member| ServerRecord {
            name: member.name.clone(),
            member_id: format!("{:x}", member.id),
            peer_urls: member.peer_urls.clone(),
            seen: Some(now),
            ..ServerRecord::default()
        };
        let own = spec.membership.named(&spec.name);
        let servers = spec.membership.members.iter().map(server).collect();
        ClusterRecord {
            cluster_id: format!("{:x}", spec.membership.cluster_id),
            epoch: before.map_or(1, |cluster| cluster.epoch + 1),
            member_id: own.map(|member| format!("{:x}", member.id)).unwrap_or_default(),
            member_name: spec.name.clone(),
            servers,
            etcd_version: Some(self.program.version),
            lineage: self.lineage.clone(),
            operation: None,
            lineage_is_partial: false,
            other: before.map(|cluster| cluster.other.clone()).unwrap_or_default(),
        }
    }

    async fn build(&self, snapshot: SnapshotFile, work: &Work, spec: &DataDirSpec) -> Result<Built, AppError> {
        let (dir, spec, control, notify) =
            (work.through(Work::BUILT), spec.clone(), self.control.clone(), self.progress.clone());
        let built = blocking(move || {
            build::build(&snapshot, &dir, &spec, &control, &mut |done, all| {
                notify("building the new data", done, all);
            })
        });
        Ok(built.await??)
    }

    /// Lets an etcd apply the log in a copy, and builds from the result.
    async fn replay(&self, work: &Work, spec: &DataDirSpec, report: &mut RecoveryReport) -> Result<Built, AppError> {
        let member = self.data.open_member()?.ok_or_else(|| DirError::Missing(self.data.etcd_member()))?;
        let (copy, notify) = (work.through(REPLAY).join(DataDir::MEMBER_NAME), self.progress.clone());
        let kept = blocking(move || {
            replay::copy(&member, &copy, &mut |done, all| notify("copying the data in use", done, all))
        });
        let kept = kept.await??;
        if kept.uncertain > 0 {
            report.notes.push(format!(
                "the end of the log ({}) was not known to this member to be committed; it is kept, since it may have been acknowledged to clients \
                 written",
                if kept.uncertain == 1 { "one entry".into() } else { format!("{} entries", kept.uncertain) }
            ));
        }
        let bytes = replay::size_of(&work.enter(&[REPLAY, DataDir::MEMBER_NAME])?);
        self.data.chown_to_etcd_user(&work.enter(&[REPLAY])?)?;
        let (trust, dir) = (isolated_etcd::trust(&self.data.restore()), work.path(REPLAY));
        let isolated_etcd = IsolatedEtcd {
            config: self.config,
            data: self.data,
            trust: &trust,
            dir: &dir,
            name: &spec.name,
            quota: isolated_etcd::quota(bytes),
            force_new_cluster: true,
            is_gentle: false,
        };
        tracing::info!("an etcd applies the log of this member in a copy");
        replay::run(&isolated_etcd, &self.program, bytes, self.control).await?;
        let built = work.dir.make_dir(Work::BUILT, PRIVATE_DIR)?;
        build::take_database(&work.enter(&[REPLAY])?, &built)?;
        work.dir.remove_all(REPLAY)?;
        let spec = spec.clone();
        Ok(blocking(move || build::build_in_place(&built.proc_path(), &spec)).await??)
    }
}
