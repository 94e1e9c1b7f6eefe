//! Converts the texts of all options into the typed [`Config`], and checks them against this host.

use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::builder::Builder;
use crate::config::checks;
use crate::config::etcd_arg::EtcdArg;
use crate::config::layers::Resolved;
use crate::config::model::{Config, EtcdConfig, LogFormat, MaintenanceConfig, SnapshotConfig};
use crate::config::options::{self, Spec};
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::reader::Reader;
use crate::config::reserved_flags::replacement_for;
use crate::config::s3::S3Config;
use crate::config::value_types::{bytes, is_label, millis, packing, pair};
use crate::host::{HostFacts, User};
use crate::pki;
use crate::plan::command::Invocation;
use crate::secret::Secret;
use crate::text::duration;

/// Maximum size of a token file, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// The typed configuration; problems are added to `problems`. `None` only if a required value is unusable.
pub(super) fn build(
    resolved: &Resolved,
    host: &HostFacts,
    reader: Reader,
    problems: &mut Vec<ConfigProblem>,
) -> Option<Config> {
    let mut builder = Builder { resolved, problems };
    let data_dir = builder.path(&options::DATA_DIR)?;
    let node_name = node_name(&mut builder, host);
    let node_ips = node_ips(&mut builder, host);
    let args = etcd_args(&mut builder);
    let token = token(&mut builder);
    checks::ports(&mut builder);
    let user = etcd_user(&mut builder);
    if user.is_some() {
        checks::low_ports(&mut builder);
    }
    checks::timing(&mut builder);
    checks::reset(&mut builder);
    if reader == Reader::Server {
        // Commands may read snapshots there.
        checks::data_dir(&mut builder, &data_dir);
    }
    if let Some(address) = builder.one(&options::BIND_ADDRESS, |text| text.parse().ok()) {
        check_ours(&mut builder, host, &options::BIND_ADDRESS, address, &resolved.origin(&options::BIND_ADDRESS), true);
    }
    let log_format = match builder.one(&options::LOG_FORMAT, |text| Some(text == "json")) {
        Some(true) => LogFormat::Json,
        _ => LogFormat::Text,
    };
    let s3 = S3Config::of(resolved, reader, builder.problems);
    Some(Config {
        invocation: Invocation::default(),
        data_dir,
        debug: builder.switch(&options::DEBUG),
        log_format,
        node_name,
        node_ips,
        node_external_ips: builder.list(&options::NODE_EXTERNAL_IP, |text| text.parse().ok()),
        bind_address: builder.one(&options::BIND_ADDRESS, |text| text.parse().ok()),
        supervisor_port: builder.port(&options::SUPERVISOR_PORT),
        metrics_port: builder.port(&options::METRICS_PORT),
        tls_sans: builder.list(&options::TLS_SAN, |text| Some(text.to_owned())),
        server: builder.one(&options::SERVER, |text| Some(text.to_owned())),
        token,
        etcd: EtcdConfig {
            binary: builder.path(&options::ETCD_BINARY),
            user,
            args,
            client_port: builder.port(&options::ETCD_CLIENT_PORT),
            peer_port: builder.port(&options::ETCD_PEER_PORT),
            metrics_port: builder.port(&options::ETCD_METRICS_PORT),
            expose_metrics: builder.switch(&options::ETCD_EXPOSE_METRICS),
            heartbeat_millis: builder.one(&options::ETCD_HEARTBEAT_INTERVAL, millis),
            election_millis: builder.one(&options::ETCD_ELECTION_TIMEOUT, millis),
            quota_backend_bytes: builder.one(&options::ETCD_QUOTA_BACKEND_BYTES, bytes).unwrap_or_default(),
        },
        snapshot: SnapshotConfig {
            dir: builder.path(&options::ETCD_SNAPSHOT_DIR),
            packing: builder.one(&options::ETCD_SNAPSHOT_COMPRESS, packing).unwrap_or_default(),
            retention: builder.one(&options::ETCD_SNAPSHOT_RETENTION, |text| text.parse().ok()).unwrap_or_default(),
            schedule: builder
                .one(&options::ETCD_SNAPSHOT_SCHEDULE_CRON, |text| text.parse().ok())
                .filter(|_| !builder.switch(&options::ETCD_DISABLE_SNAPSHOTS)),
            base: builder.one(&options::ETCD_SNAPSHOT_NAME, |text| text.parse().ok()).unwrap_or_default(),
            drill: builder.one(&options::ETCD_SNAPSHOT_DRILL_CRON, |text| text.parse().ok()),
            on_failure: builder.one(&options::ETCD_SNAPSHOT_ON_FAILURE, |text| Some(text.to_owned())),
            timeout: builder
                .one(&options::ETCD_SNAPSHOT_TIMEOUT, |text| duration::parse(text).map(Duration::from_secs)),
            copy: builder.switch(&options::ETCD_SNAPSHOT_COPY),
            s3,
            is_rke1: resolved.is_scheduled_by_rke1,
            rules: builder.one(&options::ETCD_SNAPSHOT_RETENTION_POLICY, |text| text.parse().ok()).unwrap_or_default(),
        },
        maintenance: MaintenanceConfig {
            auto_defrag: builder.switch(&options::ETCD_AUTO_DEFRAG),
            defrag_threshold: builder.one(&options::ETCD_DEFRAG_THRESHOLD, bytes),
        },
        new_cluster: builder.switch(&options::NEW_CLUSTER),
        cluster_reset: builder.switch(&options::CLUSTER_RESET),
        cluster_reset_restore_path: builder.one(&options::CLUSTER_RESET_RESTORE_PATH, |text| Some(text.to_owned())),
        cluster_reset_bump_revision: builder
            .one(&options::CLUSTER_RESET_BUMP_REVISION, |text| text.parse().ok())
            .unwrap_or_default(),
        etcd_old_retention: builder.one(&options::ETCD_OLD_RETENTION, |text| text.parse().ok()).unwrap_or_default(),
    })
}

fn node_name(builder: &mut Builder<'_>, host: &HostFacts) -> String {
    // In lower case, like the host name: k3s and RKE2 treat both as the same node.
    if let Some(name) = builder.one(&options::NODE_NAME, |text| Some(text.to_lowercase())) {
        return name;
    }
    let name = host.hostname.split('.').next().unwrap_or_default().to_lowercase();
    if !is_label(&name) {
        let shown = crate::text::escape_control(&host.hostname);
        builder.problem(
            OptionOrigin::Default,
            format!("the host name `{shown}` does not begin with a DNS label; set `node-name`"),
        );
    }
    name
}

fn node_ips(builder: &mut Builder<'_>, host: &HostFacts) -> Vec<IpAddr> {
    let given: Vec<(IpAddr, OptionOrigin)> = builder
        .resolved
        .all(&options::NODE_IP)
        .iter()
        .filter_map(|(text, origin)| Some((text.parse().ok()?, origin.clone())))
        .collect();
    for (address, origin) in &given {
        check_ours(builder, host, &options::NODE_IP, *address, origin, false);
    }
    if given.is_empty() {
        // A host without a default route still runs, on loopback only.
        return vec![host.default_address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))];
    }
    given.into_iter().map(|(address, _)| address).collect()
}

fn check_ours(
    builder: &mut Builder<'_>,
    host: &HostFacts,
    spec: &Spec,
    address: IpAddr,
    origin: &OptionOrigin,
    unspecified_is_fine: bool,
) {
    let name = spec.name;
    if address.is_unspecified() {
        if !unspecified_is_fine {
            builder
                .problem(origin.clone(), format!("`{name}` must be an address that others can reach, not `{address}`"));
        }
        return;
    }
    if !host.has(address) {
        let ours: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        builder.problem(
            origin.clone(),
            format!("`{name}`: {address} is not an address of this host, which has {}", ours.join(", ")),
        );
    }
}

fn etcd_user(builder: &mut Builder<'_>) -> Option<User> {
    let name = builder.one(&options::ETCD_USER, |text| Some(text.to_owned()))?;
    let origin = builder.resolved.origin(&options::ETCD_USER);
    let us = nix::unistd::geteuid().as_raw();
    let shown = crate::text::escape_control(&name);
    match User::find(&name) {
        Ok(Some(user)) if user.uid == us => None,
        Ok(Some(_)) if us != 0 => {
            builder.problem(origin, format!("`etcd-user`: only root can run etcd as {shown}; run quorate as root"));
            None
        }
        Ok(Some(user)) => Some(user),
        Ok(None) => {
            let make = "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin";
            builder.problem(
                origin,
                format!("`etcd-user`: there is no user {shown} on this host; create it: {make} {shown}"),
            );
            None
        }
        Err(error) => {
            builder.problem(origin, format!("`etcd-user`: cannot look up the user {shown}: {error}"));
            None
        }
    }
}

fn etcd_args(builder: &mut Builder<'_>) -> Vec<EtcdArg> {
    let mut args: Vec<EtcdArg> = Vec::new();
    for (text, origin) in builder.resolved.all(&options::ETCD_ARG).to_vec() {
        let Some(arg) = pair(&text) else { continue };
        if let Some(instead) = replacement_for(&arg.key) {
            builder.problem(origin, format!("`etcd-arg`: `{}` is controlled by quorate: {instead}", arg.key));
        } else if arg.key.chars().chain(arg.value.chars()).any(char::is_control) {
            let shown = crate::text::escape_control(&arg.key);
            builder.problem(origin, format!("`etcd-arg`: `{shown}` contains a control character"));
        } else if args.iter().any(|other| other.key == arg.key) {
            builder.problem(origin, format!("`etcd-arg`: `{}` is given twice", arg.key));
        } else {
            args.push(arg);
        }
    }
    args
}

fn token(builder: &mut Builder<'_>) -> Option<Secret> {
    let given = builder.one(&options::TOKEN, |text| Some(text.trim().to_owned()));
    let file = builder.path(&options::TOKEN_FILE);
    let (text, origin) = match (given, file) {
        (Some(_), Some(_)) => {
            let origin = builder.resolved.origin(&options::TOKEN_FILE);
            builder.problem(origin, "`token` and `token-file` are both set; keep one");
            return None;
        }
        (Some(token), None) => (token, builder.resolved.origin(&options::TOKEN)),
        (None, Some(path)) => {
            let origin = builder.resolved.origin(&options::TOKEN_FILE);
            match read_token(&path) {
                Ok(text) => (text, origin),
                Err(why) => {
                    builder.problem(origin, format!("`token-file`: {}: {why}", path.display()));
                    return None;
                }
            }
        }
        (None, None) => return None,
    };
    if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        builder.problem(origin, "the token must be one word without white space");
        return None;
    }
    if !pki::token::is_well_formed(&text) {
        builder.problem(origin, "the token is not of the form K10<hash>::server:<password>, nor a plain password");
        return None;
    }
    Some(Secret::new(text))
}

fn read_token(path: &Path) -> Result<String, String> {
    let explained = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "the file does not exist".to_owned(),
        _ => error.to_string(),
    };
    // Checked before it is opened: opening a pipe would block.
    if !fs::metadata(path).map_err(explained)?.is_file() {
        return Err("not a regular file".into());
    }
    let file = fs::File::open(path).map_err(explained)?;
    let mut text = String::new();
    file.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(format!("larger than {MAX_TOKEN_BYTES} bytes, which no token is"));
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::file_values::FileValues;
    use super::super::layers;
    use super::super::raw::RawOptions;
    use super::*;

    fn host() -> HostFacts {
        HostFacts {
            hostname: "Node-1.example.com".into(),
            addresses: vec!["127.0.0.1".parse().unwrap(), "10.0.0.5".parse().unwrap()],
            default_address: Some("10.0.0.5".parse().unwrap()),
            rke1_snapshots: None,
        }
    }

    fn built(options: &[(&'static str, &str)]) -> (Option<Config>, Vec<String>) {
        let mut given = RawOptions::default();
        for (name, text) in options {
            given.options.insert(name, (vec![(*text).to_owned()], OptionOrigin::CommandLine((*name).to_owned())));
        }
        let mut problems = Vec::new();
        let resolved = layers::resolve(&given, &FileValues::default(), &mut problems);
        let config = build(&resolved, &host(), Reader::Server, &mut problems);
        (config, problems.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn defaults_come_from_the_host() {
        let (config, problems) = built(&[]);
        assert_eq!(problems, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!(config.node_name, "node-1");
        assert_eq!(config.node_ip().to_string(), "10.0.0.5");
        assert_eq!(config.etcd.quota_backend_bytes, 8 << 30);
        assert_eq!(config.etcd.heartbeat_millis, None);
    }

    #[test]
    fn a_node_name_is_lowered_as_the_hosts_is() {
        let (config, problems) = built(&[("node-name", "Master-1")]);
        assert_eq!((config.unwrap().node_name.as_str(), problems), ("master-1", Vec::new()));
    }

    #[test]
    fn each_bad_value_is_one_clear_problem() {
        for (options, expected) in [
            (&[("node-name", "No_Label")][..], "DNS label"),
            (&[("node-name", "a.b")], "DNS label"),
            (&[("node-ip", "192.0.2.1")], "192.0.2.1 is not an address of this host, which has 127.0.0.1, 10.0.0.5"),
            (&[("node-ip", "0.0.0.0")], "others can reach"),
            (&[("node-ip", "nope")], "must be an IP address, not `nope`"),
            (&[("etcd-peer-port", "2379")], "`etcd-peer-port` is 2379, which is also `etcd-client-port`"),
            (&[("etcd-client-port", "2380")], "`etcd-client-port` is 2380, which is also `etcd-peer-port`"),
            (&[("etcd-client-port", "0")], "must be a port"),
            (&[("etcd-arg", "data-dir=/x")], "`data-dir` is controlled by quorate"),
            (&[("etcd-arg", "--name=x")], "`name` is controlled by quorate"),
            (&[("etcd-arg", "max-txn-ops")], "must be key=value"),
            (&[("etcd-election-timeout", "300")], "at least five times"),
            (&[("etcd-heartbeat-interval", "500")], "at least five times"),
            (&[("etcd-quota-backend-bytes", "8GB")], "number of bytes"),
            (&[("tls-san", "10.0.0.256")], "DNS name or an IP address"),
            (&[("token", "a b")], "one word"),
            (&[("token-file", "/does/not/exist")], "the file does not exist"),
            (&[("log-format", "xml")], "must be text or json"),
            (&[("cluster-reset-restore-path", "x")], "needs `cluster-reset`"),
            (&[("debug", "maybe")], "true or false"),
        ] {
            let (_, problems) = built(options);
            assert_eq!(problems.len(), 1, "{options:?}: {problems:?}");
            assert!(problems[0].contains(expected), "{options:?}: {problems:?}");
        }
    }

    #[test]
    fn token_texts_do_not_reach_messages_or_debug_output() {
        let (config, problems) = built(&[("token", "hunter2 x")]);
        assert!(!format!("{config:?}{problems:?}").contains("hunter2"));
        let (config, _) = built(&[("token", "hunter2")]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
