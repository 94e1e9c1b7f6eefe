//! `etcd-snapshot s3-check`: says what works, and what to do about what does not.

use quorate::error::Code;
use serde_json::Value;

use crate::kit::s3::{BUCKET, Fault, Store};
use crate::kit::{Etcd, Node, Ran, Timed};

fn check(node: &Node, more: &[&str]) -> (Ran, Value) {
    let ran = node.quorate(&[&["etcd-snapshot", "s3-check", "-o", "json"], more].concat());
    let json = serde_json::from_str(&ran.out).unwrap_or_default();
    (ran, json)
}

fn result<'j>(json: &'j Value, name: &str) -> &'j Value {
    let items = json["items"].as_array().unwrap();
    items.iter().find(|item| item["check"] == name).unwrap_or_else(|| panic!("no {name} in {json:#}"))
}

#[test]
fn a_good_store_passes_and_nothing_stays_there() {
    let _timed = Timed::start();
    let store = Store::start_tls();
    let node = Node::new(&Etcd::usual()).config(&store.config());
    let (ran, json) = check(&node, &[]);
    ran.succeeds();
    for name in
        ["dns", "credentials", "tls", "bucket", "list", "put", "get", "overwrite", "multipart", "checksums", "delete"]
    {
        assert_eq!(result(&json, name)["result"], "good", "{name}: {json:#}");
    }
    assert_eq!(result(&json, "credentials")["what"], "QUOR…TKEY, from etcd-s3-access-key");
    assert!(json["policy"].as_str().unwrap().contains(&format!("arn:aws:s3:::{BUCKET}/prod/*")), "{json:#}");
    assert!(store.objects("prod").iter().all(|name| name.starts_with(".quorate.")), "{:?}", store.objects("prod"));
    let table = node.quorate(&["etcd-snapshot", "s3-check"]);
    let said = table.succeeds();
    assert!(said.contains("s3://backups/prod/"), "{said}");
    let checks = said.split("Minimum permissions").next().unwrap();
    assert!(checks.lines().all(|line| line.chars().count() <= 80), "{checks}");
}

#[test]
fn several_at_a_time_do_not_disturb_each_other() {
    let _timed = Timed::start();
    let store = Store::start();
    let node = Node::new(&Etcd::usual()).config(&store.config());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| node.quorate(&["etcd-snapshot", "s3-check"]).succeeds().to_owned());
        }
    });
    assert_eq!(store.objects("prod"), Vec::<String>::new());
}

#[test]
fn each_thing_that_may_be_wrong_is_one_clear_message_with_the_fix() {
    let _timed = Timed::start();
    let store = Store::start();
    let tls = Store::start_tls();
    let node = Node::new(&Etcd::usual()).config(&store.config());
    let closed_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tls_endpoint = format!("--s3-endpoint={}", tls.endpoint());
    let plain_to_tls = format!("--s3-endpoint=http://{}", tls.address);
    let tls_to_plain = format!("--s3-endpoint=https://{}", store.address);
    let closed_endpoint = format!("--s3-endpoint=http://{closed_port}");
    let no_proxy = format!("--s3-proxy=http://{closed_port}");
    for (more, name, what, next) in [
        (&["--s3-secret-key=wrong"][..], "list", "", "etcd-s3-secret-key"),
        (&["--s3-access-key=UNKNOWNACCESSKEY"], "list", "", "etcd-s3-"),
        (&["--s3-bucket=another"], "bucket", "another", ""),
        (&[&tls_endpoint], "tls", "certificate", "etcd-s3-endpoint-ca"),
        (&[&plain_to_tls], "connection", "", "etcd-s3-endpoint"),
        (&[&tls_to_plain], "tls", "TLS", "etcd-s3-insecure"),
        (&[&closed_endpoint], "connection", "refused", "etcd-s3-endpoint"),
        (&["--s3-endpoint=no-such-host.invalid"], "connection", "", "etcd-s3-endpoint"),
        (&[&no_proxy], "proxy", "refused", "etcd-s3-proxy"),
    ] {
        let (ran, json) = check(&node, more);
        assert_eq!(ran.code, Some(1), "{more:?}: {ran:?}");
        let items = json["items"].as_array().unwrap();
        let bad: Vec<&Value> = items.iter().filter(|item| item["result"] == "BAD").collect();
        assert_eq!(bad.len(), 1, "{more:?}: {json:#}");
        let said = bad[0]["what"].as_str().unwrap().to_lowercase();
        assert_eq!(bad[0]["check"], name, "{more:?}: {json:#}");
        assert!(said.contains(&what.to_lowercase()), "{more:?}: {json:#}");
        assert!(bad[0]["next"].as_str().unwrap().contains(next), "{more:?}: {json:#}");
    }
    // Skipping verification is possible, and said.
    let (ran, json) = check(&node, &[&tls_endpoint, "--s3-skip-ssl-verify"]);
    ran.succeeds();
    assert_eq!(result(&json, "tls")["result"], "note", "{json:#}");
    for (more, fact) in [
        (&["--s3-bucket=Not/A/Name"][..], "etcd-s3-bucket"),
        (&["--s3-endpoint=ftp://x"], "ftp://x"),
        (&["--s3-endpoint=https://x", "--s3-insecure"], "etcd-s3-insecure"),
        (&["--s3-proxy=nonsense"], "etcd-s3-proxy"),
        (&["--s3-sse=rot13"], "AES256"),
        (&["--s3-sse=sse-c:/does/not/exist"], "/does/not/exist"),
        (&["--s3-endpoint-ca=/does/not/exist"], "/does/not/exist"),
    ] {
        let (ran, _) = check(&node, more);
        ran.fails(Code::InvalidConfiguration, &[fact]);
    }
}

#[test]
fn what_a_store_says_is_understood() {
    let _timed = Timed::start();
    let store = Store::start();
    let node = Node::new(&Etcd::usual()).config(&store.config());
    for (fault, code, fact) in [
        (
            Fault::Answer(403, "RequestTimeTooSkewed", "The difference is too large.", vec![]),
            Code::S3ClockSkewed,
            "timedatectl",
        ),
        (
            Fault::Answer(
                400,
                "AuthorizationHeaderMalformed",
                "the region 'us-east-1' is wrong; expecting 'eu-west-3'",
                vec![],
            ),
            Code::S3WrongRegion,
            "eu-west-3",
        ),
        (Fault::Answer(301, "", "", vec![("x-amz-bucket-region", "eu-north-1")]), Code::S3WrongRegion, "eu-north-1"),
        (
            Fault::Answer(403, "InvalidAccessKeyId", "does not exist in our records", vec![]),
            Code::S3UnknownAccessKey,
            "etcd-s3-access-key",
        ),
        (Fault::Answer(403, "ExpiredToken", "The provided token has expired.", vec![]), Code::S3CredentialsExpired, ""),
        (Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), Code::S3AccessDenied, "AccessDenied"),
    ] {
        store.inject(fault.clone(), 0, usize::MAX, |seen| seen.is("GET", "list-type=2"));
        let ran = node.quorate(&["etcd-snapshot", "ls", "--s3"]);
        store.heal();
        ran.fails(code, &["s3://backups/prod/", fact]);
    }
    // A node may still see its own when the store cannot be reached.
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save", "--s3=false"]).succeeds();
    store.inject(Fault::Close, 0, usize::MAX, |_| true);
    let ran = node.quorate(&["etcd-snapshot", "ls"]);
    ran.fails(Code::S3Unreachable, &["s3://backups/prod/"]);
    assert!(ran.out.contains("on-demand-node-"), "{ran:?}");
    node.stop();
}
