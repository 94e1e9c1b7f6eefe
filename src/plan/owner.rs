//! Which server a snapshot belongs to: a pure function of its manifest and of the identity and lineage of this server.
//!
//! The data decides, not the host name: a manifest has cluster and member ID, and those that this data directory had
//! before a reset, restore or new cluster are in `cluster.json` (its lineage). The node name is used only if nothing
//! else is known.

use std::collections::BTreeSet;

use crate::cluster::record::MemberIdentity;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `node-name`.
    pub node: String,
    /// The incarnations of its data directory, including the present one.
    pub lives: BTreeSet<MemberIdentity>,
    /// There were no others, so a snapshot of another incarnation belongs to another server, even if the node name is
    /// the same.
    pub knows_all: bool,
}

/// The known facts about a snapshot. Unknown texts are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// File name without the extension of the compression.
    pub stem: &'a str,
    /// The seconds at the end of the name.
    pub taken_at: Option<u64>,
    pub base: &'a str,
    pub node: &'a str,
    pub cluster_id: &'a str,
    pub member_id: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Of this server, under its present name.
    Own,
    /// Of this server, under an earlier name.
    Earlier(String),
    /// Of a node of the same name with other data.
    Namesake,
    Foreign,
}

impl Ownership {
    /// True if it belongs to this server, under any name.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own | Self::Earlier(_))
    }
}

impl Owner {
    /// A node of which only the name is known.
    #[must_use]
    pub fn named(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// The server whose data directory had these incarnations, and perhaps others.
    #[must_use]
    pub fn new(node: &str, lives: impl IntoIterator<Item = MemberIdentity>, had_others: bool) -> Self {
        let lives: BTreeSet<MemberIdentity> = lives.into_iter().filter(MemberIdentity::is_known).collect();
        Self { node: node.to_owned(), knows_all: !lives.is_empty() && !had_others, lives }
    }

    #[must_use]
    pub fn of(&self, snapshot: &Origin<'_>) -> Ownership {
        if snapshot.node.is_empty() {
            // Without a manifest, only the file name is known.
            let head = head(snapshot);
            let is_ours =
                head.and_then(|head| head.strip_suffix(self.node.as_str())).and_then(|it| it.strip_suffix('-'));
            return if is_ours.is_some_and(|base| !base.is_empty()) { Ownership::Own } else { Ownership::Foreign };
        }
        let life =
            MemberIdentity { cluster_id: snapshot.cluster_id.to_owned(), member_id: snapshot.member_id.to_owned() };
        let is_of_another = !self.lives.contains(&life);
        match snapshot.node == self.node {
            true if is_of_another && life.is_known() && self.knows_all => Ownership::Namesake,
            true => Ownership::Own,
            false if is_of_another => Ownership::Foreign,
            false => Ownership::Earlier(snapshot.node.to_owned()),
        }
    }

    /// The base name of a snapshot of this server: from its manifest, or the part of the file name before the node.
    #[must_use]
    pub fn base_of<'a>(&self, snapshot: &Origin<'a>) -> Option<&'a str> {
        if !snapshot.base.is_empty() {
            return Some(snapshot.base);
        }
        head(snapshot)?.strip_suffix(self.node.as_str())?.strip_suffix('-').filter(|base| !base.is_empty())
    }
}

/// The name without the time at its end: base and node.
fn head<'a>(snapshot: &Origin<'a>) -> Option<&'a str> {
    snapshot.stem.strip_suffix(&format!("-{}", snapshot.taken_at?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(cluster: &str, member: &str) -> MemberIdentity {
        MemberIdentity { cluster_id: cluster.into(), member_id: member.into() }
    }

    #[test]
    fn what_this_data_directory_took_is_its_own_under_every_name() {
        let (own, earlier) = (Ownership::Own, Ownership::Earlier("old".into()));
        let (namesake, foreign) = (Ownership::Namesake, Ownership::Foreign);
        let lives = [life("c1", "m1"), life("c2", "m2")];
        let complete = Owner::new("new", lives.clone(), false);
        let partial = Owner::new("new", lives, true);
        let by_name = Owner::named("new");
        let nothing = Owner::new("new", [MemberIdentity::default()], false);
        for (node, cluster_id, member_id, expected) in [
            ("new", "c2", "m2", [&own, &own, &own]),
            ("old", "c2", "m2", [&earlier, &earlier, &foreign]),
            // Before a reset.
            ("new", "c1", "m1", [&own, &own, &own]),
            ("old", "c1", "m1", [&earlier, &earlier, &foreign]),
            // Another server that has, or had, the same name.
            ("new", "c9", "m9", [&namesake, &own, &own]),
            ("new", "", "", [&own, &own, &own]),
            // Another member of our cluster, the same id in another cluster, two ids that never belonged together.
            ("other", "c2", "m3", [&foreign, &foreign, &foreign]),
            ("other", "c3", "m2", [&foreign, &foreign, &foreign]),
            ("other", "c1", "m2", [&foreign, &foreign, &foreign]),
            ("other", "", "", [&foreign, &foreign, &foreign]),
        ] {
            let origin = Origin { stem: "s-x-7", taken_at: Some(7), base: "s", node, cluster_id, member_id };
            let found = [complete.of(&origin), partial.of(&origin), by_name.of(&origin)];
            assert_eq!(found.each_ref(), expected, "{origin:?}");
            assert_eq!(nothing.of(&origin), by_name.of(&origin), "{origin:?}");
        }
    }

    #[test]
    fn without_a_manifest_the_name_decides() {
        let owner = Owner::new("new", [life("c1", "m1")], false);
        for (stem, taken_at, expected, base) in [
            ("before-upgrade-new-17", Some(17), Ownership::Own, Some("before-upgrade")),
            ("before-upgrade-old-17", Some(17), Ownership::Foreign, None),
            ("new-17", Some(17), Ownership::Foreign, None),
            ("-new-17", Some(17), Ownership::Foreign, None),
            ("before-upgrade-renew-17", Some(17), Ownership::Foreign, None),
            ("before-upgrade-new", None, Ownership::Foreign, None),
            ("snapshot.db", None, Ownership::Foreign, None),
        ] {
            let origin = Origin { stem, taken_at, ..Origin::default() };
            assert_eq!(owner.of(&origin), expected, "{stem}");
            assert_eq!(owner.base_of(&origin), base, "{stem}");
        }
        let described = Origin { stem: "a-b-new-1", taken_at: Some(1), base: "a", node: "b-new", ..Origin::default() };
        assert_eq!(owner.base_of(&described), Some("a"));
    }
}
