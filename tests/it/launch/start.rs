//! A start, on every supported etcd.

crate::matrix!(
    starts_serves_and_stops,
    keeps_every_acknowledged_write_over_kills,
    refuses_arguments_that_this_etcd_does_not_take,
    works_with_etcds_auth,
    renews_certificates_without_a_restart,
    trusts_a_ca_that_was_put_in_place_while_it_ran,
);

mod cases {
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use nix::sys::signal::Signal;
    use quorate::error::Code;

    use crate::kit::{self, Etcd, Node, Writer, eventually, http_get};

    pub fn starts_serves_and_stops(etcd: &Etcd) {
        let mut node = Node::new(etcd).env("QUORATE_LOG", "quorate=info,etcd=info");
        node.start_ready();
        let version = etcd.version();
        let url = format!("https://127.0.0.1:{}", node.ports.client());
        node.wait_event("etcd-ready", &[&url]);

        node.etcdctl(&["put", "key", "value"]);
        assert_eq!(node.etcdctl(&["get", "key", "--print-value-only"]), "value\n");
        let status = node.status_json();
        assert_eq!(status["healthy"], true);
        assert_eq!(status["etcd"]["version"], version.as_str());
        assert_eq!(status["member"]["epoch"], 1);
        let member = status["member"]["id"].clone();

        // Without a client certificate no client gets in, neither by gRPC nor by the JSON gateway.
        let refused = Command::new(etcd.dir.join("etcdctl"))
            .args([
                "--endpoints",
                &url,
                "--insecure-skip-tls-verify",
                "--dial-timeout=1s",
                "--command-timeout=1s",
                "get",
                "key",
            ])
            .env("ETCDCTL_API", "3")
            .output()
            .unwrap();
        assert!(!refused.status.success());

        // The checks that this version has are on, as etcd itself reports in its first lines.
        let flags = fs::read_to_string(node.etcd_dir().join("config")).unwrap();
        let expected: &[&str] = match etcd.minor {
            "3.4" => &["--experimental-initial-corrupt-check=true"],
            "3.5" => &["--experimental-initial-corrupt-check=true", "--experimental-compact-hash-check-enabled=true"],
            _ => &["--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true"],
        };
        for flag in expected {
            assert!(flags.lines().any(|line| line == *flag), "{flag} is not in\n{flags}");
        }
        assert!(!node.log().contains("DEPRECATED"), "a setting is deprecated:\n{}", node.log_since_start());
        gateway_serves(&node, &url);

        node.stop();
        assert_eq!(kit::etcds_on(&node.etcd_dir()), Vec::<i32>::new());
        fs::write(node.server_dir().join("db/reset-flag"), "").unwrap();
        node.start_ready();
        assert_eq!(node.status_json()["member"]["id"], member, "the same member comes back");
        assert_eq!(node.etcdctl(&["get", "key", "--print-value-only"]), "value\n");
        eventually("the reset flag to be removed", || {
            (!node.server_dir().join("db/reset-flag").exists()).then_some(())
        });
        // The corruption check at start leaves a word in every version's log.
        node.wait_log("initial corruption check");
        node.stop();
    }

    /// etcd's JSON gateway dials etcd itself with the server's certificate, which must therefore be a client's too.
    fn gateway_serves(node: &Node, url: &str) {
        let tls = node.server_dir().join("tls/etcd");
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "10", "--cacert"])
            .arg(tls.join("server-ca.crt"))
            .arg("--cert")
            .arg(tls.join("client.crt"))
            .arg("--key")
            .arg(tls.join("client.key"))
            .args(["-d", r#"{"key":"a2V5"}"#])
            .arg(format!("{url}/v3/kv/range"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(r#""value":"dmFsdWU=""#), "{text}");
    }

    pub fn keeps_every_acknowledged_write_over_kills(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        let writer = Writer::start(vec![node.access()], 2);
        for round in 0..3 {
            let before = node.status_json()["etcd"]["restarts"].as_u64().unwrap();
            writer.wait_for_more(50);
            if round == 2 {
                node.kill_launcher();
                node.start_ready();
                break;
            }
            let log_end = node.log_end();
            let killed = node.signal_child(Signal::SIGKILL);
            node.wait_event_from(log_end, "etcd-exited", &[]);
            eventually("another etcd", || node.child_pid().filter(|pid| *pid != killed));
            eventually("health after a kill", || node.is_serving().then_some(()));
            assert_eq!(node.status_json()["etcd"]["restarts"], before + 1, "round {round}");
        }
        let ledger = writer.stop();
        assert!(ledger.acknowledged >= 100);
        ledger.verify(&node.access());
        node.stop();
    }

    pub fn refuses_arguments_that_this_etcd_does_not_take(etcd: &Etcd) {
        let node = Node::new(etcd)
            .arg("--etcd-arg=max-txn-opss=5")
            .arg("--etcd-arg=max-txn-ops=many")
            .arg("--etcd-arg=snapshot-count=5000");
        let ran = node.run_server();
        ran.fails(Code::EtcdArgument, &["max-txn-opss", "max-txn-ops?", "max-txn-ops=many", "etcd-arg"]);
        assert!(!ran.err.contains("snapshot-count=5000"), "a good setting is blamed: {}", ran.err);
        assert!(!node.data_dir.exists(), "the data directory was touched: {:?}", node.files());

        let mut node = Node::new(etcd).arg("--etcd-arg=max-txn-ops=256").arg("--etcd-arg=snapshot-count=5000");
        node.start_ready();
        let flags = fs::read_to_string(node.etcd_dir().join("config")).unwrap();
        assert!(flags.contains("--max-txn-ops=256") && flags.contains("--snapshot-count=5000"), "{flags}");
        node.stop();
    }

    pub fn works_with_etcds_auth(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        node.etcdctl(&["user", "add", "root:secret"]);
        node.etcdctl(&["user", "grant-role", "root", "root"]);
        node.etcdctl(&["auth", "enable"]);
        let refused = node.quorate(&["etcdctl", "--", "put", "a", "b"]);
        assert_ne!(refused.code, Some(0), "the certificate for people is no user of etcd's");
        assert_eq!(node.etcdctl(&["--user=root:secret", "put", "a", "b"]), "OK\n");
        node.stop();
        // The launcher's own certificate is root's, so it still sees that etcd is healthy.
        node.start_ready();
        assert_eq!(node.etcdctl(&["--user=root:secret", "get", "a", "--print-value-only"]), "b\n");
        node.stop();
    }

    pub fn renews_certificates_without_a_restart(etcd: &Etcd) {
        // Names in a spelling of their own are the names that they are.
        let mut node =
            Node::new(etcd).env("QUORATE_TEST_CERTIFICATE_MS", "100").arg("--tls-san=DB.Example.com,0:0:0:0:0:0:0:9");
        node.start_ready();
        let etcd_pid = node.child_pid();
        let tls = node.server_dir().join("tls/etcd");
        let key = fs::read(tls.join("server-client.key")).unwrap();
        let ends = std::time::SystemTime::now() + Duration::from_secs(3);
        let short = certificate(
            &tls,
            Duration::from_secs(3),
            &["localhost", "127.0.0.1", "::1", "node", "db.example.com", "::9"],
        );
        // As an operator's mv would: whole or not at all.
        fs::write(tls.join("x"), &short).unwrap();
        fs::rename(tls.join("x"), tls.join("server-client.crt")).unwrap();
        eventually("a renewal", || {
            (fs::read(tls.join("server-client.crt")).unwrap() != short.as_bytes()).then_some(())
        });
        node.wait_event("certificate-renewed", &["certificate=server-client"]);
        assert_eq!(fs::read(tls.join("server-client.key")).unwrap(), key, "a renewal keeps the key");
        // One that lacks a name is renewed, too.
        let lacking = certificate(
            &tls,
            Duration::from_secs(300 * 86_400),
            &["localhost", "127.0.0.1", "::1", "db.example.com", "::9"],
        );
        fs::write(tls.join("x"), &lacking).unwrap();
        fs::rename(tls.join("x"), tls.join("server-client.crt")).unwrap();
        node.wait_event("certificate-renewed", &["certificate=server-client", " node\""]);
        // By now a server that still used the short one would be refused by all members.
        eventually("the end of the short one", || {
            (std::time::SystemTime::now() > ends + Duration::from_secs(1)).then_some(())
        });
        node.etcdctl(&["put", "after", "renewal"]);
        assert_eq!(node.child_pid(), etcd_pid, "etcd was not restarted");
        let renewals = node.count_events("certificate-renewed");
        assert_eq!(renewals, 2, "only what was not good was renewed");
        let (code, body) = http_get(node.ports.metrics(), "/metrics");
        assert_eq!(code, 200);
        assert!(body.contains(r#"quorate_certificate_days_left{name="server-client"} 364"#), "{body}");
        node.stop();
    }

    pub fn trusts_a_ca_that_was_put_in_place_while_it_ran(etcd: &Etcd) {
        let mut node = Node::new(etcd).env("QUORATE_TEST_CERTIFICATE_MS", "100");
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        let (before, etcd_pid) = (fs::read_to_string(node.server_dir().join("token")).unwrap(), node.child_pid());
        let other = Node::new(etcd);
        let tls = |node: &Node| node.server_dir().join("tls/etcd");
        // Another cluster's CA, as an operator would bring a company's.
        let mut other = other;
        other.start_ready();
        other.stop();
        for file in ["server-ca.key", "server-ca.crt"] {
            fs::copy(tls(&other).join(file), tls(&node).join("new")).unwrap();
            fs::rename(tls(&node).join("new"), tls(&node).join(file)).unwrap();
        }
        node.wait_event("ca-replaced", &[]);
        eventually("another etcd", || node.child_pid().filter(|pid| Some(*pid) != etcd_pid));
        eventually("health", || (node.status().code == Some(0)).then_some(()));
        assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
        let after = fs::read_to_string(node.server_dir().join("token")).unwrap();
        assert_eq!(before.split("::").nth(1), after.split("::").nth(1), "the password stays");
        assert_ne!(before, after, "the hash is the new CA's");
        assert!(!node.has_event("etcd-exited"), "it was stopped in order");
        node.stop();
    }

    /// A server certificate of this CA and key.
    fn certificate(tls: &Path, lifetime: Duration, names: &[&str]) -> String {
        use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
        let read = |name: &str| fs::read_to_string(tls.join(name)).unwrap();
        let ca = Issuer::from_ca_cert_pem(&read("server-ca.crt"), KeyPair::from_pem(&read("server-ca.key")).unwrap())
            .unwrap();
        let key = KeyPair::from_pem(&read("server-client.key")).unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(3600)).into();
        params.not_after = (now + lifetime).into();
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&key, &ca).unwrap().pem()
    }
}
