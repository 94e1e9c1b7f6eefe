//! How a server stops: a state machine from events to actions.
//!
//! ```text
//! Running ──stop──▶ Cancelling ──work is over──▶ StoppingEtcd ──etcd is gone──▶ Done
//!                        │ second signal              │ second signal            ▲
//!                        └──────────────▶ Killing ◀───┘ ──etcd is gone───────────┘
//! ```
//!
//! It never waits itself, so that signals and the watchdog are served throughout.

use std::time::{Duration, Instant};

/// A second signal of the same kind within this time is ignored: timeout(1) and shells send it to the process and to
/// its group.
const SIGNAL_DEBOUNCE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopEvent {
    /// A signal that asks to stop.
    Signal(&'static str, Instant),
    /// The server cannot continue: a task ended, or etcd cannot be kept running.
    Failure,
    /// Snapshots and drills that were running have ended, or took too long.
    WorkCancelled,
    /// etcd has stopped, or cannot be killed.
    EtcdGone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopAction {
    None,
    /// Cancel what is running, and report when it has ended.
    CancelWork,
    /// Stop etcd in order, and report when it is gone.
    StopEtcd,
    /// Kill etcd, and report when it is gone.
    KillEtcd,
    Finish,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    Cancelling,
    StoppingEtcd,
    Killing,
    Done,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop {
    phase: Phase,
    first: Option<(&'static str, Instant)>,
}

impl Stop {
    /// True since the first reason to stop.
    pub(crate) fn has_begun(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Handles an event, and returns the action.
    pub(crate) fn on(&mut self, event: StopEvent) -> StopAction {
        let (phase, action) = match (self.phase, event) {
            (Phase::Running, StopEvent::Signal(signal, at)) => {
                self.first = Some((signal, at));
                (Phase::Cancelling, StopAction::CancelWork)
            }
            (Phase::Running, StopEvent::Failure) => (Phase::Cancelling, StopAction::CancelWork),
            (Phase::Cancelling | Phase::StoppingEtcd, StopEvent::Signal(signal, at)) if !self.is_same(signal, at) => {
                (Phase::Killing, StopAction::KillEtcd)
            }
            (Phase::Cancelling, StopEvent::WorkCancelled) => (Phase::StoppingEtcd, StopAction::StopEtcd),
            (Phase::StoppingEtcd | Phase::Killing, StopEvent::EtcdGone) => (Phase::Done, StopAction::Finish),
            (phase, _) => (phase, StopAction::None),
        };
        self.phase = phase;
        action
    }

    /// The first signal of a failing server does not kill etcd yet, so that one Ctrl-C is harmless.
    fn is_same(&mut self, signal: &'static str, at: Instant) -> bool {
        let Some((first, first_at)) = self.first else {
            self.first = Some((signal, at));
            return true;
        };
        first == signal && at.duration_since(first_at) < SIGNAL_DEBOUNCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::prelude::*;

    #[test]
    fn a_stop_goes_in_order_and_a_second_signal_kills_whatever_runs() {
        use StopAction::{CancelWork, Finish, KillEtcd, None, StopEtcd};
        use StopEvent::{EtcdGone, Failure, Signal, WorkCancelled};
        let now = clock::monotonic();
        let term = |millis| Signal("SIGTERM", now + Duration::from_millis(millis));
        let int = |millis| Signal("SIGINT", now + Duration::from_millis(millis));
        let table: &[(&str, &[(StopEvent, StopAction)])] = &[
            ("in order", &[(term(0), CancelWork), (WorkCancelled, StopEtcd), (EtcdGone, Finish)]),
            (
                "while work is cancelled",
                &[(term(0), CancelWork), (term(600), KillEtcd), (WorkCancelled, None), (EtcdGone, Finish)],
            ),
            (
                "while etcd stops",
                &[(term(0), CancelWork), (WorkCancelled, StopEtcd), (term(900), KillEtcd), (EtcdGone, Finish)],
            ),
            (
                "the same signal twice",
                &[(term(0), CancelWork), (term(10), None), (WorkCancelled, StopEtcd), (EtcdGone, Finish)],
            ),
            ("another signal at once", &[(term(0), CancelWork), (int(10), KillEtcd), (EtcdGone, Finish)]),
            ("a third one", &[(term(0), CancelWork), (term(600), KillEtcd), (term(900), None), (EtcdGone, Finish)]),
            ("a failure", &[(Failure, CancelWork), (Failure, None), (WorkCancelled, StopEtcd), (EtcdGone, Finish)]),
            (
                "a failure and signals",
                &[(Failure, CancelWork), (term(0), None), (term(600), KillEtcd), (EtcdGone, Finish)],
            ),
            ("events that are too early", &[(EtcdGone, None), (WorkCancelled, None), (term(0), CancelWork)]),
        ];
        for (name, events) in table {
            let mut stop = Stop::default();
            assert!(!stop.has_begun(), "{name}");
            for (event, action) in *events {
                assert_eq!(stop.on(*event), *action, "{name}: {event:?}");
            }
            assert!(stop.has_begun(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_etcd_is_stopped_or_killed_before_the_end_and_the_end_comes_once(
            events in prop::collection::vec((0usize..4, 0u64..3000), 0..20),
        ) {
            let now = clock::monotonic();
            let mut stop = Stop::default();
            let mut actions = Vec::new();
            for (kind, millis) in events {
                let event = match kind {
                    0 => StopEvent::Signal("SIGTERM", now + Duration::from_millis(millis)),
                    1 => StopEvent::Failure,
                    2 => StopEvent::WorkCancelled,
                    _ => StopEvent::EtcdGone,
                };
                actions.push(stop.on(event));
            }
            let position = |wanted: StopAction| actions.iter().position(|action| *action == wanted);
            if let Some(end) = position(StopAction::Finish) {
                let ended = position(StopAction::StopEtcd).or(position(StopAction::KillEtcd));
                prop_assert!(position(StopAction::CancelWork) < ended && ended < Some(end));
            }
            for action in [StopAction::CancelWork, StopAction::StopEtcd, StopAction::KillEtcd, StopAction::Finish] {
                prop_assert!(actions.iter().filter(|other| **other == action).count() <= 1);
            }
        }
    }
}
