//! etcd's user exchanges what is in its data for links, pipes and huge files, at the worst moments: root is not led out of them, and does not
//! wait for them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate::error::Code;

use super::{keys, restored, save};
use crate::kit::{Etcd, Mount, Node, Ran, Timed, eventually, files_under, skip};

const USER: &str = "nobody";

fn ids() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        skip("only root can run etcd as another user");
        return None;
    }
    let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

fn node() -> Node {
    let node = Node::new(&Etcd::usual()).config(&format!("etcd-user: {USER}\n"));
    fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    node
}

/// A directory of root's that looks like what quorate would like to find.
struct Victim {
    above: PathBuf,
    before: Vec<String>,
}

impl Victim {
    fn new(node: &Node) -> Self {
        let above = node.dir.path().join("root-only");
        let target = above.join("target");
        for dir in ["snap", "wal", "member/snap", "member/wal", "etcd/member/snap", "replay/member/snap"] {
            fs::create_dir_all(target.join(dir)).unwrap();
        }
        for file in ["sshd_config", "name", "snap/db", "wal/0000000000000000-0000000000000000.wal", "member/snap/db"] {
            fs::write(target.join(file), "root's").unwrap();
        }
        let mut victim = Self { above, before: Vec::new() };
        victim.before = victim.look();
        victim
    }

    fn target(&self) -> PathBuf {
        self.above.join("target")
    }

    fn look(&self) -> Vec<String> {
        let mut paths = files_under(&self.above);
        paths.push(self.above.clone());
        paths.sort();
        let line = |path: PathBuf| {
            let found = fs::symlink_metadata(&path).unwrap();
            let content = fs::read(&path).unwrap_or_default();
            let (inode, uid, gid, mode) = (found.ino(), found.uid(), found.gid(), found.mode());
            format!("{} {inode} {uid} {gid} {mode:o} {content:?}", path.display())
        };
        paths.into_iter().map(line).collect()
    }

    #[track_caller]
    fn is_untouched(&self, context: &str) {
        assert_eq!(self.look(), self.before, "{context}");
    }
}

/// Runs a script as etcd's user.
fn as_user(script: &str) -> bool {
    let (uid, gid) = ids().unwrap();
    let mut command = Command::new("sh");
    command.uid(uid).gid(gid).arg("-c").arg(script).current_dir("/").stderr(Stdio::null());
    command.status().unwrap().success()
}

/// Everything that etcd's user may exchange, for a link to `target`.
fn swap(node: &Node, target: &Path) -> Vec<PathBuf> {
    let db = node.server_dir().join("db");
    let mut names: Vec<PathBuf> = Vec::new();
    for dir in [db.clone(), db.join("restore"), db.join("etcd"), db.join("etcd/quorate-restore")] {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            names.push(entry.path().join("member"));
            if entry.file_name().to_string_lossy().starts_with("quorate-restore")
                || entry.file_name().to_string_lossy().starts_with("member-old")
            {
                names.push(entry.path());
            }
        }
    }
    names.retain(|name| name.is_dir() && !name.is_symlink());
    // What is further down first, so that the paths stay good.
    names.sort_by_key(|name| std::cmp::Reverse(name.components().count()));
    // Each link leads to the same by another text, so that it is known which directory it stands for.
    let swapped = |(number, name): &(usize, PathBuf)| {
        let (name, text) = (name.display(), link_text(target, *number));
        as_user(&format!("mv {name} {name}.real{number} && ln -s {text} {name}"))
    };
    names.into_iter().enumerate().filter(swapped).map(|(_, name)| name).collect()
}

fn link_text(target: &Path, number: usize) -> String {
    format!("{}/{}", target.display(), "./".repeat(number))
}

/// Puts back what the links stand for, wherever they were renamed to meanwhile.
fn unswap(node: &Node, target: &Path) {
    for number in 0..20 {
        let all = files_under(&node.server_dir());
        let suffix = format!(".real{number}");
        let Some(real) = all.iter().find(|path| path.to_string_lossy().ends_with(&suffix)) else { continue };
        let text = PathBuf::from(link_text(target, number));
        let is_link = |path: &&PathBuf| fs::read_link(path).is_ok_and(|to| to.as_os_str() == text.as_os_str());
        match all.iter().find(is_link) {
            Some(link) => {
                fs::remove_file(link).unwrap();
                fs::rename(real, link).unwrap();
            }
            // The link was removed, so what it stood for would have been.
            None => fs::remove_dir_all(real).unwrap(),
        }
    }
}

/// Runs quorate, and does something where it stops.
fn stopped_at(node: &mut Node, point: &str, args: &[&str], meanwhile: impl FnOnce(&Node)) -> Ran {
    node.env = vec![("FAILPOINTS".into(), format!("{point}=1*return(stop)"))];
    let (out, err) = (node.dir.path().join("run.out"), node.dir.path().join("run.err"));
    let mut command = node.server_command();
    command.args(args).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    node.env.clear();
    let pid = child.id().cast_signed();
    let mut ended = None;
    eventually(&format!("{point} to be reached"), || {
        ended = child.try_wait().unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (ended.is_some() || stat.contains(") T ")).then_some(())
    });
    let said = || fs::read_to_string(&err).unwrap();
    assert!(ended.is_none(), "{point} was not reached: {ended:?} {}", said());
    meanwhile(node);
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    let status = eventually(&format!("the end after {point}"), || child.try_wait().unwrap());
    Ran { code: status.code(), out: fs::read_to_string(&out).unwrap(), err: said() }
}

struct Template(Node, String);

impl Template {
    fn new() -> Self {
        let mut node = node();
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        let name = save(&node);
        node.etcdctl(&["put", "b", "1"]);
        node.stop();
        Self(node, name)
    }

    fn copy(&self) -> Node {
        let node = node();
        let mut copy = Command::new("cp");
        let status = copy.args(["-a", "--sparse=always"]).arg(&self.0.data_dir).arg(&node.data_dir).status();
        assert!(status.unwrap().success());
        node
    }
}

/// The act either ends with 4, or has used the real data; and root's directory is as it was.
fn survives(template: &Template, point: &str, act: &[&str]) {
    let mut node = template.copy();
    let victim = Victim::new(&node);
    let mut swapped = Vec::new();
    let ran = stopped_at(&mut node, point, act, |node| swapped = swap(node, &victim.target()));
    let context = format!("{point} of {act:?}, exchanged {swapped:?}: {ran:#?}");
    assert!(!swapped.is_empty(), "there is always something to exchange: {context}");
    victim.is_untouched(&context);
    assert!(matches!(ran.code, Some(0 | 4)), "{context}");
    // What was exchanged is refused as long as it is so, and then all is as before or as asked.
    if node.etcd_dir().join("member").is_symlink() {
        node.run_server().fails(Code::UntrustedPath, &["member"]);
        victim.is_untouched(&context);
    }
    unswap(&node, &victim.target());
    node.start_ready();
    let found = keys(&node);
    assert!(found == "a" || found == "a b", "{found}: {context}");
    node.stop();
    victim.is_untouched(&context);
}

#[test]
fn a_restore_is_not_led_out_of_the_data() {
    let _timed = Timed::start();
    if ids().is_none() {
        return;
    }
    let template = Template::new();
    let path = format!("--cluster-reset-restore-path={}", template.1);
    for point in [
        "datadir::owned",
        "restore::copy",
        "restore::give",
        "restore::old_aside",
        "restore::new_in_place",
        "restore::exchanged",
        "restore::gate",
        "restore::swapped",
        "restore::verified",
        "restore::label",
        "restore::name",
        "restore::tidy",
    ] {
        survives(&template, point, &["--cluster-reset", &path]);
    }
}

#[test]
fn a_reset_is_not_led_out_of_the_data() {
    let _timed = Timed::start();
    if ids().is_none() {
        return;
    }
    let template = Template::new();
    for point in ["datadir::owned", "restore::replay", "restore::adopt", "restore::give", "restore::exchanged"] {
        survives(&template, point, &["--cluster-reset"]);
    }
}

#[test]
fn an_undoing_and_a_rotation_are_not_led_out_of_the_data() {
    let _timed = Timed::start();
    if ids().is_none() {
        return;
    }
    let template = Template::new();
    restored(&crate::restore::restore(&template.0, &template.1, &[]));
    for point in ["datadir::owned", "restore::old_aside", "restore::exchanged", "restore::gate", "restore::label"] {
        survives(&template, point, &["--undo-reset"]);
    }
    let mut node = template.copy();
    rotates(&mut node);
}

/// What was retired is removed, and nothing else.
fn rotates(node: &mut Node) {
    let victim = Victim::new(node);
    let old = |node: &Node| {
        let dirs = [node.server_dir().join("db"), node.etcd_dir()];
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap().flatten());
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        found.retain(|path| path.to_string_lossy().contains("-old-") && !path.to_string_lossy().contains(".real"));
        found
    };
    assert_eq!(old(node).len(), 1);
    node.env = vec![("FAILPOINTS".into(), "restore::rotate=1*return(stop)".into())];
    node.args.push("--etcd-old-retention=0".into());
    node.start();
    let pid = node.launcher_pid();
    eventually("the rotation", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ").then_some(())
    });
    let aside = old(node).remove(0);
    let member = if aside.join("member").exists() { aside.join("member") } else { aside.clone() };
    for name in [member.join("snap"), member.join("wal"), aside.clone()] {
        as_user(&format!("mv {0} {0}.real0 && ln -s {1} {0}", name.display(), victim.target().display()));
    }
    node.signal(Signal::SIGCONT);
    eventually("the old data to be gone", || old(node).is_empty().then_some(()));
    node.wait_ready();
    node.stop();
    victim.is_untouched("rotation");
}

/// Where the data directory is a mount point, its root, and so all names in it, are etcd's user's.
#[test]
fn nor_where_the_data_are_a_mount_point_or_a_link() {
    let _timed = Timed::start();
    let Some((uid, gid)) = ids() else { return };
    let mut node = node();
    let at = node.etcd_dir();
    let Some(_mount) = Mount::tmpfs(&at, "size=1500m,mode=700") else { return };
    chown(&at, Some(uid), Some(gid)).unwrap();
    let victim = Victim::new(&node);
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.etcdctl(&["put", "b", "1"]);
    node.stop();
    let path = format!("--cluster-reset-restore-path={name}");
    let restore = ["--cluster-reset", path.as_str()];
    for (point, act) in [
        ("restore::copy", &restore[..]),
        ("restore::give", &restore),
        ("restore::old_aside", &restore),
        ("restore::new_in_place", &restore),
        ("restore::exchanged", &restore),
        ("restore::label", &restore),
        ("restore::adopt", &["--cluster-reset"]),
        ("restore::exchanged", &["--undo-reset"]),
    ] {
        // A reset that was done wants a start before the next one.
        let _ = fs::remove_file(node.server_dir().join("db/reset-flag"));
        let mut swapped = Vec::new();
        let ran = stopped_at(&mut node, point, act, |node| swapped = swap(node, &victim.target()));
        let context = format!("{point} of {act:?}, exchanged {swapped:?}: {ran:#?}");
        victim.is_untouched(&context);
        assert!(matches!(ran.code, Some(0 | 4)), "{context}");
        unswap(&node, &victim.target());
        node.start_ready();
        let found = keys(&node);
        assert!(found == "a" || found == "a b", "{found}: {context}");
        node.stop();
        victim.is_untouched(&context);
    }
    restored(&crate::restore::restore(&node, &name, &[]));
    let old = fs::read_dir(&at).unwrap().flatten().map(|entry| entry.path());
    let mut old: Vec<PathBuf> = old.filter(|path| path.to_string_lossy().contains("member-old-")).collect();
    old.sort();
    for path in &old[1..] {
        fs::remove_dir_all(path).unwrap();
    }
    rotates(&mut node);
}

/// A link of root's that leads through a directory of etcd's user, who then leads it elsewhere.
#[test]
fn a_link_is_not_followed_through_a_directory_of_another_user() {
    let _timed = Timed::start();
    let Some((uid, gid)) = ids() else { return };
    let mut node = node();
    let victim = Victim::new(&node);
    let theirs = node.dir.path().join("theirs");
    fs::create_dir_all(theirs.join("data")).unwrap();
    fs::create_dir_all(node.server_dir().join("db")).unwrap();
    for dir in [&theirs, &theirs.join("data")] {
        chown(dir, Some(uid), Some(gid)).unwrap();
    }
    symlink(theirs.join("data"), node.etcd_dir()).unwrap();
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    let (data, target) = (theirs.join("data"), victim.target());
    assert!(as_user(&format!("mv {0} {0}.real && ln -s {1} {0}", data.display(), target.display())));
    for act in [&[][..], &["--cluster-reset"], &["--undo-reset"], &["--cluster-reset", "--dry-run"]] {
        node.run_server_with(act).fails(Code::UntrustedPath, &[&uid.to_string()]);
        victim.is_untouched(&format!("{act:?}"));
    }
}

enum Put {
    Pipe,
    Link,
    Device,
    Huge,
}

impl Put {
    fn at(&self, path: &Path, (uid, gid): (u32, u32)) {
        fs::remove_file(path).ok();
        match self {
            Self::Pipe => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            Self::Link => symlink("/dev/zero", path).unwrap(),
            Self::Device => {
                let zero = nix::sys::stat::makedev(1, 5);
                let mode = nix::sys::stat::Mode::S_IRWXU;
                nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFCHR, mode, zero).unwrap();
            }
            Self::Huge => fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
        }
        lchown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// At every name that quorate reads there: whatever it makes of it, it ends.
#[test]
fn pipes_devices_links_and_huge_files_are_refused_in_time() {
    let _timed = Timed::start();
    let Some(owner) = ids() else { return };
    let template = Template::new();
    restored(&crate::restore::restore(&template.0, &template.1, &[]));
    let log = |member: &Path| {
        let mut segments: Vec<_> =
            fs::read_dir(member.join("wal")).unwrap().flatten().map(|entry| entry.path()).collect();
        segments.sort();
        segments.remove(0)
    };
    for put in [Put::Pipe, Put::Link, Put::Device, Put::Huge] {
        let is_huge = matches!(put, Put::Huge);
        // In the data that were retired.
        for name in ["cluster.json", "member/snap/db"] {
            let node = template.copy();
            put.at(&node.retire()[0].join(name), owner);
            for act in [&["--undo-reset", "--dry-run"][..], &["--undo-reset"]] {
                let ran = within(&node, act);
                // A database of 1 TiB of zeros is a broken one.
                let code = if is_huge && name != "cluster.json" { 1 } else { 4 };
                assert_eq!(ran.code, Some(code), "{name}: {ran:#?}");
            }
        }
        // In those in use.
        let node = template.copy();
        let _ = fs::remove_file(node.server_dir().join("db/reset-flag"));
        let member = node.etcd_dir().join("member");
        put.at(&log(&member), owner);
        for act in [&["--cluster-reset", "--dry-run"][..], &["--cluster-reset"], &[]] {
            let ran = within(&node, act);
            let code = if is_huge { ran.code.filter(|code| [1, 4].contains(code)) } else { Some(4) };
            assert!(ran.code == code && code.is_some(), "{act:?}: {ran:#?}");
        }
        let node = template.copy();
        let _ = fs::remove_file(node.server_dir().join("db/reset-flag"));
        put.at(&node.etcd_dir().join("member/snap/db"), owner);
        for act in [&["--cluster-reset", "--dry-run"][..], &["--cluster-reset"]] {
            let ran = within(&node, act);
            assert!(matches!(ran.code, Some(1 | 4)), "{act:?}: {ran:#?}");
        }
        assert_eq!(node.status().code, Some(6));
    }
}

/// Runs the server with these arguments to its end, which must come soon.
fn within(node: &Node, args: &[&str]) -> Ran {
    let begun = Instant::now();
    let ran = node.run_server_with(args);
    assert!(begun.elapsed() < Duration::from_secs(30), "{args:?} took {:?}: {ran:#?}", begun.elapsed());
    ran
}
