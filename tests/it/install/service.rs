//! The unit under a real systemd.

use quorate::error::Code;

use crate::install::machine::Machine;
use crate::kit::events::lines_of;
use crate::kit::{Timed, eventually};

const STATUS: &str = "quorate status -o json";

#[test]
fn an_installation_by_script_is_started_reloaded_killed_stopped_rebooted_and_removed() {
    let _timed = Timed::start();
    let Some(mut machine) = Machine::boot() else { return };
    let installed = machine.run("cd /root && tar -xzf /dist/quorate-*.tar.gz && cd quorate-* && ./install.sh");
    assert_eq!(
        installed.code,
        Some(0),
        "{installed:#?}\n{}",
        machine.run("journalctl --no-pager -u quorate-server").out
    );
    // systemctl start came back when etcd was ready, not before.
    machine.must(STATUS);
    assert_eq!(machine.must("quorate etcdctl put a 1"), "OK\n");
    let unit = machine.must("systemctl status quorate-server --no-pager");
    assert!(unit.contains("Status: \"etcd 3.") && unit.contains(" https://"), "{unit}");
    let etcds = machine.etcds();
    assert_eq!(etcds.len(), 1);
    assert_eq!(machine.must(&format!("stat -c %U /proc/{}", etcds[0])), "quorate\n", "etcd is not root");

    // The same again changes nothing.
    let pid = machine.main_pid();
    let again = machine.run("cd /root/quorate-* && ./install.sh");
    again.succeeds();
    assert_eq!(machine.main_pid(), pid);

    reload(&machine);
    assert_eq!(machine.main_pid(), pid, "a reload is no restart");

    // kill -9 of the launcher: systemd starts another, which never runs in parallel to the old etcd.
    machine.must(&format!("kill -9 {pid}"));
    eventually("another launcher", || (machine.main_pid() != pid && machine.run(STATUS).code == Some(0)).then_some(()));
    assert_eq!(machine.etcds().len(), 1);
    assert_eq!(machine.must("quorate etcdctl get a --print-value-only"), "1\n");

    machine.must("systemctl stop quorate-server");
    assert_eq!(machine.etcds(), Vec::<String>::new());
    assert!(machine.must("systemctl show -p Result --value quorate-server").contains("success"));
    machine.run(STATUS).fails(Code::NotRunning, &["systemctl start quorate-server"]);

    // A bad configuration does not loop.
    machine.must("cp /etc/quorate/config.yaml /root/good && echo 'nonsense: 1' >>/etc/quorate/config.yaml");
    assert_ne!(machine.run("systemctl start quorate-server").code, Some(0));
    let ended = "systemctl show -p ExecMainStatus,NRestarts,ActiveState quorate-server | sort | tr '\n' ' '";
    // Longer than RestartSec.
    machine.must("sleep 7");
    assert_eq!(machine.must(ended), "ActiveState=failed ExecMainStatus=2 NRestarts=0 ");
    let errors = machine.must("journalctl --no-pager -o cat -p err -u quorate-server");
    assert!(errors.contains("`nonsense`") && lines_of(&errors, "etcd-ready").is_empty(), "{errors}");
    machine.must("cp /root/good /etc/quorate/config.yaml && systemctl start quorate-server");

    machine.reboot();
    eventually("health after the boot", || (machine.run(STATUS).code == Some(0)).then_some(()));
    assert_eq!(machine.must("quorate etcdctl get a --print-value-only"), "1\n");

    // Removed silently about the data, and installed again, it is as before.
    machine.must("quorate-uninstall.sh");
    assert_eq!(machine.etcds(), Vec::<String>::new());
    machine.must("cd /root/quorate-* && ./install.sh");
    assert_eq!(machine.must("quorate etcdctl get a --print-value-only"), "1\n");
}

/// The page "Backup and Restore" of RKE2's documentation, with this program's name.
#[test]
fn the_procedure_for_restoring_is_followed_word_by_word() {
    let _timed = Timed::start();
    let Some(machine) = Machine::boot() else { return };
    machine.must("cd /root && tar -xzf /dist/quorate-*.tar.gz && cd quorate-* && ./install.sh");
    machine.must("quorate etcdctl put a 1 && quorate etcd-snapshot save --name pre-upgrade-snapshot");
    machine.must("quorate etcdctl put b 1");
    let snapshot = machine.must("ls -d /var/lib/quorate/server/db/snapshots/pre-upgrade-snapshot-*").trim().to_owned();
    // While it runs: refused, and nothing happens.
    machine
        .run(&format!("quorate server --cluster-reset --cluster-reset-restore-path={snapshot}"))
        .fails(Code::DataDirInUse, &["systemctl stop quorate-server"]);
    machine.must("systemctl stop quorate-server");
    let ran =
        machine.run(&format!("quorate server \\\n  --cluster-reset \\\n  --cluster-reset-restore-path={snapshot}"));
    ran.succeeds();
    let said = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("quorate can be restarted without the flags: systemctl start quorate-server"), "{}", ran.err);
    assert_eq!(machine.must("stat -c %s /var/lib/quorate/server/db/reset-flag"), "0\n");
    assert_eq!(machine.etcds(), Vec::<String>::new());
    machine.must("systemctl start quorate-server");
    assert_eq!(
        machine.must("quorate etcdctl get '' --prefix --keys-only").split_whitespace().collect::<Vec<_>>(),
        ["a"]
    );
    machine.must("test ! -e /var/lib/quorate/server/db/reset-flag");
    let etcd = &machine.etcds()[0];
    assert_eq!(machine.must(&format!("stat -c %U /proc/{etcd}")), "quorate\n", "etcd's user owns what was built");

    // "Cluster Reset", the two lines of it.
    machine.must("systemctl stop quorate-server");
    machine.must("quorate server --cluster-reset");
    machine.must("systemctl start quorate-server");
    assert_eq!(machine.must("quorate etcdctl get a --print-value-only"), "1\n");

    // Left in the configuration it resets once, and does not loop.
    machine.must("systemctl stop quorate-server && echo 'cluster-reset: true' >>/etc/quorate/config.yaml");
    machine.run("systemctl start quorate-server");
    let ended = "systemctl show -p ExecMainStatus,ActiveState quorate-server | sort | tr '\n' ' '";
    eventually("the second start to be refused", || {
        (machine.must(ended) == "ActiveState=failed ExecMainStatus=4 ").then_some(())
    });
    // Longer than RestartSec.
    machine.must("sleep 7");
    assert_eq!(machine.must(ended), "ActiveState=failed ExecMainStatus=4 ");
    let journal = machine.must("journalctl --no-pager -o cat -u quorate-server");
    assert_eq!(journal.matches("this server is the only member of a new").count(), 1, "{journal}");
    machine.must("sed -i '/cluster-reset/d' /etc/quorate/config.yaml && systemctl start quorate-server");
    assert_eq!(machine.must("quorate etcdctl get a --print-value-only"), "1\n");
}

fn reload(machine: &Machine) {
    let journal = || machine.must("journalctl --no-pager -o cat -u quorate-server");
    machine.must(
        "cp /etc/quorate/config.yaml /root/before && echo 'tls-san: [db.example.com]' >>/etc/quorate/config.yaml",
    );
    machine.must("systemctl reload quorate-server");
    eventually("the new name in the certificate", || {
        let journal = journal();
        lines_of(&journal, "certificate-renewed").iter().any(|line| line.contains("db.example.com")).then_some(())
    });
    // A bad file: reload fails, what runs goes on as it was.
    machine.must("echo 'etcd-client-port: many' >>/etc/quorate/config.yaml");
    assert_ne!(machine.run("systemctl reload quorate-server").code, Some(0));
    assert!(journal().contains("`etcd-client-port`"), "{}", journal());
    machine.must(STATUS);
    machine.must("cp /root/before /etc/quorate/config.yaml && systemctl reload quorate-server");
    // The journal knows the level of each line.
    let of_level = |level: &str| machine.must(&format!("journalctl --no-pager -o cat -p {level} -u quorate-server"));
    assert!(lines_of(&of_level("warning"), "etcd-ready").is_empty());
    assert!(!lines_of(&of_level("info"), "etcd-ready").is_empty());
}

#[test]
fn the_unit_is_understood_and_closed() {
    let _timed = Timed::start();
    let Some(machine) = Machine::boot() else { return };
    machine.must(
        "cd /root && tar -xzf /dist/quorate-*.tar.gz && cd quorate-* && INSTALL_QUORATE_SKIP_START=true ./install.sh",
    );
    let verified = machine.run("systemd-analyze verify /etc/systemd/system/quorate-server.service");
    // There is no man on so small a Debian.
    let wrong: Vec<&str> = verified.err.lines().filter(|line| !line.contains("Command 'man ")).collect();
    assert_eq!((verified.out.as_str(), wrong), ("", vec![]));
    let score = machine.must("systemd-analyze security --no-pager quorate-server | tail -n 1");
    let exposure: f64 =
        score.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("no score in {score}"));
    assert!(exposure < 5.0, "{score}");
    // Everything that hardening could break: an etcd from memory, a data directory elsewhere, an etcd that runs as root.
    machine.must("mkdir /home/q && mount -t tmpfs -o noexec,mode=700 tmpfs /home/q");
    machine.must("printf 'data-dir: /home/q\\nnode-ip: 127.0.0.1\\n' >/etc/quorate/config.yaml && systemctl start quorate-server");
    assert_eq!(machine.must("quorate etcdctl put a 1"), "OK\n");
    machine.must("systemctl stop quorate-server");
}
