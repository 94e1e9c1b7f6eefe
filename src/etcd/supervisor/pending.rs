//! Commands that come while the child is being ended, and their answers.

use crate::etcd::child::{CommandError, Reply, SupervisorCommand};
use crate::etcd::launch::Launch;

/// Commands received while the child is being stopped, which are answered when it is gone.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) replies: Vec<Reply>,
    pub(super) restart: Option<(Option<Box<Launch>>, Reply)>,
    pub(super) is_shutdown: bool,
}

impl Pending {
    /// A stop, kill or shutdown after a restart cancels the restart; a restart after a stop does not happen.
    pub(super) fn add(&mut self, command: SupervisorCommand) {
        match command {
            SupervisorCommand::Stop(reply) | SupervisorCommand::Kill(reply) => {
                self.cancel_restart();
                self.replies.push(reply);
            }
            SupervisorCommand::Shutdown(reply) => {
                self.cancel_restart();
                self.is_shutdown = true;
                self.replies.push(reply);
            }
            SupervisorCommand::Restart(launch, reply) if self.replies.is_empty() && self.restart.is_none() => {
                self.restart = Some((launch, reply));
            }
            SupervisorCommand::Restart(_, reply) | SupervisorCommand::Start(_, reply) => {
                answer(reply, Err(CommandError::Superseded));
            }
            SupervisorCommand::Healthy(..) => {}
        }
    }

    fn cancel_restart(&mut self) {
        if let Some((_, reply)) = self.restart.take() {
            answer(reply, Err(CommandError::Superseded));
        }
    }

    pub(super) fn answer(self, result: &Result<(), CommandError>) {
        for reply in self.replies {
            answer(reply, result.clone());
        }
    }
}

/// The requester may not wait for the reply.
pub(super) fn answer(reply: Reply, result: Result<(), CommandError>) {
    let _ = reply.send(result);
}
