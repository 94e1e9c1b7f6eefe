//! The gate before clients may use new data: does an etcd run on it, is it the intended member, does it hold
//! what was built, and can it be written to?

use std::time::Duration;

use crate::error::{Code, Diagnostic};
use crate::etcd::client::{ClientError, EtcdClient, Expected, MemberFacts, NotHealthy};
use crate::faults;
use crate::job::JobControl;
use crate::recovery::expected::ExpectedCluster;
use crate::recovery::isolated_etcd::{IsolatedEtcd, IsolatedEtcdError, IsolatedProgram, Running, health_timeout};
use crate::recovery::journal::ExpectedData;

#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// etcd does not run on the data.
    #[error("etcd does not run on the new data")]
    IsolatedEtcd(#[from] IsolatedEtcdError),
    /// It is not what was built.
    #[error("etcd does not have the built contents: {what} is {found}, but should be {expected}")]
    Mismatch { what: &'static str, found: String, expected: String },
    #[error("etcd is running, but failed to {act}")]
    Client { act: &'static str, source: ClientError },
    #[error("cannot get random numbers from the operating system")]
    System(#[source] std::io::Error),
}

impl Diagnostic for GateError {
    fn code(&self) -> Code {
        match self {
            Self::IsolatedEtcd(error) => error.code(),
            Self::Mismatch { .. } => Code::RestoreCheckFailed,
            Self::Client { .. } => Code::EtcdRequestFailed,
            Self::System(_) => Code::OsError,
        }
    }
}

#[derive(Clone, Debug)]
pub struct GateInput<'a> {
    /// Who this server is to be.
    pub own: Expected,
    pub expected: &'a ExpectedCluster,
    pub data: Option<&'a ExpectedData>,
    pub size: u64,
}

#[derive(Clone, Debug)]
pub struct GateReport {
    pub member: MemberFacts,
    /// How long it took to be healthy.
    pub took: Duration,
    /// The revision when it was stopped.
    pub revision: i64,
}

/// Runs etcd, checks it, and stops it in any case.
pub async fn verify(
    isolated_etcd: &IsolatedEtcd<'_>,
    program: &IsolatedProgram,
    input: &GateInput<'_>,
    control: &JobControl,
) -> Result<GateReport, GateError> {
    let mut running = isolated_etcd.start(program).await?;
    let checked = check(&mut running, input, control).await;
    // The first error is reported.
    let stopped = running.stop().await;
    let answer = checked?;
    stopped?;
    Ok(answer)
}

async fn check(running: &mut Running, input: &GateInput<'_>, control: &JobControl) -> Result<GateReport, GateError> {
    let begun = crate::clock::monotonic();
    let expected = &input.own;
    let member = running
        .until(health_timeout(input.size), control, async |client: &mut EtcdClient| {
            match client.check(expected).await {
                Ok(member) => Ok(member),
                // Returning data may be from before a change of this server's address.
                Err(NotHealthy::OtherAddress { member, is_alone: true, .. }) => {
                    let moved = client.update_peer_url(member, &expected.peer_url).await;
                    Err(moved.map_or_else(|why| why.to_string(), |()| "its peer URL was corrected a moment ago".into()))
                }
                Err(why) => Err(why.to_string()),
            }
        })
        .await?;
    let took = begun.elapsed();
    faults::point("restore::gate").map_err(GateError::System)?;
    compare("the number of members", &member.members, &input.expected.members.len())?;
    let (trust, url) = running.address();
    let client = EtcdClient::connect_for(trust, url, health_timeout(input.size)).await;
    let mut client = client.map_err(|source| GateError::Client { act: "be connected to", source })?;
    let failed = |act| move |source| GateError::Client { act, source };
    if let Some(data) = input.data {
        compare("the revision", &member.revision, &data.revision)?;
        let keys = client.count().await.map_err(failed("count its keys"))?;
        compare("the number of keys", &keys, &data.keys)?;
        let hash = client.hash_of_everything().await.map_err(failed("say its HashKV"))?;
        compare("HashKV", &hash.hash, &data.hash_kv)?;
    }
    let mark = hex::encode(crate::random::random::<8>().map_err(GateError::System)?);
    let revision =
        client.write_and_delete_probe(&format!("quorate/gate/{mark}")).await.map_err(failed("accept a write"))?;
    Ok(GateReport { member, took, revision })
}

fn compare<T: PartialEq + ToString>(what: &'static str, found: &T, expected: &T) -> Result<(), GateError> {
    if found == expected {
        return Ok(());
    }
    Err(GateError::Mismatch { what, found: found.to_string(), expected: expected.to_string() })
}
