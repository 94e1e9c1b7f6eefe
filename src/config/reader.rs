//! For whom the configuration is read.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Server,
    /// Read for a command, not for the server. A running server may know the missing settings of object storage.
    Command,
}
