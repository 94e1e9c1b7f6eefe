//! The Debian package.

use crate::install::machine::Machine;
use crate::kit::{Timed, eventually};

#[test]
fn a_package_is_installed_upgraded_removed_and_purged_and_the_data_stays() {
    let _timed = Timed::start();
    let Some(machine) = Machine::boot() else { return };
    let installed = machine.must("dpkg -i /dist/*.deb 2>&1");
    assert!(
        installed.contains("/etc/quorate/config.yaml") && installed.contains("systemctl enable --now"),
        "{installed}"
    );
    assert_eq!(machine.must("stat -c '%a %U' /etc/quorate/config.yaml"), "600 root\n");
    assert_eq!(machine.etcds(), Vec::<String>::new(), "nothing is started before it is configured");

    machine.must("systemctl enable --now quorate-server");
    assert_eq!(machine.must("quorate etcdctl put a 1"), "OK\n");
    assert_eq!(machine.must(&format!("stat -c %U /proc/{}", machine.etcds()[0])), "quorate\n");

    // An upgrade does not restart every member of a cluster at once.
    let pid = machine.main_pid();
    machine.must("echo '# mine' >>/etc/quorate/config.yaml");
    let upgraded = machine.must("dpkg -i --force-confold /dist/*.deb 2>&1");
    assert!(upgraded.contains("systemctl restart quorate-server"), "{upgraded}");
    assert_eq!(machine.main_pid(), pid);
    machine.must("tail -n 1 /etc/quorate/config.yaml | grep mine");
    // Should etcd end meanwhile, the one that was checked runs on.
    let etcd = machine.etcds();
    machine.must(&format!("kill -9 {}", etcd[0]));
    eventually("health", || (machine.etcds() != etcd && machine.run("quorate status").code == Some(0)).then_some(()));

    machine.must("dpkg -r quorate 2>&1");
    assert_eq!(machine.etcds(), Vec::<String>::new());
    machine.must("test -d /var/lib/quorate/server/db/etcd/member && test -f /etc/quorate/config.yaml");
    machine.must("dpkg -i --force-confold /dist/*.deb 2>&1 && systemctl start quorate-server");
    assert_eq!(machine.must("quorate etcdctl get a --print-value-only"), "1\n");

    let purged = machine.must("dpkg -P quorate 2>&1");
    assert!(purged.contains("/var/lib/quorate"), "{purged}");
    machine
        .must("test -d /var/lib/quorate/server/db/etcd/member && ! test -e /etc/quorate && ! test -e /usr/bin/quorate");
}
