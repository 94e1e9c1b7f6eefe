//! Whether a certificate is kept, renewed with its key, or reissued with a new key.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// The facts about a certificate on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// The names and addresses in it.
    pub names: BTreeSet<String>,
    /// The current CA has issued it.
    pub is_of_our_authority: bool,
    /// The key next to it belongs to it.
    pub matches_key: bool,
}

/// A leaf as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLeaf {
    /// The certificate, if there is a readable one.
    pub leaf: Option<LeafFacts>,
    pub has_key: bool,
    /// The names and addresses that it must have.
    pub wanted: BTreeSet<String>,
}

/// Whether etcd is running on the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdState {
    /// etcd does not run: keys may be replaced.
    Stopped,
    Running,
}

/// What is done with one leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalStep {
    Keep,
    /// It is issued with the key that is there, or a new one if there is none, for this reason.
    Issue(String),
    /// It needs a new key, which etcd would not read together with the certificate: nothing, before the next start.
    NeedsRestart,
}

/// What is done with each leaf.
#[must_use]
pub fn plan(leaves: &[ObservedLeaf], etcd: EtcdState, now: SystemTime) -> Vec<RenewalStep> {
    let step =
        |observed: &ObservedLeaf| match (decide(observed.leaf.as_ref(), observed.has_key, &observed.wanted, now), etcd)
        {
            (RenewalAction::Keep, _) => RenewalStep::Keep,
            (RenewalAction::Reissue(_), EtcdState::Running) => RenewalStep::NeedsRestart,
            (RenewalAction::Renew(why) | RenewalAction::Reissue(why), _) => RenewalStep::Issue(why),
        };
    leaves.iter().map(step).collect()
}

/// What to do, and why, for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalAction {
    Keep,
    /// A new certificate for the same key: one rename, so that the pair always matches.
    Renew(String),
    /// A new key and certificate: only while nothing uses them.
    Reissue(String),
}

/// Decides. `leaf` is `None` if no readable certificate, `has_key` says whether there is a readable key.
#[must_use]
pub fn decide(leaf: Option<&LeafFacts>, has_key: bool, wanted: &BTreeSet<String>, now: SystemTime) -> RenewalAction {
    if !has_key {
        return RenewalAction::Reissue("no readable key".into());
    }
    let Some(leaf) = leaf else { return RenewalAction::Renew("no readable certificate".into()) };
    if !leaf.matches_key {
        return RenewalAction::Renew("the key belongs to another certificate".into());
    }
    if !leaf.is_of_our_authority {
        return RenewalAction::Renew("its CA has changed".into());
    }
    if let Some(missing) = wanted.difference(&leaf.names).next() {
        return RenewalAction::Renew(format!("it does not include {missing}"));
    }
    if now < leaf.not_before {
        return RenewalAction::Renew("it is not valid yet".into());
    }
    let left = leaf.not_after.duration_since(now).unwrap_or(Duration::ZERO);
    let whole = leaf.not_after.duration_since(leaf.not_before).unwrap_or(Duration::ZERO);
    if left <= whole / 3 {
        return RenewalAction::Renew(format!("it expires in {} days", left.as_secs() / 86_400));
    }
    RenewalAction::Keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 10_000 + DAY * day
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn leaf() -> LeafFacts {
        LeafFacts {
            not_before: at(0),
            not_after: at(300),
            names: names(&["a", "b"]),
            is_of_our_authority: true,
            matches_key: true,
        }
    }

    #[test]
    fn each_fault_has_its_remedy() {
        let wanted = names(&["a"]);
        let verdict = |leaf: &LeafFacts, day| decide(Some(leaf), true, &wanted, at(day));
        assert_eq!(verdict(&leaf(), 1), RenewalAction::Keep);
        assert_eq!(verdict(&leaf(), 199), RenewalAction::Keep);
        assert_eq!(verdict(&leaf(), 200), RenewalAction::Renew("it expires in 100 days".into()));
        assert_eq!(verdict(&leaf(), 400), RenewalAction::Renew("it expires in 0 days".into()));
        assert!(matches!(verdict(&LeafFacts { matches_key: false, ..leaf() }, 1), RenewalAction::Renew(_)));
        assert!(matches!(verdict(&LeafFacts { is_of_our_authority: false, ..leaf() }, 1), RenewalAction::Renew(_)));
        assert_eq!(
            decide(Some(&leaf()), true, &names(&["a", "c"]), at(1)),
            RenewalAction::Renew("it does not include c".into())
        );
        assert!(matches!(decide(Some(&leaf()), false, &wanted, at(1)), RenewalAction::Reissue(_)));
        assert!(matches!(decide(None, true, &wanted, at(1)), RenewalAction::Renew(_)));
    }

    #[test]
    fn while_etcd_runs_no_key_is_made_and_the_others_are_renewed() {
        let observed = |leaf, has_key| ObservedLeaf { leaf: Some(leaf), has_key, wanted: names(&["a"]) };
        let leaves = [
            observed(leaf(), true),
            observed(leaf(), false),
            observed(LeafFacts { is_of_our_authority: false, ..leaf() }, true),
        ];
        let renewed = RenewalStep::Issue("its CA has changed".into());
        let steps = plan(&leaves, EtcdState::Running, at(1));
        assert_eq!(steps, [RenewalStep::Keep, RenewalStep::NeedsRestart, renewed.clone()]);
        let steps = plan(&leaves, EtcdState::Stopped, at(1));
        assert!(matches!(&steps[1], RenewalStep::Issue(_)) && steps[2] == renewed);
    }

    proptest! {
        #[test]
        fn nothing_expired_is_ever_kept(from in 0u32..1000, lifetime in 1u32..1000, now in 0u32..3000) {
            let leaf = LeafFacts { not_before: at(from), not_after: at(from + lifetime), ..leaf() };
            if decide(Some(&leaf), true, &names(&[]), at(now)) == RenewalAction::Keep {
                prop_assert!(now >= from && now < from + lifetime);
            }
        }
    }
}
