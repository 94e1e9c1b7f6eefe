//! The runtimes of verbs other than `server`: one thread, for a question or two.

use crate::cli::output;
use crate::error::AppError;

/// A small runtime for a command with few requests.
pub(super) fn block_on<T>(asked: impl Future<Output = T>) -> Result<T, AppError> {
    Ok(runtime()?.block_on(asked))
}

/// For concurrent requests over the same connections.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, AppError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(output::RuntimeError)?)
}
