//! A Debian in a container: a tree that nothing survives in, and a systemd of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::kit::{Ran, eventually, skip, skip_without};

fn target(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path)
}

/// A writable copy of the small Debian, with what `make dist` makes under `/dist`.
pub struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// `None`, and said, where that is not possible.
    pub fn new() -> Option<Self> {
        let lower = target("test-root");
        if !lower.join(".complete").exists() || !target("dist/test/SHA256SUMS").exists() {
            skip_without("test-root", "there is no Debian to install on (make test-root dist-test)");
            return None;
        }
        let tree = Self { dir: tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap() };
        let (memory, root) = (tree.dir.path().join("memory"), tree.root());
        fs::create_dir_all(&memory).unwrap();
        fs::create_dir_all(&root).unwrap();
        let mount = |args: &[&str]| Command::new("mount").args(args).output().is_ok_and(|done| done.status.success());
        let upper = memory.display().to_string();
        if !mount(&["-t", "tmpfs", "-o", "size=3000m", "tmpfs", &upper]) {
            skip("mounting is not allowed here");
            return None;
        }
        for name in ["upper", "work"] {
            fs::create_dir(memory.join(name)).unwrap();
        }
        let options = format!("lowerdir={},upperdir={upper}/upper,workdir={upper}/work", lower.display());
        if !mount(&["-t", "overlay", "-o", &options, "overlay", &root.display().to_string()]) {
            skip("an overlay cannot be mounted here");
            return None;
        }
        fs::create_dir(root.join("dist")).unwrap();
        for entry in fs::read_dir(target("dist/test")).unwrap().flatten() {
            fs::copy(entry.path(), root.join("dist").join(entry.file_name())).unwrap();
        }
        Some(tree)
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Runs a script in the tree, without a systemd.
    pub fn run(&self, script: &str) -> Ran {
        let mut command = Command::new("chroot");
        command.arg(self.root()).args(CLEAN).arg(script);
        Ran::of(&command.stdin(Stdio::null()).output().unwrap())
    }
}

fn switch_on(tree: &Tree) -> Command {
    let name = tree.dir.path().file_name().unwrap().to_string_lossy().to_lowercase();
    let mut command = Command::new("systemd-nspawn");
    command.arg("-D").arg(tree.root()).arg(format!("--machine={name}"));
    command.args(["--quiet", "--boot", "--register=no", "--private-network", "--console=pipe"]);
    if !Path::new("/run/systemd/system").exists() {
        command.arg("--keep-unit");
    }
    let log = fs::File::create(tree.dir.path().join("console")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command
}

const CLEAN: [&str; 8] = [
    "env",
    "-i",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "TERM=dumb",
    "LC_ALL=C.UTF-8",
    "sh",
    "-c",
];

impl Drop for Tree {
    fn drop(&mut self) {
        for path in [self.root(), self.dir.path().join("memory")] {
            let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
        }
    }
}

/// The same, booted. One at a time: where they may not make units of their own they would share control groups.
pub struct Machine {
    pub tree: Tree,
    nspawn: Child,
    _alone: nix::fcntl::Flock<fs::File>,
}

fn alone() -> nix::fcntl::Flock<fs::File> {
    let path = std::env::temp_dir().join("quorate-test-machine");
    let file = fs::File::options().create(true).append(true).open(path).unwrap();
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap()
}

impl Machine {
    pub fn boot() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("booting a Debian needs root");
            return None;
        }
        let alone = alone();
        let tree = Tree::new()?;
        let Ok(nspawn) = switch_on(&tree).spawn() else {
            skip("there is no systemd-nspawn");
            return None;
        };
        let mut machine = Self { tree, nspawn, _alone: alone };
        let is_up = eventually("the Debian to be up", || match machine.nspawn.try_wait().unwrap() {
            Some(_) => Some(false),
            None => machine.is_up().then_some(true),
        });
        if is_up {
            return Some(machine);
        }
        let console = fs::read_to_string(machine.tree.dir.path().join("console")).unwrap_or_default();
        skip(&format!("a Debian cannot be booted here: {}", console.lines().last().unwrap_or_default()));
        None
    }

    /// The systemd inside.
    fn leader(&self) -> Option<u32> {
        let pid = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn is_up(&self) -> bool {
        // Degraded is up, too: a container has no business with some of Debian's units.
        self.leader().is_some()
            && ["running", "degraded"].contains(&self.run("systemctl is-system-running 2>/dev/null").out.trim())
    }

    /// Runs a script on it as root.
    pub fn run(&self, script: &str) -> Ran {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.leader().expect("it is up").to_string()).arg("-a").args(CLEAN).arg(script);
        Ran::of(&command.stdin(Stdio::null()).output().unwrap())
    }

    /// Runs a script that must succeed.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        let ran = self.run(script);
        if ran.code != Some(0) {
            let journal = self.run("journalctl --no-pager -o cat -u quorate-server | tail -n 30").out;
            panic!("`{script}` failed: {ran:#?}\n{journal}");
        }
        ran.out
    }

    /// In order, as an operator would. (systemd-nspawn can do it automatically only where it may make units.)
    pub fn reboot(&mut self) {
        let _ = self.run("systemctl poweroff");
        eventually("the Debian to be down", || self.nspawn.try_wait().unwrap());
        self.nspawn = switch_on(&self.tree).spawn().unwrap();
        eventually("the Debian to be up again", || self.is_up().then_some(()));
    }

    /// The pids of etcds inside, as seen inside.
    pub fn etcds(&self) -> Vec<String> {
        let found =
            self.run("for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = etcd ] && basename $p; done; :");
        found.out.split_whitespace().map(str::to_owned).collect()
    }

    pub fn main_pid(&self) -> String {
        self.must("systemctl show -p MainPID --value quorate-server").trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader().is_some() {
            println!("{}", self.run("journalctl --no-pager -o cat -u quorate-server | tail -n 60").out);
        }
        if let Some(leader) = self.leader().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(leader), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.nspawn.wait();
    }
}
