//! A reset, a restore, or the undo of one, as steps: prepare, swap, verify, commit; and roll back.
//!
//! Until the swap the data in use are untouched. Each step is recorded in the journal and can be repeated; `resume` decides what becomes
//! of an operation that was interrupted. The caller holds the lock of the data directory, has no etcd running on it from the swap on, and
//! cancels by the [`JobControl`]: an operation takes no lock, listens for no signal and ends no process of others.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::boltdb::wal;
use crate::cluster::record::MemberIdentity;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::error::{AppError, system_error};
use crate::etcd::client::Expected;
use crate::etcd::installed::InstalledEtcd;
use crate::etcd::settings::Addresses;
use crate::faults;
use crate::job::JobControl;
use crate::plan::restore as plan;
use crate::plan::restore::JournalPhase;
use crate::plan::start::KnownSnapshot;
use crate::recovery::error::ResetError;
use crate::recovery::expected::ExpectedCluster;
use crate::recovery::gate::{self, GateInput};
use crate::recovery::isolated_etcd::{self, IsolatedEtcd, IsolatedEtcdError, IsolatedProgram};
use crate::recovery::journal::{Journal, OperationKind};
use crate::recovery::report::{ProgressReporter, RecoveryReport, ResetOptions};
use crate::recovery::{resume, retired, swap, workspace};

/// Bytes that etcd writes in addition to its database when it starts: the next segment of its log, and the first
/// writes.
pub(crate) const RESERVED_FREE_BYTES: u64 = 2 * wal::SEGMENT_BYTES;

/// Device and inode of a directory.
pub(crate) type DirId = (u64, u64);

/// An operation on one data directory, and what it needs.
pub(crate) struct Operation<'a> {
    pub(crate) config: &'a Config,
    pub(crate) data: &'a DataDir,
    pub(crate) program: IsolatedProgram,
    pub(crate) control: &'a JobControl,
    pub(crate) progress: &'a ProgressReporter,
    pub(crate) options: &'a ResetOptions,
    /// The id of the operation over several servers that this is a part of.
    pub(crate) id: Option<String>,
    /// What can be restored, if there are no data that could be reset.
    pub(crate) newest: Option<KnownSnapshot>,
    /// The identities of the data in the snapshot that is restored, if it is of this node: the server goes on with them.
    pub(crate) lineage: Vec<MemberIdentity>,
    /// The `member` directory that is in place before the swap; known once it is prepared.
    pub(crate) replaced: Option<DirId>,
    /// Keeps an etcd in memory executable.
    pub(crate) _binary: InstalledEtcd,
}

/// New data is next to the data in use, as recorded in the journal.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) journal: Journal,
    pub(crate) report: RecoveryReport,
    /// The `member` directory that is to be in place.
    pub(crate) member: DirId,
}

/// The new data are in place, and those from before aside.
#[derive(Debug)]
pub(crate) struct Swapped(Prepared);

/// An etcd ran on the new data and passed the gate, or they cannot be verified on one server.
#[derive(Debug)]
pub(crate) struct VerifiedData(Prepared);

impl Prepared {
    /// Takes up an operation from its journal, whichever steps of it were done; `None` if there is none, or its new data are gone.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the coordinator of an operation over several servers"))]
    pub(crate) fn load(data: &DataDir) -> Result<Option<Self>, AppError> {
        let Some(journal) = Journal::read(data)? else { return Ok(None) };
        let Some(member) = workspace::new_member(data, &journal)? else { return Ok(None) };
        let report = RecoveryReport { kind: Some(journal.kind), old: journal.old.clone(), ..RecoveryReport::default() };
        Ok(Some(Self { member: member.id()?, journal, report }))
    }
}

impl Operation<'_> {
    /// All steps, one after the other, on this server alone. What fails before the commit is rolled back.
    pub(crate) async fn run(
        &mut self,
        kind: OperationKind,
        snapshot: Option<PathBuf>,
        expected: &ExpectedCluster,
    ) -> Result<RecoveryReport, AppError> {
        let act = kind.word();
        let prepared = self.prepare(kind, snapshot, expected).await;
        let prepared = prepared.map_err(|why| ResetError::Untouched { act, why: why.to_report() })?;
        let verified = match self.swap(prepared) {
            Ok(swapped) => self.verify(swapped).await,
            Err(why) => Err(why),
        };
        match verified {
            Ok(verified) => {
                let committed = self.commit(verified).await;
                committed.map_err(|source| ResetError::NotRecorded { act, source: source.to_report() }.into())
            }
            Err(why) => {
                let why = why.to_report();
                Err(match self.roll_back() {
                    Ok(()) => ResetError::RolledBack { act, why }.into(),
                    Err(source) => {
                        let (why, source) = (why.to_string(), source.to_report());
                        ResetError::NotRolledBack { act, why, source }.into()
                    }
                })
            }
        }
    }

    /// Prepares the new data next to the data in use: builds it, or locates the returning data. Changes nothing else,
    /// even if it fails.
    pub(crate) async fn prepare(
        &mut self,
        kind: OperationKind,
        snapshot: Option<PathBuf>,
        expected: &ExpectedCluster,
    ) -> Result<Prepared, AppError> {
        let prepared = match kind {
            OperationKind::Undo => self.prepare_undo().await,
            OperationKind::Reset | OperationKind::Restore => self.build_new_data(kind, snapshot, expected).await,
        };
        let recorded = prepared.and_then(|mut prepared| {
            self.replaced = self.data.open_member()?.map(|member| member.id()).transpose()?;
            prepared.journal.operation.clone_from(&self.id);
            prepared.journal.write(self.data)?;
            Ok(prepared)
        });
        if recorded.is_err() {
            // Swept at the next start if this fails; the first failure is reported.
            let _ = swap::clean_up(self.data);
        }
        recorded
    }

    /// Puts the new data in place by renames.
    pub(crate) fn swap(&self, mut prepared: Prepared) -> Result<Swapped, AppError> {
        let journal = &mut prepared.journal;
        if journal.phase == JournalPhase::Prepared {
            if journal.kind == OperationKind::Undo
                && let Some(staged) = workspace::staged(self.data, journal)?
            {
                // The journal has it too, and etcd warns about files that are not its own.
                retired::remove_record(&staged)?;
            }
            swap::swap_in(self.data, journal)?;
            workspace::check_in_place(self.data, prepared.member)?;
            faults::point("restore::swapped").map_err(system_error("record that the data are in place"))?;
            journal.phase = JournalPhase::Swapped;
            journal.write(self.data)?;
        }
        Ok(Swapped(prepared))
    }

    /// Verifies the new data with an isolated etcd. A single member of several cannot serve alone: the coordinator
    /// verifies those together.
    pub(crate) async fn verify(&self, Swapped(mut prepared): Swapped) -> Result<VerifiedData, AppError> {
        if prepared.journal.phase == JournalPhase::Swapped {
            let expected = ExpectedCluster::of_record(&prepared.journal.after);
            if expected.members.len() == 1 {
                let revision = self.run_gate(&prepared.journal, &expected).await?;
                prepared.report.is_verified = true;
                if let Some((_, after)) = &mut prepared.report.revision {
                    *after = revision;
                }
            }
            faults::point("restore::verified").map_err(system_error("record that the data are good"))?;
            workspace::check_in_place(self.data, prepared.member)?;
            if self.control.is_cancelled() {
                return Err(IsolatedEtcdError::Cancelled.into());
            }
            prepared.journal.phase = JournalPhase::Verified;
            prepared.journal.write(self.data)?;
        }
        Ok(VerifiedData(prepared))
    }

    /// Decides it, and records everything that follows from it. What fails here is finished by the next start.
    pub(crate) async fn commit(&self, VerifiedData(mut prepared): VerifiedData) -> Result<RecoveryReport, AppError> {
        resume::commit(self.data, &mut prepared.journal)?;
        if prepared.report.pre_restore_snapshot.is_some() {
            self.prune_pre_restore_snapshots().await;
        }
        Ok(prepared.report)
    }

    /// Puts everything back as it was before, in whatever phase it is but the last.
    pub(crate) fn roll_back(&self) -> Result<(), AppError> {
        let Some(mut journal) = Journal::read(self.data)? else {
            return Ok(swap::clean_up(self.data)?);
        };
        resume::roll_back(self.data, &mut journal)?;
        // The owner of the directory could have replaced the data there.
        Ok(self.replaced.map_or(Ok(()), |replaced| workspace::check_in_place(self.data, replaced))?)
    }

    async fn run_gate(&self, journal: &Journal, expected: &ExpectedCluster) -> Result<i64, AppError> {
        let size = journal.expected.map_or_else(|| self.size_in_use(), |data| data.size);
        let trust = isolated_etcd::trust(&self.data.restore());
        let isolated_etcd = IsolatedEtcd {
            config: self.config,
            data: self.data,
            trust: &trust,
            dir: &self.data.etcd(),
            name: &journal.after.member_name,
            quota: isolated_etcd::quota(size),
            force_new_cluster: false,
            is_gentle: false,
        };
        tracing::info!("the new data is in place; verifying it with an isolated etcd");
        let own = Expected { name: journal.after.member_name.clone(), peer_url: Addresses::peer_url(self.config) };
        let input = GateInput { own, expected, data: journal.expected.as_ref(), size };
        let answer = gate::verify(&isolated_etcd, &self.program, &input, self.control).await?;
        tracing::info!(
            healthy_after_ms = answer.took.as_millis(),
            revision = answer.revision,
            "etcd is healthy on the new data, has the built contents, and accepted a write"
        );
        Ok(answer.revision)
    }

    /// Size of the present database in bytes.
    fn size_in_use(&self) -> u64 {
        let found = self.data.bolt().ok().flatten().and_then(|bolt| bolt.metadata().ok());
        found.map_or(0, |found| found.len())
    }

    /// No reset or restore may follow another one before the server was started normally.
    pub(crate) fn check_flag(&self) -> Result<(), plan::RestoreRefusal> {
        let flag = self.data.reset_flag();
        if flag.exists() { Err(plan::RestoreRefusal::ResetFlag { flag: flag.display().to_string() }) } else { Ok(()) }
    }

    /// The callback of a check that reads a whole database: reports progress, and ends when the operation is cancelled.
    pub(crate) fn checking(&self, what: &'static str) -> impl FnMut(u64, u64) -> ControlFlow<()> + Send + use<> {
        tracing::info!(event = "reset-checking", "{what}");
        let (progress, control) = (self.progress.clone(), self.control.clone());
        move |done, all| {
            // Only ever delayed: a check has no step that could fail otherwise.
            let _ = faults::point("restore::check");
            progress(what, done, all);
            control.flow()
        }
    }

    pub(crate) fn downloading(&self) -> impl FnMut(u64, u64) + Send + use<> {
        let progress = self.progress.clone();
        move |done, all| progress("downloading the snapshot", done, all)
    }
}
