//! Why a snapshot is not uploaded.

use crate::error::{Code, Diagnostic, ErrorReport};

/// Why a snapshot is not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the snapshot {name} is saved on this node, but its upload to {place} failed")]
    Failed {
        name: String,
        place: String,
        /// The command that cancels the upload.
        cancel: String,
        source: Box<ErrorReport>,
    },
    /// It differs from what was saved.
    #[error("the snapshot {name} will not be uploaded: it is {status} now")]
    NotGood {
        name: String,
        /// Its status in `ls`.
        status: &'static str,
    },
    /// It was read, and is damaged.
    #[error("the snapshot {name} is damaged on this node, and will not be uploaded")]
    Corrupt { name: String, source: Box<ErrorReport> },
    /// Its name is not free there.
    #[error("the snapshot {name} is saved on this node, but cannot be uploaded")]
    NameConflict { name: String, source: Box<ErrorReport> },
    #[error("the snapshot {0} was not uploaded, because it does not exist any more")]
    NotFound(String),
    #[error("the snapshot {0} was not uploaded, because it cannot be read now")]
    Unavailable(String),
    #[error("the snapshot {0} is saved on this node, but not uploaded: etcd-s3 is off now")]
    Disabled(String),
    #[error("the server stopped before the snapshot was uploaded; the next start continues the upload")]
    Stopping,
}

impl UploadError {
    /// The code of the cause, for the log: its own code says what happens to the upload.
    pub(super) fn cause(&self) -> Option<Code> {
        match self {
            Self::Failed { source, .. } | Self::Corrupt { source, .. } | Self::NameConflict { source, .. } => {
                Some(source.code)
            }
            _ => None,
        }
    }

    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::NotGood { .. } | Self::Corrupt { .. } | Self::NameConflict { .. } | Self::NotFound(_))
    }
}

impl Diagnostic for UploadError {
    fn code(&self) -> Code {
        match self {
            Self::Failed { .. } | Self::Stopping => Code::UploadPending,
            Self::NotGood { .. } | Self::Corrupt { .. } | Self::NameConflict { .. } => Code::UploadRefused,
            Self::NotFound(_) | Self::Unavailable(_) => Code::UploadSourceMissing,
            Self::Disabled(_) => Code::UploadDisabled,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::Failed { source, cancel, .. } => {
                let fix = source.next.as_deref().unwrap_or("quorate etcd-snapshot s3-check");
                format!("{fix}; the upload is retried until it succeeds. To cancel it: {cancel}")
            }
            Self::NotGood { .. } | Self::Corrupt { .. } => {
                "run run quorate etcd-snapshot verify, and use another snapshot".into()
            }
            Self::NameConflict { .. } => "quorate etcd-snapshot save takes another one, under another name".into(),
            Self::NotFound(_) => "quorate etcd-snapshot ls".into(),
            Self::Unavailable(_) => "check whether its disk is mounted; the upload is retried automatically".into(),
            Self::Disabled(_) => "set etcd-s3: true again to upload it".into(),
            Self::Stopping => "quorate status, once it runs".into(),
        })
    }
}
