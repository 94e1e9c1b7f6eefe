//! A setting that is passed through to etcd.

/// One `etcd-arg` entry: an etcd setting by the name of its flag, without dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdArg {
    pub key: String,
    /// The value, as on etcd's command line.
    pub value: String,
}
