//! Where credentials come from when none are configured: as AWS' own tools look for them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use quorate::error::Code;
use serde_json::json;

use crate::kit::s3::{ACCESS_KEY, Fault, SECRET_KEY, Store};
use crate::kit::{Etcd, Node, Ran, Timed, eventually};

/// A page that answers by method and path, over plain HTTP, and remembers what it was asked.
struct Page {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn page(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Page {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => request.extend(&buffer[..count]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            seen.lock().unwrap().push(text.clone());
            let (status, body) = answer(&text);
            let head =
                format!("HTTP/1.1 {status} X\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\nconnection: close\r\n");
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    Page { url, asked }
}

/// As instance and container roles get.
fn role(expires_in: i64) -> String {
    let expires = chrono::Utc::now() + chrono::Duration::seconds(expires_in);
    json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": ACCESS_KEY,
        "SecretAccessKey": SECRET_KEY, "Token": "a session", "Expiration": expires.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
    .to_string()
}

/// A node without keys in its configuration.
fn keyless(store: &Store) -> Node {
    let config = store.config_without("-key:");
    // Others of this name have snapshots in the bucket.
    Node::new(&Etcd::usual()).config(&config).arg("--new-cluster")
}

/// One of the checks of `s3-check -o json`.
fn check(ran: &Ran, name: &str) -> serde_json::Value {
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    report["items"].as_array().unwrap().iter().find(|item| item["check"] == name).unwrap().clone()
}

/// Each way: the environment that it needs, and what `s3-check` calls it.
fn works(store: &Store, env: &[(&str, &str)], called: &str) {
    let mut node = keyless(store);
    let quiet = [("AWS_EC2_METADATA_DISABLED", "true")];
    let env: Vec<(&str, &str)> =
        if env.iter().any(|(name, _)| name.contains("METADATA")) { env.to_vec() } else { [&quiet[..], env].concat() };
    let ran = node.quorate_with(&env, &["etcd-snapshot", "s3-check"]);
    assert!(ran.succeeds().split_whitespace().collect::<Vec<_>>().join(" ").contains(called), "{called}: {}", ran.out);
    node.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    node.start_ready();
    // A name of its own: two of these may be saved within one second, into one bucket.
    let name = called.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    node.quorate(&["etcd-snapshot", "save", "--name", &name]).succeeds();
    assert!(!node.log().contains(SECRET_KEY));
    node.stop();
}

#[test]
fn each_way_of_the_chain_is_found() {
    let _timed = Timed::start();
    let store = Store::start();
    let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    works(&store, &[("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)], "from the environment");
    let profile =
        file("profile", &format!("[backup]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"));
    works(&store, &[("AWS_SHARED_CREDENTIALS_FILE", &profile), ("AWS_PROFILE", "backup")], "from a profile");
    let script = file("script", "");
    let report = json!({"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY}).to_string();
    fs::write(&script, format!("#!/bin/sh\necho '{report}'\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let process = file("process", &format!("[default]\ncredential_process = {script}\n"));
    works(&store, &[("AWS_CONFIG_FILE", &process)], "from a process");
    let container = page(|_| (200, role(3600)));
    let url = format!("{}/creds", container.url);
    works(&store, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)], "from the container's role");
    let instance = page(|request| {
        if request.starts_with("PUT /latest/api/token") {
            return (200, "a token".into());
        }
        if !request.to_lowercase().contains("x-aws-ec2-metadata-token: a token") {
            return (401, String::new());
        }
        if request.starts_with("GET /latest/meta-data/iam/security-credentials/backup")
            || request.contains("-extended/backup")
        {
            (200, role(3600))
        } else {
            (200, "backup".into())
        }
    });
    let env = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url.as_str())];
    works(&store, &env, "from the instance's role");
    assert!(instance.asked.lock().unwrap().iter().any(|asked| asked.starts_with("PUT /latest/api/token")), "IMDSv2");
    let sts = page(|_| {
        let expires = (chrono::Utc::now() + chrono::Duration::hours(1)).format("%Y-%m-%dT%H:%M:%SZ");
        let text = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>a session</SessionToken>\
             <Expiration>{expires}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
             <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
        );
        (200, text)
    });
    let token = file("token", "a token of the cluster");
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
        ("AWS_ENDPOINT_URL_STS", sts.url.as_str()),
    ];
    works(&store, &env, "from a web identity");
    // And where there are none.
    let node = keyless(&store);
    let ran = node.quorate_with(&[("AWS_EC2_METADATA_DISABLED", "true")], &["etcd-snapshot", "ls", "--s3"]);
    ran.fails(Code::S3NoCredentials, &[]);
}

#[test]
fn a_command_uses_what_the_running_server_finds() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = keyless(&store);
    let found = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    node.env = found.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    // The environment of a command has nothing to do with that of the server.
    let without = [("AWS_EC2_METADATA_DISABLED", "true")];
    let wrong = [("AWS_ACCESS_KEY_ID", "another"), ("AWS_SECRET_ACCESS_KEY", "one")];
    for env in [&without[..], &wrong] {
        node.quorate_with(env, &["etcd-snapshot", "ls"]).succeeds();
        node.quorate_with(env, &["etcd-snapshot", "verify", "--all"]).succeeds();
        let ran = node.quorate_with(env, &["etcd-snapshot", "s3-check", "-o", "json"]);
        assert_eq!(check(&ran, "settings")["result"], "good");
        let credentials = check(&ran, "credentials");
        assert!(credentials["what"].as_str().unwrap().contains("(AWS_ACCESS_KEY_ID)"), "{credentials}");
        assert!(!ran.succeeds().contains(SECRET_KEY));
    }
    node.quorate_with(&without, &["etcd-snapshot", "ls", "--s3"]).succeeds();
    // What the command line says counts more; keys together with --s3 are said with it.
    node.quorate_with(&wrong, &["etcd-snapshot", "ls", "--s3"])
        .fails(Code::S3UnknownAccessKey, &["etcd-s3-access-key"]);
    let said = ["--s3-access-key=another", "--s3-secret-key=one"];
    let ran = node.quorate(&[&["etcd-snapshot", "ls", "--s3"][..], &said].concat());
    ran.fails(Code::S3UnknownAccessKey, &["etcd-s3-access-key"]);
    node.stop();
    // Without a server it is this environment's, and that is said.
    let ran = node.quorate_with(&found, &["etcd-snapshot", "s3-check", "-o", "json"]);
    assert_eq!(check(&ran, "settings")["result"], "note");
    // One that finds none says so, whatever we would find.
    node.env = vec![("AWS_EC2_METADATA_DISABLED".into(), "true".into())];
    node.start_ready();
    let ran = node.quorate_with(&found, &["etcd-snapshot", "ls"]);
    ran.fails(Code::S3NoCredentials, &[]);
    node.stop();
}

#[test]
fn a_silent_credential_provider_is_not_the_store() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = keyless(&store);
    let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let config = dir.path().join("config");
    fs::write(&config, "[default]\ncredential_process = /bin/sleep 3\n").unwrap();
    let env = [("AWS_CONFIG_FILE", config.to_str().unwrap()), ("QUORATE_TEST_CREDENTIALS_MS", "1000")];
    node.quorate_with(&env, &["etcd-snapshot", "ls", "--s3"]).fails(Code::S3NoCredentials, &["1 s"]);
    let report = node.quorate_with(&env, &["etcd-snapshot", "s3-check", "-o", "json"]);
    assert_eq!((report.code, &check(&report, "credentials")["result"]), (Some(1), &"BAD".into()));
    // The same of the server's.
    node.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::UploadPending, &["1 s"]);
    node.wait_code(Code::UploadPending, &["cause=s3-no-credentials"]);
    node.quorate(&["etcd-snapshot", "ls", "--s3"]).fails(Code::S3NoCredentials, &["1 s"]);
    node.stop();
}

#[test]
fn a_role_is_asked_again_before_its_credentials_expire() {
    let _timed = Timed::start();
    let store = Store::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let container = page(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        (200, role(5))
    });
    let mut node = keyless(&store);
    node.env = vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI".into(), format!("{}/creds", container.url))];
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    let before = asked.load(Ordering::Relaxed);
    eventually("credentials to be asked for again", || {
        node.quorate(&["etcd-snapshot", "save"]).succeeds();
        (asked.load(Ordering::Relaxed) > before).then_some(())
    });
    // Said to have expired in the middle of an upload, they are asked for again, once.
    let before = asked.load(Ordering::Relaxed);
    store.inject(Fault::Answer(400, "ExpiredToken", "The provided token has expired.", vec![]), 0, 1, |seen| {
        seen.method == "PUT"
    });
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    assert!(asked.load(Ordering::Relaxed) > before);
    node.stop();
}

#[test]
fn a_file_with_secrets_is_read_again_and_must_be_private() {
    let _timed = Timed::start();
    let store = Store::start();
    let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let path = dir.path().join("s3.yaml");
    let mut node = keyless(&store);
    let config = fs::read_to_string(node.config_path()).unwrap();
    fs::write(node.config_path(), format!("{config}etcd-s3-config-file: {}\n", path.display())).unwrap();
    let write = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    node.run_server().fails(Code::InvalidConfiguration, &["`etcd-s3-config-file`", path.to_str().unwrap()]);
    write(&format!("access-key: {ACCESS_KEY}\nsecret-key: '{SECRET_KEY}'\n"), 0o644);
    node.run_server().fails(Code::InvalidConfiguration, &["chmod 600"]);
    for elsewhere in ["only", "etcd-s3-retention", "config-file"] {
        write(&format!("{elsewhere}: 1\n"), 0o600);
        node.run_server().fails(Code::InvalidConfiguration, &["s3.yaml:1: ", &format!("`{elsewhere}`")]);
    }
    write("acess-key: x\n", 0o600);
    node.run_server().fails(Code::InvalidConfiguration, &["s3.yaml:1", "`acess-key`"]);
    write(&format!("# for the backups\naccess-key: {ACCESS_KEY}\nsecret-key: '{SECRET_KEY}'\n"), 0o600);
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    // Another form, and wrong: read at the next upload, without a restart.
    write(&format!("export AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY=\"wrong\"\n"), 0o600);
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::UploadPending, &["etcd-s3-secret-key"]);
    write(&format!("export AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY=\"{SECRET_KEY}\"\n"), 0o600);
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    let printed = node.quorate(&["server", "--print-config"]).out;
    assert!(!format!("{printed}{}", node.log_since_start()).contains(SECRET_KEY));
    node.stop();
}
