//! What the files say together.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::options;
use crate::config::problem::{ConfigProblem, OptionOrigin};

/// One value that a file sets.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) origin: OptionOrigin,
}

/// The result of RKE1's `cluster.yml`.
#[derive(Clone, Debug)]
pub(super) struct Rke1Values {
    pub(super) values: BTreeMap<&'static str, Vec<Text>>,
    pub(super) origin: OptionOrigin,
    /// The retention is RKE's default, which belongs to RKE's schedule.
    pub(super) is_retention_default: bool,
    pub(super) retention_note: Option<ConfigProblem>,
}

#[derive(Clone, Debug, Default)]
pub struct FileValues {
    pub(super) values: BTreeMap<&'static str, Vec<Text>>,
    /// The result of RKE1's `cluster.yml`, with a lower precedence than quorate's own keys.
    pub(super) rke1: Option<Rke1Values>,
    /// The line of an empty `cluster-reset-restore-path` in the last file that has it.
    pub(super) blank_restore_path: Option<OptionOrigin>,
    pub(super) notes: Vec<ConfigProblem>,
}

impl FileValues {
    /// Uses RKE1's snapshot directory, if there is a `cluster.yml`.
    pub fn keep_snapshots_in(&mut self, dir: &Path) {
        if let (Some(rke1), Some(text)) = (&mut self.rke1, dir.to_str()) {
            let text = Text { text: text.to_owned(), origin: rke1.origin.clone() };
            rke1.values.insert(options::ETCD_SNAPSHOT_DIR.name, vec![text]);
        }
    }

    #[must_use]
    pub fn notes(&self) -> &[ConfigProblem] {
        &self.notes
    }
}
