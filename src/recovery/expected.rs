//! The cluster that new data are for: it comes from outside, as only who starts the operation knows all of its servers.

use crate::boltdb::membership::{Membership, MembershipError};
use crate::cluster::record::{ClusterRecord, ServerRecord};

/// A voting member of the new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedMember {
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// The new cluster, of which this server is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedCluster {
    pub own_name: String,
    pub members: Vec<ExpectedMember>,
    /// What makes its ids, and so its cluster, different from every other one.
    pub token: String,
}

impl ExpectedCluster {
    #[must_use]
    pub fn alone(own_name: String, peer_url: String, token: String) -> Self {
        let own = ExpectedMember { name: own_name.clone(), peer_urls: vec![peer_url] };
        Self { own_name, members: vec![own], token }
    }

    /// The members that a record lists.
    #[must_use]
    pub fn of_record(record: &ClusterRecord) -> Self {
        let member =
            |server: &ServerRecord| ExpectedMember { name: server.name.clone(), peer_urls: server.peer_urls.clone() };
        let members = record.servers.iter().map(member).collect();
        Self { own_name: record.member_name.clone(), members, token: String::new() }
    }

    pub fn membership(&self) -> Result<Membership, MembershipError> {
        let members: Vec<_> = self.members.iter().map(|one| (one.name.clone(), one.peer_urls.clone())).collect();
        Membership::new(&members, &self.token)
    }
}
