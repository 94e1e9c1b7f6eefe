//! The supervisor's states with a fake child.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::*;
use crate::datadir::DataDir;
use crate::error::Code;
use crate::etcd::launch::RestartCheck;
use crate::etcd::pinned::PinnedExecutable;

/// The behaviour of the fake processes, and the record of calls.
#[derive(Default)]
struct Script {
    spawned: Mutex<Vec<Vec<String>>>,
    /// The next process ends when this is notified.
    exits: Notify,
    ignores_sigterm: AtomicBool,
    is_unkillable: AtomicBool,
    cannot_be_spawned: AtomicBool,
}

struct FakeSpawner(Arc<Script>);

struct FakeProcess {
    pid: i32,
    script: Arc<Script>,
    is_over: bool,
    end: Notify,
}

impl Spawn for FakeSpawner {
    type Process = FakeProcess;

    async fn spawn(&mut self, launch: &Launch, _tail: Tail) -> Result<FakeProcess, String> {
        if self.0.cannot_be_spawned.load(Ordering::Relaxed) {
            return Err("no such file".into());
        }
        let mut spawned = self.0.spawned.lock().unwrap();
        spawned.push(launch.args.clone());
        let pid = i32::try_from(spawned.len()).unwrap();
        Ok(FakeProcess { pid, script: self.0.clone(), is_over: false, end: Notify::new() })
    }
}

impl Process for FakeProcess {
    fn pid(&self) -> i32 {
        self.pid
    }

    async fn ended(&mut self) {
        if !self.is_over {
            tokio::select! {
                () = self.script.exits.notified() => {}
                () = self.end.notified() => {}
            }
            self.is_over = true;
        }
    }

    fn terminate(&mut self) {
        if !self.script.ignores_sigterm.load(Ordering::Relaxed) {
            self.end.notify_one();
        }
    }

    fn kill(&mut self) {
        if !self.script.is_unkillable.load(Ordering::Relaxed) {
            self.end.notify_one();
        }
    }

    async fn reap(&mut self) -> Option<String> {
        self.is_over.then(|| "exit code 7".into())
    }
}

fn launch(args: &[&str]) -> Launch {
    Launch {
        program: PinnedExecutable::open(std::path::Path::new("/bin/true")).unwrap(),
        user: None,
        args: args.iter().map(ToString::to_string).collect(),
        data: DataDir::new(std::path::Path::new("/nonexistent")),
        grace: Duration::from_millis(300),
        restart_check: None,
    }
}

struct Supervised {
    handle: Handle,
    script: Arc<Script>,
    status: watch::Receiver<ChildStatus>,
    task: tokio::task::JoinHandle<()>,
}

impl Supervised {
    fn new() -> Self {
        let script = Arc::new(Script::default());
        let (mut supervisor, handle) = Supervisor::new(FakeSpawner(script.clone()));
        supervisor.pause = |_| Duration::from_millis(5);
        Self { status: handle.watch(), handle, script, task: tokio::spawn(supervisor.run()) }
    }

    fn state(&self) -> State {
        self.status.borrow().state
    }

    async fn reaches(&mut self, state: State) {
        self.status.wait_for(|status| status.state == state).await.unwrap();
    }

    fn starts(&self) -> usize {
        self.script.spawned.lock().unwrap().len()
    }
}

#[tokio::test]
async fn stopped_is_a_resting_state_and_only_a_shutdown_ends_the_supervisor() {
    let mut child = Supervised::new();
    assert_eq!(child.handle.restart(None).await, Err(CommandError::NotStarted));
    assert_eq!(child.handle.stop().await, Ok(()));
    child.handle.start(launch(&["a"])).await.unwrap();
    assert_eq!(child.state(), State::Starting);
    assert_eq!(child.handle.start(launch(&["b"])).await, Err(CommandError::AlreadyRunning));
    child.handle.stop().await.unwrap();
    assert_eq!((child.state(), child.status.borrow().pid), (State::Stopped, None));
    assert!(!child.task.is_finished());
    // New arguments, while it rests and while it runs.
    child.handle.start(launch(&["b"])).await.unwrap();
    child.handle.restart(Some(launch(&["c"]))).await.unwrap();
    child.handle.restart(None).await.unwrap();
    let spawned = child.script.spawned.lock().unwrap().concat();
    assert_eq!(spawned, ["a", "b", "c", "c"]);
    child.handle.shut_down().await.unwrap();
    child.task.await.unwrap();
    assert_eq!(child.status.borrow_and_update().state, State::Stopped);
    assert_eq!(child.handle.start(launch(&[])).await, Err(CommandError::Ended));
    assert_eq!(child.handle.shut_down().await, Ok(()));
}

#[tokio::test]
async fn a_learner_becomes_a_voter_and_news_of_an_earlier_process_do_not_count() {
    let mut child = Supervised::new();
    child.handle.start(launch(&[])).await.unwrap();
    child.handle.report_healthy(1, Role::Learner).await;
    child.reaches(State::Running(Role::Learner)).await;
    assert_eq!(child.state().word(), "learner");
    child.handle.report_healthy(1, Role::Voter).await;
    child.reaches(State::Running(Role::Voter)).await;
    assert_eq!(child.state().word(), "ready");
    child.handle.restart(None).await.unwrap();
    child.handle.report_healthy(1, Role::Voter).await;
    child.handle.report_healthy(2, Role::Learner).await;
    child.reaches(State::Running(Role::Learner)).await;
}

#[tokio::test]
async fn a_child_that_ends_is_started_again_and_five_fast_exits_are_enough() {
    let mut child = Supervised::new();
    child.handle.start(launch(&[])).await.unwrap();
    for exits in 1..=4 {
        child.script.exits.notify_one();
        child.status.wait_for(|status| status.exits.len() == exits && status.state == State::Starting).await.unwrap();
    }
    child.script.exits.notify_one();
    child.reaches(State::Failed).await;
    let failure = child.status.borrow().failure.clone().unwrap();
    assert_eq!((failure.code, child.starts()), (Code::EtcdKeepsExiting, 5));
    // It rests, and can be started again: with a clean history.
    child.handle.start(launch(&[])).await.unwrap();
    assert_eq!((child.state(), child.status.borrow().failure.is_none()), (State::Starting, true));
    child.script.exits.notify_one();
    child.reaches(State::Backoff).await;
    child.handle.stop().await.unwrap();
    assert_eq!(child.state(), State::Stopped);
}

#[tokio::test]
async fn a_program_that_cannot_be_spawned_is_tried_again_like_one_that_ends() {
    let mut child = Supervised::new();
    child.script.cannot_be_spawned.store(true, Ordering::Relaxed);
    child.handle.start(launch(&[])).await.unwrap();
    child.reaches(State::Failed).await;
    assert_eq!(child.starts(), 0);
}

#[tokio::test]
async fn a_kill_speeds_up_a_stop_and_a_stop_cancels_a_restart() {
    let child = Supervised::new();
    child.script.ignores_sigterm.store(true, Ordering::Relaxed);
    // Far longer than the test may take: only the kill ends it.
    child.handle.start(Launch { grace: Duration::from_secs(3600), ..launch(&[]) }).await.unwrap();
    let (restarted, stopped, killed) =
        tokio::join!(biased; child.handle.restart(None), child.handle.stop(), child.handle.kill());
    assert_eq!((restarted, stopped, killed), (Err(CommandError::Superseded), Ok(()), Ok(())));
    assert_eq!((child.state(), child.starts()), (State::Stopped, 1));
    // Without a kill the grace period decides.
    child.handle.start(launch(&[])).await.unwrap();
    child.handle.stop().await.unwrap();
    assert_eq!(child.state(), State::Stopped);
}

#[tokio::test]
async fn a_child_that_cannot_be_killed_is_said_to_be_there_still() {
    let child = Supervised::new();
    child.script.ignores_sigterm.store(true, Ordering::Relaxed);
    child.script.is_unkillable.store(true, Ordering::Relaxed);
    child.handle.start(launch(&[])).await.unwrap();
    let Err(CommandError::Failed(report)) = child.handle.stop().await else { panic!("it was stopped") };
    assert_eq!((report.code, child.state()), (Code::EtcdUnkillable, State::Failed));
    // A second signal ends the server, which must not say that all is well.
    child.handle.start(launch(&[])).await.unwrap();
    let ended = child.handle.kill_and_shut_down().await;
    assert!(matches!(ended, Err(CommandError::Failed(report)) if report.code == Code::EtcdUnkillable));
    child.task.await.unwrap();
    assert_eq!(child.handle.kill_and_shut_down().await, Ok(()));
}

#[tokio::test]
async fn missing_data_is_not_started_again_after_an_exit() {
    let mut child = Supervised::new();
    let is_gone = Arc::new(AtomicBool::new(false));
    let seen = is_gone.clone();
    let check = move || if seen.load(Ordering::Relaxed) { Err(Unkillable(0).into()) } else { Ok(()) };
    child.handle.start(Launch { restart_check: Some(RestartCheck(Arc::new(check))), ..launch(&[]) }).await.unwrap();
    child.handle.report_healthy(1, Role::Voter).await;
    child.reaches(State::Running(Role::Voter)).await;
    child.handle.restart(None).await.unwrap();
    is_gone.store(true, Ordering::Relaxed);
    child.script.exits.notify_one();
    child.reaches(State::Failed).await;
    assert_eq!(child.starts(), 2);
    let asked = child.handle.restart(None).await;
    assert!(matches!(asked, Err(CommandError::Failed(_))), "{asked:?}");
}
