//! The members of a cluster: how etcd derives ids from names, peer URLs and a token, and how it stores them.
//!
//! Rules (etcd `server/etcdserver/api/membership/member.go` and `cluster.go`, the same in 3.4 to 3.7): a member's id is
//! the first eight bytes, big-endian, of the SHA-1 of its peer URLs in order and the token; a cluster's id that of its
//! members' ids in order. A member is written as JSON the way Go's `encoding/json` writes it.

use std::fmt::Write as _;

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY};
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// Why there can be no such cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("a cluster needs at least one member")]
    Empty,
    #[error("the member {0} has no peer URL")]
    NoUrl(String),
    /// A name, URL or id occurs twice.
    #[error("duplicate {0} among the members")]
    Twice(String),
}

/// The members of a cluster, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub cluster_id: u64,
    pub members: Vec<Member>,
}

impl Membership {
    /// The cluster that etcd bootstraps from names, peer URLs and a token.
    pub fn new(members: &[(String, Vec<String>)], token: &str) -> Result<Self, MembershipError> {
        let mut seen = std::collections::BTreeSet::new();
        for text in members.iter().flat_map(|(name, urls)| urls.iter().chain([name])) {
            if !seen.insert(text) {
                return Err(MembershipError::Twice(text.clone()));
            }
        }
        let mut made = Vec::new();
        for (name, urls) in members {
            if urls.is_empty() {
                return Err(MembershipError::NoUrl(name.clone()));
            }
            let mut peer_urls = urls.clone();
            peer_urls.sort();
            let id = first_of_sha1(&[peer_urls.concat().as_bytes(), token.as_bytes()].concat());
            made.push(Member { id, name: name.clone(), peer_urls });
        }
        made.sort_by_key(|member| member.id);
        if made.is_empty() {
            return Err(MembershipError::Empty);
        }
        if let Some(pair) = made.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(MembershipError::Twice(pair[1].peer_urls.join(",")));
        }
        let ids: Vec<u8> = made.iter().flat_map(|member| member.id.to_be_bytes()).collect();
        Ok(Self { cluster_id: first_of_sha1(&ids), members: made })
    }

    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.members.iter().map(|member| member.id)
    }

    /// The number of members, which is also the index of the last bootstrap entry of the log.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.members.len() as u64
    }

    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// `{"voters":[…],"auto_leave":false}`, which 3.5 and later keep in `meta/confState`.
    #[must_use]
    pub fn conf_state_json(&self) -> String {
        let ids: Vec<String> = self.ids().map(|id| id.to_string()).collect();
        format!("{{\"voters\":[{}],\"auto_leave\":false}}", ids.join(","))
    }
}

impl Member {
    /// JSON as in the bucket `members` and in the log; an empty name is omitted.
    #[must_use]
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Written<'a> {
            id: u64,
            #[serde(rename = "peerURLs")]
            peer_urls: &'a [String],
            #[serde(skip_serializing_if = "str::is_empty")]
            name: &'a str,
        }
        go_json(&Written { id: self.id, peer_urls: &self.peer_urls, name: &self.name })
    }

    /// `{"peerURLs":[…]}`.
    #[must_use]
    pub fn raft_attributes_json(&self) -> String {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(rename = "peerURLs")]
            peer_urls: &'a [String],
        }
        go_json(&Written { peer_urls: &self.peer_urls })
    }

    /// The id as a key: lower-case hexadecimal without leading zeros.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{:x}", self.id)
    }
}

/// JSON as Go writes it: HTML characters are escaped.
pub(super) fn go_json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(escaped, "\\u{:04x}", c as u32);
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

fn first_of_sha1(bytes: &[u8]) -> u64 {
    let digest = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(members: &[(&str, &str)], token: &str) -> Result<Membership, MembershipError> {
        let members: Vec<_> = members.iter().map(|(name, url)| ((*name).to_owned(), vec![(*url).to_owned()])).collect();
        Membership::new(&members, token)
    }

    /// Ids as computed by etcdutl 3.5.30.
    #[test]
    fn ids_are_those_that_etcd_makes() {
        let one = of(&[("n1", "http://127.0.0.1:25380")], "etcd-cluster").unwrap();
        assert_eq!((one.members[0].id, one.cluster_id), (0x8203_9f3e_ee02_bfb3, 0x20f6_5752_4b5b_6bb1));
        let three: Vec<(String, String)> =
            (1..=3).map(|n| (format!("m{n}"), format!("http://127.0.0.1:2538{n}"))).collect();
        let three: Vec<(&str, &str)> = three.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
        let three = of(&three, "tok").unwrap();
        let found: Vec<(&str, String)> =
            three.members.iter().map(|member| (member.name.as_str(), member.key())).collect();
        let expected = [("m3", "dd3ab3dbd915714"), ("m2", "9ccc8283b76d509c"), ("m1", "dbcd4401682015ce")];
        assert_eq!(found, expected.map(|(name, id)| (name, id.to_owned())));
        assert_eq!(
            three.named("m3").unwrap().json(),
            r#"{"id":996328224240785172,"peerURLs":["http://127.0.0.1:25383"],"name":"m3"}"#
        );
    }

    #[test]
    fn what_cannot_be_a_cluster_is_none() {
        assert_eq!(of(&[], "t"), Err(MembershipError::Empty));
        for twice in [[("a", "http://x:1"), ("a", "http://y:1")], [("a", "http://x:1"), ("b", "http://x:1")]] {
            assert!(matches!(of(&twice, "t"), Err(MembershipError::Twice(_))));
        }
        assert!(matches!(Membership::new(&[("a".into(), vec![])], "t"), Err(MembershipError::NoUrl(_))));
    }

    #[test]
    fn json_is_escaped_as_go_does() {
        let member = Member { id: 1, name: "a<b>&\u{2028}".into(), peer_urls: vec![] };
        assert_eq!(member.json(), r#"{"id":1,"peerURLs":[],"name":"a\u003cb\u003e\u0026\u2028"}"#);
    }
}
