//! Why a snapshot is not uploaded.

use crate::error::{Code, Diagnostic, ErrorReport};

/// Why a snapshot is not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// An attempt failed.
    #[error("the snapshot {name} is whole and safe on this node, but could not be uploaded to {place}")]
    Failed {
        /// Which.
        name: String,
        /// Where to.
        place: String,
        /// The command that cancels the upload.
        cancel: String,
        /// Why.
        source: Box<ErrorReport>,
    },
    /// It is not what was saved.
    #[error("the snapshot {name} is not uploaded: it is {status} now")]
    NotGood {
        /// Which.
        name: String,
        /// What `ls` says.
        status: &'static str,
    },
    /// It was looked at, and is not what was saved.
    #[error("the snapshot {name} is damaged on this node, and is not uploaded")]
    Corrupt {
        /// Which.
        name: String,
        /// What was found.
        source: Box<ErrorReport>,
    },
    /// Its name is not free there.
    #[error("the snapshot {name} is whole and safe on this node, and is not uploaded")]
    NameConflict {
        /// Which.
        name: String,
        /// What is there.
        source: Box<ErrorReport>,
    },
    /// Somebody removed it.
    #[error("the snapshot {0} is gone, and was not uploaded")]
    NotFound(String),
    /// It cannot be looked at now.
    #[error("the snapshot {0} cannot be looked at now, and was not uploaded")]
    Unavailable(String),
    /// Uploads were switched off meanwhile.
    #[error("the snapshot {0} is whole and safe on this node, and was not uploaded: etcd-s3 is switched off now")]
    Disabled(String),
    /// Nothing waits for it any more.
    #[error("the server ended before the snapshot was uploaded; it goes on at its next start")]
    Stopping,
}

impl UploadError {
    /// The code of the failure beneath it, for the log: its own code says what becomes of the upload.
    pub(super) fn cause(&self) -> Option<Code> {
        match self {
            Self::Failed { source, .. } | Self::Corrupt { source, .. } | Self::NameConflict { source, .. } => {
                Some(source.code)
            }
            _ => None,
        }
    }

    /// No other attempt could do better.
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
            Self::NotGood { .. } | Self::Corrupt { .. } => "quorate etcd-snapshot verify, and take another one".into(),
            Self::NameConflict { .. } => "quorate etcd-snapshot save takes another one, under another name".into(),
            Self::NotFound(_) => "quorate etcd-snapshot ls".into(),
            Self::Unavailable(_) => "see whether its disk is mounted and well; it is tried again by itself".into(),
            Self::Disabled(_) => "switch etcd-s3 on again, and it is uploaded".into(),
            Self::Stopping => "quorate status, once it runs".into(),
        })
    }
}
