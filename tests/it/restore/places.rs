//! Data directories that are links, mount points, or of another user.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use super::{keys, left_nothing, restore, restored, save};
use crate::kit::{Etcd, Mount, Node, Timed, skip};

fn go_through(node: &mut Node, old: &Path) {
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(node);
    node.etcdctl(&["put", "b", "1"]);
    node.stop();
    restored(&restore(node, &name, &[]));
    left_nothing(node);
    let aside = |prefix: &str| {
        let found = fs::read_dir(old).unwrap().flatten();
        found.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count()
    };
    assert_eq!(aside("member-old-"), 1, "on the disk that the data are on");
    node.start_ready();
    assert_eq!(keys(node), "a");
    assert_eq!(node.status_json()["old_data"].as_array().unwrap().len(), 1);
    node.stop();
    restored(&node.run_server_with(&["--undo-reset"]));
    left_nothing(node);
    node.start_ready();
    assert_eq!(keys(node), "a b");
    node.stop();
    restored(&node.run_server_with(&["--cluster-reset"]));
    node.start_ready();
    assert_eq!(keys(node), "a b");
    node.stop();
}

/// What was being built on another disk goes, too.
#[test]
fn what_was_killed_on_another_disk_leaves_nothing() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let elsewhere = node.dir.path().join("disk/etcd");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir_all(node.server_dir().join("db")).unwrap();
    symlink(&elsewhere, node.etcd_dir()).unwrap();
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.etcdctl(&["put", "b", "1"]);
    node.stop();
    for step in ["built", "old_aside", "new_in_place", "exchanged", "gate", "flag"] {
        node.env = vec![("FAILPOINTS".into(), format!("restore::{step}=return(kill)"))];
        assert_eq!(restore(&node, &name, &[]).code, None, "{step}");
        node.env.clear();
        node.start_ready();
        assert_eq!(keys(&node), if step == "flag" { "a" } else { "a b" }, "{step}");
        node.stop();
        left_nothing(&node);
        assert!(!elsewhere.join("quorate-restore").exists(), "{step}");
    }
}

#[test]
fn a_directory_that_is_a_link_stays_one() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let elsewhere = node.dir.path().join("disk/etcd");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir_all(node.server_dir().join("db")).unwrap();
    symlink(&elsewhere, node.etcd_dir()).unwrap();
    go_through(&mut node, &elsewhere);
    assert!(node.etcd_dir().is_symlink());
}

#[test]
fn a_directory_that_is_a_mount_point_stays_one() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let Some(mount) = Mount::tmpfs(&node.etcd_dir(), "size=1500m,mode=700") else { return };
    let dir = node.etcd_dir();
    go_through(&mut node, &dir);
    drop(mount);
}

/// Of the same file system, as a volume of a container often is.
#[test]
fn a_directory_that_is_bound_there_stays_so() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let (volume, dir) = (node.dir.path().join("volume"), node.etcd_dir());
    fs::create_dir_all(&volume).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let bound = std::process::Command::new("mount").arg("--bind").args([&volume, &dir]).output();
    if !bound.is_ok_and(|done| done.status.success()) {
        return skip("mounting is not allowed here");
    }
    let _mount = Mount { path: dir.clone() };
    go_through(&mut node, &dir);
}

#[test]
fn data_of_etcds_own_user_stay_that_users() {
    let _timed = Timed::start();
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can run etcd as another user");
    }
    let mut node = Node::new(&Etcd::usual()).config("etcd-user: nobody\n");
    for dir in [node.dir.path(), Path::new("/tmp")] {
        fs::set_permissions(
            dir,
            std::os::unix::fs::PermissionsExt::from_mode(fs::metadata(dir).unwrap().mode() | 0o011),
        )
        .unwrap();
    }
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.stop();
    restored(&restore(&node, &name, &[]));
    let user = fs::metadata(node.etcd_dir()).unwrap().uid();
    assert_ne!(user, 0);
    for path in crate::kit::files_under(&node.etcd_dir()) {
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), user, "{}", path.display());
    }
    node.start_ready();
    assert_eq!(keys(&node), "a");
    node.stop();
    restored(&node.run_server_with(&["--cluster-reset"]));
    node.start_ready();
    assert_eq!(keys(&node), "a");
    node.stop();
}
