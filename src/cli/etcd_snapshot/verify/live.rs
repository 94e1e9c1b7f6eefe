//! `verify --against-live`: compares a snapshot with the running member.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::runtime::block_on;
use crate::cli::status;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::error::{AppError, Code, Diagnostic};
use crate::etcd::client::{ClientError, EtcdClient, LiveHash};
use crate::snapshot::verify::Verified;

/// The timeout of the status request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The comparison failed, or found a difference.
#[derive(Debug, thiserror::Error)]
enum AgainstLive {
    #[error("cannot query the live member")]
    Unreachable(#[source] ClientError),
    #[error("cannot compare {} with the live member: {why}", path.display())]
    Incomparable { path: PathBuf, why: String },
    #[error(
        "{} is good, but the live member has other keys or values at revision {revision}: HashKV {live}, not {ours}",
        path.display()
    )]
    Mismatch { path: PathBuf, revision: i64, live: u32, ours: u32 },
}

impl Diagnostic for AgainstLive {
    fn code(&self) -> Code {
        match self {
            Self::Unreachable(_) => Code::EtcdRequestFailed,
            Self::Incomparable { .. } => Code::NotComparable,
            Self::Mismatch { .. } => Code::LiveMemberDiffers,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable(_) => "quorate status".into(),
            Self::Incomparable { .. } => "verify it without --against-live".into(),
            Self::Mismatch { .. } => {
                "if it is a snapshot of this cluster, this member or the snapshot is wrong: keep both, and \
                                     compare the members with etcdctl endpoint hashkv --cluster"
                    .into()
            }
        })
    }
}

/// Compares both. # Errors If they differ, or cannot be compared.
pub(super) fn compare(config: &Config, verified: &Verified) -> Result<bool, AppError> {
    let data = DataDir::new(&config.data_dir);
    let (revision, ours) = (verified.inspection.revision, verified.inspection.hash_kv);
    let live = block_on(async {
        let status = status::fetch(&data, REQUEST_TIMEOUT).await?;
        let mut client =
            EtcdClient::connect(&data, &status.local_client_url).await.map_err(AgainstLive::Unreachable)?;
        Ok::<_, AppError>(client.hash_kv(revision).await)
    })??;
    let path = verified.path.clone();
    let incomparable = |why: String| AgainstLive::Incomparable { path: path.clone(), why };
    let LiveHash { hash, compact_revision } = match live {
        Ok(live) => live,
        Err(ClientError::Etcd(error)) => return Err(incomparable(ClientError::Etcd(error).to_string()).into()),
        Err(error) => return Err(AgainstLive::Unreachable(error).into()),
    };
    let compacted = verified.inspection.compact_revision.unwrap_or(-1);
    // From 3.5.5 on a member returns, for revisions up to its last compaction, a hash from before it (etcd
    // server/storage/mvcc/hash.go, HashByRev).
    if revision <= compacted {
        let why = format!(
            "nothing was changed after its last compaction at {compacted}, and a member can only be compared after that"
        );
        return Err(incomparable(why).into());
    }
    if compact_revision != compacted {
        let why = format!("it is compacted up to {compact_revision}, but the snapshot up to {compacted}");
        return Err(incomparable(why).into());
    }
    if hash != ours {
        return Err(AgainstLive::Mismatch { path, revision, live: hash, ours }.into());
    }
    Ok(true)
}
