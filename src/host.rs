//! Facts about this machine: names, addresses, processes, ports, file systems.
//!
//! Read-only observations for messages, checks and decisions. Nothing here changes the machine. What is not visible
//! (another user's process, no /proc) is `None`, never an error.

pub mod disk;
mod files;
pub mod open_files;

use crate::text::escape_control;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{self, FsType};
use nix::sys::statvfs;
use procfs::process::{FDTarget, Process};
use serde::{Deserialize, Serialize};

pub use files::{lock_holder, open_file, open_regular, read_small, try_lock};

/// Where RKE1 keeps snapshots.
pub const RKE1_SNAPSHOTS: &str = "/opt/rke/etcd-snapshots";

/// The facts about this host that complete and validate a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    pub hostname: String,
    /// Every address of every interface that is up.
    pub addresses: Vec<IpAddr>,
    /// The source address of the default route, if there is one.
    pub default_address: Option<IpAddr>,
    /// The snapshot directory of RKE1, if it exists.
    pub rke1_snapshots: Option<PathBuf>,
}

impl HostFacts {
    /// Inspects this host, without sending any packet.
    #[must_use]
    pub fn observe() -> Self {
        let addresses = nix::ifaddrs::getifaddrs()
            .map(|interfaces| {
                interfaces
                    .filter_map(|interface| {
                        let address = interface.address?;
                        address
                            .as_sockaddr_in()
                            .map(|v4| IpAddr::V4(v4.ip()))
                            .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
                    })
                    .collect()
            })
            .unwrap_or_default();
        let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let rke1_snapshots = Some(PathBuf::from(RKE1_SNAPSHOTS)).filter(|dir| dir.is_dir());
        Self { hostname, addresses, default_address: default_address(), rke1_snapshots }
    }

    /// True if a socket could be bound to `address` here: it is an address of this host, or of the loopback network.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }
}

/// Connecting a UDP socket sends nothing, but makes the kernel choose the route and the source address.
fn default_address() -> Option<IpAddr> {
    // Documentation networks (RFC 5737, RFC 3849): routed like any remote address, but unassigned.
    for (bind, far) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let Ok(socket) = UdpSocket::bind(bind) else { continue };
        let Ok(()) = socket.connect(far) else { continue };
        if let Ok(local) = socket.local_addr()
            && !local.ip().is_unspecified()
        {
            return Some(local.ip());
        }
    }
    None
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// The user with this name, if there is one.
    pub fn find(name: &str) -> std::io::Result<Option<Self>> {
        let found = nix::unistd::User::from_name(name)?;
        Ok(found.map(|user| Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }
}

/// The loopback address of the same family as `address`.
#[must_use]
pub fn loopback_for(address: IpAddr) -> IpAddr {
    if let Some(address) = crate::faults::loopback() {
        return address;
    }
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    }
}

/// Identifies a process, even after its pid was reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of proc(5) `stat`).
    pub start_ticks: u64,
    /// Its executable, from the link `/proc/PID/exe`, without ` (deleted)`.
    pub executable: PathBuf,
    /// The boot from which the ticks count (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// The process with this `pid` now; `None` if there is none, it has ended, or it is not visible.
#[must_use]
pub fn identify(pid: i32) -> Option<ProcessIdentity> {
    let process = Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    if stat.state == 'Z' || stat.state == 'X' {
        return None;
    }
    let executable = process.exe().ok()?;
    let executable = match executable.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(kept) => PathBuf::from(kept),
        None => executable,
    };
    Some(ProcessIdentity { pid, start_ticks: stat.starttime, executable, boot_id: boot_id() })
}

/// The id of this boot; the same in all containers of a machine.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The id of this machine or container (machine-id(5)), or else its host name.
#[must_use]
pub fn machine_id() -> String {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .filter_map(|path| read_small(Path::new(path)).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        .find(|id| !id.is_empty())
        .unwrap_or_else(|| nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned())
}

/// `pid 812 (etcd)`, or `pid 812` where the name is not visible.
#[must_use]
pub fn describe(pid: i32) -> String {
    match Process::new(pid).and_then(|process| process.stat()) {
        Ok(stat) => format!("pid {pid} ({})", escape_control(&stat.comm)),
        Err(_) => format!("pid {pid}"),
    }
}

/// The process that started `pid`, where visible.
#[must_use]
pub fn parent(pid: i32) -> Option<i32> {
    Process::new(pid).and_then(|process| process.stat()).ok().map(|stat| stat.ppid)
}

/// The arguments that `pid` was started with, the program's name first, where visible.
#[must_use]
pub fn arguments(pid: i32) -> Vec<String> {
    Process::new(pid).and_then(|process| process.cmdline()).unwrap_or_default()
}

/// True if standard error goes to systemd's journal, which then takes the level of a line from a prefix such as `<4>`
/// (systemd.exec(5) `JOURNAL_STREAM`, sd-daemon(3)).
#[must_use]
pub fn stderr_is_journal() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::metadata("/proc/self/fd/2") else { return false };
    let ours = format!("{}:{}", found.dev(), found.ino());
    crate::environment::text("JOURNAL_STREAM").is_some_and(|stream| stream == ours)
}

/// The process whose listening TCP socket prevents binding `address`, where visible.
#[must_use]
pub fn listener_on(address: SocketAddr) -> Option<i32> {
    let clashes = |local: &SocketAddr| {
        local.port() == address.port()
            && (local.ip() == address.ip() || local.ip().is_unspecified() || address.ip().is_unspecified())
    };
    let inodes: Vec<u64> = procfs::net::tcp()
        .unwrap_or_default()
        .into_iter()
        .chain(procfs::net::tcp6().unwrap_or_default())
        .filter(|entry| entry.state == procfs::net::TcpState::Listen && clashes(&entry.local_address))
        .map(|entry| entry.inode)
        .collect();
    if inodes.is_empty() {
        return None;
    }
    procfs::process::all_processes().ok()?.flatten().find_map(|process| {
        let holds = process
            .fd()
            .ok()?
            .flatten()
            .any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)));
        holds.then_some(process.pid)
    })
}

/// The number of processes that the OOM killer has killed, as seen from one process: in its cgroup or, where that is
/// not visible, on the whole machine since boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryKills {
    events: Option<PathBuf>,
    count: Option<u64>,
}

impl MemoryKills {
    /// The count as seen from `pid`.
    #[must_use]
    pub fn of(pid: i32) -> Self {
        let events = memory_events(pid);
        let count = count_of_memory_kills(events.as_deref());
        Self { events, count }
    }

    /// True if there are more now than when this was counted.
    #[must_use]
    pub fn are_more_now(&self) -> bool {
        count_of_memory_kills(self.events.as_deref()).zip(self.count).is_some_and(|(now, before)| now > before)
    }
}

/// The file with the kernel's counter for the cgroup of `pid`; cgroup v1 and v2 both have a line `oom_kill N` (kernel
/// documentation, cgroup-v2 `memory.events` and cgroup-v1 `memory.oom_control`).
fn memory_events(pid: i32) -> Option<PathBuf> {
    let groups = Process::new(pid).ok()?.cgroups().ok()?;
    groups.0.into_iter().find_map(|group| {
        let (root, file) = match group.controllers.as_slice() {
            [] => ("/sys/fs/cgroup", "memory.events"),
            some if some.iter().any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            _ => return None,
        };
        let path = Path::new(root).join(group.pathname.trim_start_matches('/')).join(file);
        oom_kill_line(&path).map(|_| path)
    })
}

fn oom_kill_line(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

fn count_of_memory_kills(events: Option<&Path>) -> Option<u64> {
    match events {
        Some(path) => oom_kill_line(path),
        None => procfs::vmstat().ok()?.get("oom_kill").and_then(|count| u64::try_from(*count).ok()),
    }
}

/// The guarantees of a file system that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// A local disk, as far as is known.
    Local,
    /// NFS, SMB and the like: locks and fsync are not reliable.
    Network,
    /// In memory: lost at the next boot.
    Memory,
}

// linux/magic.h has no CIFS and SMB2; these are from the kernel's fs/smb/client.
const CIFS_MAGIC: FsType = FsType(0xFF53_4D42);
const SMB2_MAGIC: FsType = FsType(0xFE53_4D42);

/// The kind of file system that `path` is on.
#[must_use]
pub fn file_system(path: &Path) -> FileSystem {
    let Ok(found) = statfs::statfs(path) else { return FileSystem::Local };
    let kind = found.filesystem_type();
    if [statfs::NFS_SUPER_MAGIC, statfs::SMB_SUPER_MAGIC, CIFS_MAGIC, SMB2_MAGIC].contains(&kind) {
        FileSystem::Network
    } else if kind == statfs::TMPFS_MAGIC {
        FileSystem::Memory
    } else {
        FileSystem::Local
    }
}

/// True if something is mounted at `path`: another file system, or another part of the same one (a bind mount), which
/// the kernel reports since Linux 5.8.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    use std::os::unix::fs::MetadataExt as _;
    let attributes = statx(CWD, path, AtFlags::empty(), StatxFlags::empty()).ok();
    let has_mount_root = |found: &rustix::fs::Statx| found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    if let Some(found) = attributes.filter(has_mount_root) {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

/// Bytes available to an unprivileged writer under `path`.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    disk::disk_usage(path).ok().map(|usage| usage.free)
}

/// Gives the calling thread, and what it starts from now on, the lowest priority. Failures are ignored.
pub fn lower_priority() {
    const LOWEST_PRIORITY: i32 = 19;
    let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
}

/// True if files under `path` cannot be executed.
#[must_use]
pub fn is_noexec(path: &Path) -> bool {
    statvfs::statvfs(path).is_ok_and(|found| found.flags().contains(statvfs::FsFlags::ST_NOEXEC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_recognised_and_no_other() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = identify(pid).unwrap();
        assert_eq!(identify(pid), Some(me.clone()));
        assert!(me.start_ticks > 0 && !me.boot_id.is_empty());
        assert_ne!(identify(1), Some(me));
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listener_on(listener.local_addr().unwrap());
        assert_eq!(found, i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn loopback_is_always_ours() {
        let facts =
            HostFacts { hostname: String::new(), addresses: vec![], default_address: None, rke1_snapshots: None };
        assert!(facts.has("127.0.0.9".parse().unwrap()));
        assert!(!facts.has("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(escape_control("a\u{1b}[31mb\n"), "a?[31mb?");
        assert_eq!(escape_control("a\u{202e}b\u{2066}c\u{200b}\u{feff}\u{e0041}"), "a?b?c???");
        assert_eq!(escape_control("é 数据库 Ω 🙂"), "é 数据库 Ω 🙂");
    }
}
