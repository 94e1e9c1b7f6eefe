//! `quorate server --cluster-reset`, with or without a snapshot, and `--undo-reset`: look, plan, build, exchange, try, write down.
//!
//! Until the exchange nothing is touched. From then on a journal tells what is being done; what does not pass the gate is undone, and
//! whatever breaks off is finished or undone by the next start of any kind (`settle`).

mod outline;
pub(super) mod settle;
mod undo;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::preflight::{self, random_digits};
use super::signals::{Asked as Signal, Signals};
use super::state::BinaryFacts;
use super::survey::data_state;
use super::{SystemError, cluster, lock, system};
use crate::boltdb::membership::{Membership, MembershipError};
use crate::boltdb::wal;
use crate::clock;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE};
use crate::error::{Exit, Explained, Failure, Told};
use crate::etcd::client::{self, Expected};
use crate::etcd::orphan;
use crate::etcd::settings::Addresses;
use crate::faults;
use crate::host;
use crate::pki::{self, Names};
use crate::plan::restore::{self as plan, Phase};
use crate::plan::retention::Policy;
use crate::plan::space::human;
use crate::plan::start::{self, ClusterRecord, DataState};
use crate::restore::build::{self, Blueprint, Built};
use crate::restore::exchange::{self, Paths};
use crate::restore::gate::{self, Question};
use crate::restore::journal::{Act, Journal};
use crate::restore::trial::{self, Program, Trial};
use crate::restore::{old, replay};
use crate::snapshot::aside::Course;
use crate::snapshot::file::{self, OpenError, SnapshotFile};
use crate::snapshot::look;
use crate::snapshot::name::Base;
use crate::snapshot::prune;
use crate::snapshot::save::{self, Wish};
use crate::snapshot::verify::VerifyError;

/// Bytes that etcd writes beside its database when it starts: the next segment of its log, and what it is about to write.
const SPARE: u64 = 2 * wal::SEGMENT;

/// What is asked for.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Asked {
    /// To go back to what was there before.
    pub undo: bool,
    /// Only to say what would be done.
    pub dry_run: bool,
    /// The snapshot may be a plain copy of `member/snap/db`.
    pub skip_hash: bool,
    /// No snapshot of the data that are there.
    pub no_safety_net: bool,
}

/// How far something is: what, bytes done, of how many.
pub type Tell = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// What was done, or would be.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What.
    pub act: Option<Act>,
    /// The snapshot, or the data that came back.
    pub from: Option<PathBuf>,
    /// Where the data from before are; `None` if there were none.
    pub old: Option<PathBuf>,
    /// The snapshot that was taken of them.
    pub safety_net: Option<PathBuf>,
    /// Bytes of the database.
    pub size: u64,
    /// Its revision before and after.
    pub revision: Option<(i64, i64)>,
    /// Its keys.
    pub keys: Option<u64>,
    /// Members that the cluster had.
    pub members_before: usize,
    /// Alarms that were taken out.
    pub cleared_alarms: Vec<String>,
    /// Bytes that are needed for it, and that are free there.
    pub room: Option<(u64, u64)>,
    /// An etcd ran on the data, and passed every question.
    pub was_tried: bool,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// There are no data.
    #[error("there are no data of etcd's in {}, so there is nothing to reset", .0.display())]
    NoData(PathBuf),
    /// There are data without a log.
    #[error("{} holds data of etcd's without a log to go on from", .0.display())]
    Torn(PathBuf),
    /// Nothing was set aside.
    #[error("there are no data to go back to: no etcd-old-… in {}", .0.display())]
    NothingAside(PathBuf),
    /// There is no room.
    #[error("the new data need {}, and {} are free in {}", human(*needed), human(*free), dir.display())]
    Space {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// Where.
        dir: PathBuf,
    },
    /// The member cannot be one.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// It failed before anything was changed.
    #[error("the {act} was not done, and nothing was changed")]
    Untouched {
        /// What.
        act: &'static str,
        /// Why.
        #[source]
        why: Told,
    },
    /// It failed after that.
    #[error("the {act} failed and was undone: everything is as it was before")]
    Undone {
        /// What.
        act: &'static str,
        /// Why.
        #[source]
        why: Told,
    },
    /// It failed, and could not be undone now.
    #[error("the {act} failed, and cannot be undone now: {why}")]
    NotUndone {
        /// What.
        act: &'static str,
        /// Why it failed.
        why: String,
        /// Why it cannot be undone.
        #[source]
        source: Told,
    },
    /// The data are in place, and something after that failed.
    #[error("the {act} is done, and its data are in place and good, but this could not be written down")]
    NotFinished {
        /// What.
        act: &'static str,
        /// Why.
        #[source]
        source: Told,
    },
}

impl Explained for ResetError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoData(_) | Self::NothingAside(_) => Exit::NotFound,
            Self::Torn(_) => Exit::Refused,
            Self::Untouched { why, .. } => why.exit(),
            _ => Exit::Failed,
        }
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::NoData(_) => {
                "to restore a snapshot, name it with --cluster-reset-restore-path; is the disk of the data mounted?"
                    .into()
            }
            Self::Torn(etcd) => format!(
                "restore the newest snapshot (quorate etcd-snapshot ls), or what the database there holds: \
                 --cluster-reset-restore-path={}/member/snap/db --skip-hash-check",
                etcd.display()
            ),
            Self::NothingAside(_) => "quorate etcd-snapshot ls shows the snapshots that can be restored".into(),
            Self::Space { dir, .. } => format!("see what takes the space: du -xsh {}/*", dir.display()),
            Self::Membership(_) => return None,
            Self::Untouched { why, .. } => return why.next(),
            Self::Undone { why, .. } => {
                return why.next().or_else(|| Some("the reason is above; mend it and try again".into()));
            }
            Self::NotUndone { .. } | Self::NotFinished { .. } => {
                "mend that, then start the server without the flags: the next start goes on with it from its journal"
                    .into()
            }
        })
    }
}

/// Whether an etcd is to run on the data before they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// It must become healthy, and hold what was built.
    AsBuilt,
    /// It must become healthy.
    Alone,
    /// It cannot be told.
    NotAtAll,
}

/// Does what is asked for, or says what would be done.
///
/// # Errors
/// Whatever keeps it from being done; the data are then as they were.
pub async fn run(config: &Config, asked: &Asked, tell: Tell) -> Result<Report, Failure> {
    let mut signals = Signals::listen().map_err(system("listen for signals"))?;
    let course = Course::default();
    let mut acting = std::pin::pin!(act(config, asked, &course, &tell));
    loop {
        tokio::select! {
            done = &mut acting => return done,
            asked = signals.next() => if let Signal::Stop(signal) = asked {
                tracing::warn!(signal, "told to stop: it is broken off, and what was changed is undone");
                course.break_off();
            }
        }
    }
}

async fn act(config: &Config, asked: &Asked, course: &Course, tell: &Tell) -> Result<Report, Failure> {
    let data = &DataDir::new(&config.data_dir).with_etcd_user(config.etcd.user.clone());
    let named = config.cluster_reset_restore_path.as_deref().filter(|_| !asked.undo);
    let snapshot = named.map(|named| find(config, data, named)).transpose()?;
    let what = match &snapshot {
        _ if asked.undo => Act::Undo,
        Some(_) => Act::Restore,
        None => Act::Reset,
    };
    let binary = super::find_etcd(config, data).await?;
    let program = Program { checked: binary.checked.clone(), version: binary.version, grace: super::grace() };
    if config.server.is_some() {
        tracing::info!("`server` is ignored: what is reset or restored is a cluster of its own");
    }
    let mut run = Run { config, data, program, course, tell, asked, _binary: binary };
    if asked.dry_run {
        return run.outline(what, snapshot.as_deref());
    }
    data.prepare_for_lock()?;
    let _lock = lock::take(data)?;
    orphan::clear(data, super::grace()).await?;
    preflight::own(data, &config.snapshot.place(data))?;
    settle::settle(data)?;
    if !asked.undo {
        run.check_flag()?;
    }
    run.all(what, snapshot).await
}

/// Anything with a slash is a path; a bare name is one of the snapshots.
fn find(config: &Config, data: &DataDir, named: &str) -> Result<PathBuf, Failure> {
    let found = if named.contains('/') {
        std::path::absolute(named).unwrap_or_else(|_| PathBuf::from(named))
    } else {
        let ours = config.snapshot.place(data).join(named);
        let rke1 = Path::new(host::RKE1_SNAPSHOTS).join(named);
        if !ours.exists() && rke1.exists() { rke1 } else { ours }
    };
    match std::fs::metadata(&found) {
        Ok(_) => Ok(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::NotFound(found).into()),
        Err(source) => Err(OpenError::Read { path: found, source }.into()),
    }
}

/// New data that lie beside those in use.
struct Staged {
    journal: Journal,
    report: Report,
    built: Option<Built>,
}

/// One reset, restore or undoing of it.
struct Run<'a> {
    config: &'a Config,
    data: &'a DataDir,
    program: Program,
    course: &'a Course,
    tell: &'a Tell,
    asked: &'a Asked,
    /// Keeps one that is in memory executable.
    _binary: BinaryFacts,
}

impl Run<'_> {
    fn check_flag(&self) -> Result<(), plan::Refusal> {
        let flag = self.data.reset_flag();
        if flag.exists() { Err(plan::Refusal::Flag { flag: flag.display().to_string() }) } else { Ok(()) }
    }

    async fn all(&mut self, what: Act, snapshot: Option<PathBuf>) -> Result<Report, Failure> {
        let act = what.word();
        let untouched = |run: &Self, why: &Failure| {
            // Swept at the next start if this does not work; the first failure is the one that matters.
            let _ = exchange::tidy(run.data, &Paths::of(run.data, 0).work);
            ResetError::Untouched { act, why: why.told() }
        };
        let staged = match what {
            Act::Undo => self.plan_undo().and_then(|(journal, report)| {
                self.data.prepare_dir(&journal.work)?;
                Ok(Staged { journal, report, built: None })
            }),
            Act::Reset | Act::Restore => self.stage(what, snapshot).await,
        };
        let Staged { mut journal, mut report, built } = staged.map_err(|why| untouched(self, &why))?;
        journal.write(self.data).map_err(|why| untouched(self, &why.into()))?;
        let passed = self.put_in_place(&journal, built.as_ref()).await.and_then(|revision| {
            faults::point("restore::passed").map_err(system("note that the data are good"))?;
            journal.phase = Phase::Passed;
            journal.write(self.data)?;
            Ok(revision)
        });
        match passed {
            Ok(revision) => {
                report.was_tried = revision.is_some();
                if let (Some(now), Some((_, after))) = (revision, &mut report.revision) {
                    *after = now;
                }
            }
            Err(why) => {
                journal.phase = Phase::Trying;
                return Err(match settle::undo(self.data, &journal) {
                    Ok(_) => ResetError::Undone { act, why: why.told() },
                    Err(source) => {
                        ResetError::NotUndone { act, why: why.told().to_string(), source: Failure::from(source).told() }
                    }
                }
                .into());
            }
        }
        let finished = settle::finish(self.data, &journal);
        finished.map_err(|source| ResetError::NotFinished { act, source: Failure::from(source).told() })?;
        if report.safety_net.is_some() {
            self.prune_safety_nets();
        }
        Ok(report)
    }

    /// The exchange, and an etcd that runs on the new data before anybody else can reach them. Gives the revision then.
    async fn put_in_place(&self, journal: &Journal, built: Option<&Built>) -> Result<Option<i64>, Failure> {
        exchange::put_in_place(journal)?;
        if journal.act == Act::Undo {
            // The journal knows it too, and etcd wonders about files that are not its own.
            old::unlabel(&journal.current)?;
        }
        let size = built.map_or_else(|| old_size(&journal.current), |built| built.size);
        let trust = trial::trust(&journal.work);
        let trial = Trial {
            config: self.config,
            data: self.data,
            trust: &trust,
            dir: &self.data.etcd(),
            name: &journal.after.member_name,
            quota: trial::quota(size),
            force_new_cluster: false,
        };
        let tried = if built.is_some() { Tried::AsBuilt } else { Self::is_tried(journal) };
        if tried == Tried::NotAtAll {
            return Ok(None);
        }
        tracing::info!("the new data are in place; an etcd runs on them now, which no client can reach");
        let expected = Expected { name: journal.after.member_name.clone(), peer_url: Addresses::peer_url(self.config) };
        let question = Question { expected, built, size };
        let answer = gate::pass(&trial, &self.program, &question, self.course).await?;
        tracing::info!(
            healthy_after_ms = answer.took.as_millis(),
            revision = answer.revision,
            "etcd is healthy on the new data, holds what was built, and was written to"
        );
        Ok(Some(answer.revision))
    }

    /// Builds the new data beside those in use.
    async fn stage(&mut self, what: Act, snapshot: Option<PathBuf>) -> Result<Staged, Failure> {
        let data = self.data;
        let before = cluster::recall(data)?;
        let found = data_state(data)?;
        let paths = Paths::of(data, clock::unix_seconds(clock::now()));
        let opened = if let Some(path) = snapshot {
            Some(self.open(path).await?)
        } else {
            self.check_data(found, before.as_ref())?;
            None
        };
        let mut report = Report {
            act: Some(what),
            from: opened.as_ref().map(|snapshot| snapshot.path.clone()),
            old: paths.old.clone(),
            members_before: before.as_ref().map_or(0, |cluster| cluster.members).max(self.members_now()),
            ..Report::default()
        };
        report.room = Some(self.check_room(&paths, opened.as_ref())?);
        let token = self.secrets(&mut report).await?;
        paths.clear(data)?;
        let name = self.name(before.as_ref())?;
        let blueprint =
            self.blueprint(name, if what == Act::Reset { 0 } else { self.config.cluster_reset_bump_revision })?;
        let built = match opened {
            Some(snapshot) => self.build(snapshot, &paths, &blueprint).await?,
            None => self.replay(&paths, &blueprint, &mut report).await?,
        };
        // Only now: what cannot be restored leaves nothing behind, however often it is tried.
        if found == DataState::Present && !self.asked.no_safety_net {
            self.safety_net(before.as_ref(), &mut report).await;
        }
        data.give_to_etcd(&paths.built())?;
        report.size = built.size;
        report.revision = Some((built.revision_before, built.inspection.revision));
        report.keys = Some(built.inspection.keys);
        report.members_before = report.members_before.max(built.members_before);
        report.cleared_alarms.clone_from(&built.cleared_alarms);
        report.notes.extend(built.note.clone());
        let mut journal =
            Journal::begin(what, clock::rfc3339(clock::now()), paths, self.record(before.as_ref(), &blueprint));
        journal.before = before;
        if let Some(token) = token {
            durable::write_file(&settle::staged_token(&journal), token.as_bytes(), PRIVATE)?;
        }
        Ok(Staged { journal, report, built: Some(built) })
    }

    /// How many members the database in use knows, as far as it can be read.
    fn members_now(&self) -> usize {
        let members = host::open_regular(&self.data.etcd_bolt()).ok().and_then(|file| look::members(&file).ok());
        members.map_or(0, |members| members.len())
    }

    /// What is reset must be there, and readable for this etcd.
    fn check_data(&self, found: DataState, before: Option<&ClusterRecord>) -> Result<(), Failure> {
        match found {
            DataState::Present => {}
            DataState::Absent | DataState::NeverBegun => return Err(ResetError::NoData(self.data.etcd()).into()),
            DataState::Torn => return Err(ResetError::Torn(self.data.etcd()).into()),
        }
        if let Some(last) = before.and_then(|cluster| cluster.etcd_version) {
            start::check_versions(last, self.program.version)?;
        }
        Ok(())
    }

    async fn open(&self, path: PathBuf) -> Result<SnapshotFile, Failure> {
        let opened = blocking(move || file::open(&path)).await??;
        if opened.trailer.is_none() && !self.asked.skip_hash {
            return Err(VerifyError::NoHash(opened.path).into());
        }
        Ok(opened)
    }

    /// Bytes that are needed, and that are free.
    fn check_room(&self, paths: &Paths, snapshot: Option<&SnapshotFile>) -> Result<(u64, u64), ResetError> {
        let dir = paths.work.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_path_buf();
        let member = self.data.etcd_member();
        let needed = SPARE + snapshot.map_or_else(|| replay::size(&member), |snapshot| snapshot.database_size);
        let free = host::free_bytes(&dir).unwrap_or(u64::MAX);
        if free < needed { Err(ResetError::Space { needed, free, dir }) } else { Ok((needed, free)) }
    }

    /// CAs and token: those that are there stay. A token that was given is the server's once all is done.
    async fn secrets(&self, report: &mut Report) -> Result<Option<String>, Failure> {
        let had_none = !self.data.certificate("server-ca").certificate.exists();
        preflight::ensure_certificates(self.data, Names::of(self.config)).await?;
        if had_none {
            let tls = self.data.tls();
            report.notes.push(format!(
                "this server had no certificates, so it made a CA of its own: clients need new ones, from {0} (server-ca.crt, client.crt, \
                 client.key)",
                tls.display()
            ));
        }
        let Some(given) = &self.config.token else {
            pki::token::ensure(self.data, None)?;
            return Ok(None);
        };
        let (token, is_of_another) = pki::token::adopted(self.data, given)?;
        if is_of_another {
            report.notes.push(
                "the token that was given was of another CA; its password is kept, with the hash of this server's CA"
                    .into(),
            );
        }
        Ok(Some(token))
    }

    /// A snapshot of the data in use, as far as they can be read without their log. A net that cannot be had is no reason to fall: the
    /// data themselves are kept too.
    async fn safety_net(&self, before: Option<&ClusterRecord>, report: &mut Report) {
        let bolt = self.data.etcd_bolt();
        let known = before.cloned().unwrap_or_default();
        let wish = Wish {
            dir: self.config.snapshot.place(self.data),
            base: Base::pre_restore(),
            node: self.config.node_name.clone(),
            packing: self.config.snapshot.packing,
            reason: "pre-restore",
            labels: std::collections::BTreeMap::default(),
            live: None,
            course: self.course.clone(),
        };
        let facts = client::Source {
            member_id: known.member_id,
            cluster_id: known.cluster_id,
            version: known.etcd_version.map(|version| version.to_string()).unwrap_or_default(),
            db_size: 0,
            alarms: Vec::new(),
        };
        let dir = wish.dir.clone();
        (self.tell)("saving the data in use", 0, 0);
        let saved = blocking(move || save::save_at_rest(&wish, &bolt, &facts)).await;
        match saved {
            Ok(Ok(manifest)) => {
                tracing::info!(name = manifest.name, revision = manifest.revision, "the data in use were saved first");
                report.safety_net = Some(dir.join(&manifest.name));
            }
            Ok(Err(why)) => report.notes.push(format!(
                "no snapshot of the data in use was taken first ({}); the data themselves are kept",
                why.told().message
            )),
            Err(why) => report.notes.push(format!("no snapshot of the data in use was taken first: {why}")),
        }
    }

    /// As many are kept as data directories that were set aside.
    fn prune_safety_nets(&self) {
        let dir = self.config.snapshot.place(self.data);
        let policy = Policy { last: Some(self.config.etcd_old_retention), ..Policy::default() };
        let now = clock::unix_seconds(clock::now());
        let pruned = prune::plan(&dir, &Base::pre_restore(), &self.config.node_name, &policy, now)
            .and_then(|decided| prune::carry_out(&dir, &decided));
        match pruned {
            Ok(gone) => {
                for name in gone {
                    tracing::info!(name, "pruned; etcd-old-retention is for these, too");
                }
            }
            Err(error) => tracing::warn!(%error, "older snapshots of this kind could not be pruned"),
        }
    }

    fn name(&self, before: Option<&ClusterRecord>) -> Result<String, Failure> {
        let known = preflight::read_name(self.data).or_else(|| before.map(|cluster| cluster.member_name.clone()));
        match known.filter(|name| !name.is_empty()) {
            Some(name) => Ok(name),
            None => Ok(format!("{}-{}", self.config.node_name, random_digits()?)),
        }
    }

    /// A token that nobody else has makes a cluster that nobody else is in: members of the one before can never mix with it.
    fn blueprint(&self, name: String, raise: u64) -> Result<Blueprint, Failure> {
        let token = format!("quorate-{}{}", random_digits()?, random_digits()?);
        let membership = Membership::new(&[(name.clone(), vec![Addresses::peer_url(self.config)])], &token);
        let membership = membership.map_err(ResetError::from)?;
        Ok(Blueprint { name, membership, target: self.program.version, raise })
    }

    fn record(&self, before: Option<&ClusterRecord>, blueprint: &Blueprint) -> ClusterRecord {
        ClusterRecord {
            cluster_id: format!("{:x}", blueprint.membership.cluster_id),
            epoch: before.map_or(1, |cluster| cluster.epoch + 1),
            member_id: blueprint.membership.ids().next().map(|id| format!("{id:x}")).unwrap_or_default(),
            member_name: blueprint.name.clone(),
            members: 1,
            control_urls: Vec::new(),
            etcd_version: Some(self.program.version),
            other: before.map(|cluster| cluster.other.clone()).unwrap_or_default(),
        }
    }

    async fn build(&self, snapshot: SnapshotFile, paths: &Paths, blueprint: &Blueprint) -> Result<Built, Failure> {
        let (dir, blueprint, course, tell) = (paths.built(), blueprint.clone(), self.course.clone(), self.tell.clone());
        let built = blocking(move || {
            build::build(&snapshot, &dir, &blueprint, &course, &mut |done, all| {
                tell("building the new data", done, all);
            })
        });
        Ok(built.await??)
    }

    /// Lets an etcd read the log to its end in a copy, and builds from what comes out.
    async fn replay(&self, paths: &Paths, blueprint: &Blueprint, report: &mut Report) -> Result<Built, Failure> {
        let dir = paths.work.join("replay");
        let (member, copy, tell) = (self.data.etcd_member(), dir.join("member"), self.tell.clone());
        let kept =
            blocking(move || replay::copy(&member, &copy, &mut |done, all| tell("copying the data in use", done, all)));
        let kept = kept.await??;
        if kept.uncertain > 0 {
            report.notes.push(format!(
                "the end of the log ({}) was not known to this member to be committed, and is kept: clients may have been told that it was \
                 written",
                if kept.uncertain == 1 { "one entry".into() } else { format!("{} entries", kept.uncertain) }
            ));
        }
        self.data.give_to_etcd(&dir)?;
        let trust = trial::trust(&paths.work);
        let trial = Trial {
            config: self.config,
            data: self.data,
            trust: &trust,
            dir: &dir,
            name: &blueprint.name,
            quota: trial::quota(replay::size(&dir.join("member"))),
            force_new_cluster: true,
        };
        tracing::info!("an etcd reads the log of this member to its end, in a copy");
        replay::run(&trial, &self.program, self.course).await?;
        let (built, blueprint) = (paths.built(), blueprint.clone());
        Ok(blocking(move || {
            build::adopt(&dir, &built)?;
            durable::remove_dir_all(&dir)?;
            build::rebuild(&built, &blueprint)
        })
        .await??)
    }
}

/// Bytes of the database in `current`, which is etcd's directory or its `member`.
fn old_size(current: &Path) -> u64 {
    let found = ["member/snap/db", "snap/db"].iter().find_map(|path| std::fs::metadata(current.join(path)).ok());
    found.map_or(0, |found| found.len())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SystemError> {
    let lost = |lost| system("do the work")(std::io::Error::other(lost));
    tokio::task::spawn_blocking(work).await.map_err(lost)
}
