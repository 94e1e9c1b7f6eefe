//! `--undo-reset`: the newest data that were set aside come back, and those in use are set aside.

use std::path::Path;

use super::{Report, ResetError, Run, Tried};
use crate::boltdb::database::Length;
use crate::clock;
use crate::error::Failure;
use crate::plan::start::{self, ClusterRecord};
use crate::restore::exchange::Paths;
use crate::restore::journal::{Act, Journal};
use crate::restore::old;
use crate::server::cluster;
use crate::snapshot::inspect;
use crate::snapshot::live::Live;
use crate::snapshot::verify::VerifyError;

impl Run<'_> {
    /// What goes back to what.
    pub(super) fn plan_undo(&self) -> Result<(Journal, Report), Failure> {
        let data = self.data;
        let mut paths = Paths::of(data, clock::unix_seconds(clock::now()));
        let kind = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().starts_with(b"member-old-"));
        let is_inside = paths.current.ends_with("member");
        let aside = old::list(data)
            .into_iter()
            .filter(|aside| aside.path.parent() == paths.current.parent() && kind(&aside.path) == Some(is_inside))
            // What was set aside without a database is nothing to go back to.
            .find(|aside| old::holds_data(&aside.path));
        let aside = aside.ok_or_else(|| ResetError::NothingAside(data.db()))?;
        paths.staged.clone_from(&aside.path);
        paths.work = data.restore();
        let before = cluster::recall(data)?;
        let epoch = before.as_ref().map_or(1, |cluster| cluster.epoch + 1);
        let labelled = old::labelled(&aside.path);
        if let Some(last) = labelled.as_ref().and_then(|cluster| cluster.etcd_version) {
            start::check_versions(last, self.program.version)?;
        }
        let bolt = if is_inside { aside.path.join("snap/db") } else { aside.path.join("member/snap/db") };
        let size = check(&bolt)?;
        let report = Report {
            act: Some(Act::Undo),
            from: Some(aside.path.clone()),
            old: paths.old.clone().filter(|_| old::holds_data(&paths.current)),
            members_before: labelled.as_ref().map_or(0, |cluster| cluster.members),
            size,
            ..Report::default()
        };
        let after = ClusterRecord { epoch, ..labelled.unwrap_or_default() };
        let mut journal = Journal::begin(Act::Undo, clock::rfc3339(clock::now()), paths, after);
        journal.before = before;
        Ok((journal, report))
    }

    /// Whether an etcd runs on them, if it can be told: of several members, one alone never does.
    pub(super) fn is_tried(journal: &Journal) -> Tried {
        if journal.after.members == 1 { Tried::Alone } else { Tried::NotAtAll }
    }
}

/// The database must be whole.
fn check(bolt: &Path) -> Result<u64, Failure> {
    let held = Live::at_rest(bolt)?;
    inspect::inspect(&held, held.size(), Length::Exact, &mut |_, _| {})
        .map_err(|error| VerifyError::of(error, bolt, None))?;
    Ok(held.size())
}
