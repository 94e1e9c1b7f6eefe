//! One operation on the database at a time: a save, a defragmentation.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::error::{Code, Diagnostic};

/// Another operation holds the lock.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseBusy(&'static str);

impl Diagnostic for DatabaseBusy {
    fn code(&self) -> Code {
        Code::Busy
    }

    fn next_step(&self) -> Option<String> {
        Some("try again, or --wait for it".into())
    }
}

/// Held for as long as the operation lasts.
pub type DatabaseGuard = OwnedMutexGuard<()>;

/// The lock, and what its holder does.
#[derive(Debug, Default)]
pub struct DatabaseLock {
    mutex: Arc<tokio::sync::Mutex<()>>,
    operation: Mutex<&'static str>,
}

impl DatabaseLock {
    /// Takes the lock; `operation` is shown to those who do not wait.
    ///
    /// # Errors
    /// The operation of the holder, unless `wait` is true.
    pub async fn acquire(&self, operation: &'static str, wait: bool) -> Result<DatabaseGuard, DatabaseBusy> {
        let present = || self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = match self.mutex.clone().try_lock_owned() {
            Ok(guard) => guard,
            Err(_) if wait => {
                tracing::debug!(
                    event = "operation-queued",
                    busy = *present(),
                    "waiting for the end of another operation"
                );
                self.mutex.clone().lock_owned().await
            }
            Err(_) => return Err(DatabaseBusy(*present())),
        };
        *present() = operation;
        Ok(guard)
    }

    /// Returns when no operation holds it.
    pub async fn idle(&self) {
        drop(self.mutex.lock().await);
    }
}
