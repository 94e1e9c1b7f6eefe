//! `/metrics`: OpenMetrics text for Prometheus. The names are documented in `docs/metrics.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpStream;

use crate::clock;
use crate::control::client::request;
use crate::control::routes::status;
use crate::etcd::child::State as ChildState;
use crate::etcd::output;
use crate::etcd::settings::Addresses;
use crate::logging::backlog;
use crate::plan::condition::Condition;
use crate::plan::health::StorageFacts;
use crate::recovery::drill::record::DrillRecord;
use crate::server::condition;
use crate::server::health::Health;
use crate::server::state::ServerState;

/// The timeout of etcd's metrics page, which takes milliseconds.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);

type Labels = [(&'static str, String); 1];

pub async fn metrics(State(server): State<Arc<ServerState>>) -> Response {
    let wal_fsync = wal_fsync_p99(&server).await;
    let sample = server.disk_sampler.sample(&server.context.data).await;
    let mut text = String::new();
    match encode(&mut text, &registry(&server, wal_fsync, &sample.drills)) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn registry(server: &ServerState, wal_fsync: Option<f64>, drills_done: &DrillRecord) -> Registry {
    let mut registry = Registry::with_prefix("quorate");
    let child = server.context.child.borrow().clone();
    build_info(&mut registry, server);

    let states = Family::<Labels, Gauge>::default();
    for state in ChildState::ALL {
        states.get_or_create(&[("state", state.word().to_owned())]).set(i64::from(state == child.state));
    }
    registry.register("child_state", "1 for the present state of the etcd process", states);
    counter(&mut registry, "child_restarts", "Starts of etcd after the first", child.restarts());
    if let Some(after) = child.ready_after {
        let help = "Duration of the last start of etcd until it was ready";
        gauge(&mut registry, "child_ready", help, Some(Unit::Seconds), after.as_secs_f64());
    }
    counter(
        &mut registry,
        "etcd_log_lines_dropped",
        "Lines of etcd's log that were dropped because there were too many",
        output::DROPPED_LINES.load(Ordering::Relaxed),
    );
    counter(
        &mut registry,
        "log_lines_dropped",
        "Lines of the log that were dropped because standard error was blocked",
        backlog::dropped_lines(),
    );
    let health = server.context.health.borrow().clone();
    let condition = condition::assess_now(server).condition;
    member(&mut registry, &health, condition != Condition::Unhealthy);
    let conditions = Family::<Labels, Gauge>::default();
    for each in Condition::ALL {
        conditions.get_or_create(&[("condition", each.word().to_owned())]).set(i64::from(each == condition));
    }
    registry.register("health", "1 for the present condition of the server", conditions);
    disks(&mut registry, &server.storage.borrow());
    if let Some(seconds) = wal_fsync {
        let help = "99 of 100 fsyncs of etcd's log took at most this long, since its start";
        gauge(&mut registry, "etcd_wal_fsync_p99", help, Some(Unit::Seconds), seconds);
    }
    snapshots(&mut registry, server);
    drills(&mut registry, drills_done);
    let days = Family::<Labels, Gauge>::default();
    for certificate in status::certificates(server) {
        days.get_or_create(&[("name", certificate.name)]).set(i64::try_from(certificate.days_left).unwrap_or(i64::MAX));
    }
    registry.register("certificate_days_left", "Whole days until the certificate expires", days);
    registry
}

fn build_info(registry: &mut Registry, server: &ServerState) {
    let info = Family::<[(&'static str, String); 2], Gauge>::default();
    let labels =
        [("version", env!("CARGO_PKG_VERSION").to_owned()), ("etcd", server.context.binary.version.to_string())];
    info.get_or_create(&labels).set(1);
    registry.register("build_info", "Versions, as labels", info);
}

fn member(registry: &mut Registry, health: &Health, is_healthy: bool) {
    let help = "1 if clients can be served and their writes are kept: the condition is not unhealthy";
    gauge(registry, "etcd_healthy", help, None, f64::from(u8::from(is_healthy)));
    let has_leader = matches!(health, Health::Healthy(facts) if facts.leader_id != "0");
    gauge(registry, "etcd_has_leader", "1 if the cluster has a leader", None, f64::from(u8::from(has_leader)));
    let alarms = Family::<Labels, Gauge>::default();
    if let Health::Healthy(facts) = health {
        for name in ["NOSPACE", "CORRUPT"] {
            let is_raised = facts.alarms.iter().any(|alarm| alarm == name);
            alarms.get_or_create(&[("alarm", name.to_owned())]).set(i64::from(is_raised));
        }
    }
    registry.register("etcd_alarm", "1 if any member has raised this alarm", alarms);
    let Health::Healthy(facts) = health else { return };
    #[allow(clippy::cast_precision_loss, reason = "Prometheus counts in floats; databases are below 2^53 bytes")]
    for (name, help, value) in [
        ("etcd_db_size", "Size of the database file", facts.db_size as f64),
        ("etcd_db_in_use", "Bytes of the database file in use", facts.db_in_use as f64),
    ] {
        gauge(registry, name, help, Some(Unit::Bytes), value);
    }
}

/// The free space under etcd's data and under the snapshots.
fn disks(registry: &mut Registry, storage: &StorageFacts) {
    let (free, size, inodes, read_only) = (
        Family::<Labels, Gauge<f64, AtomicU64>>::default(),
        Family::<Labels, Gauge<f64, AtomicU64>>::default(),
        Family::<Labels, Gauge<f64, AtomicU64>>::default(),
        Family::<Labels, Gauge>::default(),
    );
    for (name, disk) in [("data", &storage.data_disk), ("snapshots", &storage.snapshot_disk)] {
        let Some(usage) = disk.as_ref().and_then(|disk| disk.usage) else { continue };
        let labels = [("disk", name.to_owned())];
        #[allow(clippy::cast_precision_loss, reason = "Prometheus counts in floats; disks are below 2^53 bytes")]
        {
            free.get_or_create(&labels).set(usage.free as f64);
            size.get_or_create(&labels).set(usage.size as f64);
            if let Some(count) = usage.free_inodes {
                inodes.get_or_create(&labels).set(count as f64);
            }
        }
        read_only.get_or_create(&labels).set(i64::from(usage.is_read_only));
    }
    registry.register_with_unit("disk_free", "Bytes that can still be written there", Unit::Bytes, free);
    registry.register_with_unit("disk_size", "Size of the file system there", Unit::Bytes, size);
    registry.register("disk_free_inodes", "Files that can still be created there", inodes);
    registry.register("disk_read_only", "1 if the file system there is read-only", read_only);
}

fn snapshots(registry: &mut Registry, server: &ServerState) {
    let help = "How long snapshots took to be saved, by whether they were";
    for name in ["etcd_snapshot_save_duration", "etcd_snapshot_save_local_duration"] {
        registry.register_with_unit(name, help, Unit::Seconds, server.snapshots.save_seconds.clone());
    }
    let uploads = &server.snapshots.uploads;
    let help = "How long uploads of snapshots to object storage took, by whether they succeeded";
    registry.register_with_unit("etcd_snapshot_save_s3_duration", help, Unit::Seconds, uploads.seconds.clone());
    let history = server.snapshots.history();
    #[allow(clippy::cast_precision_loss, reason = "Prometheus counts in floats; all of these are below 2^53")]
    let mut number = |name: &str, help: &str, unit: Option<Unit>, value: u64| {
        gauge(registry, name, help, unit, value as f64);
    };
    number(
        "etcd_snapshot_consecutive_failures",
        "Snapshots that failed since the last one that was saved",
        None,
        history.failures,
    );
    let seconds = |text: &str| clock::parse_rfc3339(text).map(clock::unix_seconds);
    let pending = uploads.present();
    number("etcd_snapshot_uploads_pending", "Snapshots that are still to be uploaded", None, pending.len() as u64);
    let failures = pending.iter().map(|pending| u64::from(pending.failures)).max().unwrap_or(0);
    number(
        "etcd_snapshot_upload_consecutive_failures",
        "Attempts that failed to upload the snapshot that failed most often",
        None,
        failures,
    );
    if let Some(last) = uploads.last() {
        if let Some(at) = seconds(&last.manifest.created) {
            number(
                "etcd_snapshot_last_uploaded_time",
                "When the newest snapshot was taken that is in object storage, since 1970",
                Some(Unit::Seconds),
                at,
            );
        }
        number(
            "etcd_snapshot_last_uploaded_size",
            "Size of the newest snapshot that is in object storage",
            Some(Unit::Bytes),
            last.manifest.size,
        );
    }
    if let Some(at) = history.last_verified.as_deref().and_then(seconds) {
        number(
            "etcd_snapshot_last_verified_time",
            "When a snapshot was verified last and found good, since 1970",
            Some(Unit::Seconds),
            at,
        );
    }
    let Some(last) = history.last_good else { return };
    if let Some(at) = seconds(&last.created) {
        number(
            "etcd_snapshot_last_good_time",
            "When the newest good snapshot was taken, since 1970",
            Some(Unit::Seconds),
            at,
        );
    }
    number(
        "etcd_snapshot_last_good_size",
        "Size of the newest good snapshot as it is stored",
        Some(Unit::Bytes),
        last.size,
    );
    let revision = u64::try_from(last.revision).unwrap_or(0);
    number("etcd_snapshot_last_good_revision", "Revision of the newest good snapshot", None, revision);
}

fn drills(registry: &mut Registry, record: &DrillRecord) {
    counter(registry, "snapshot_drill_failures", "Rehearsals of a restore that failed", record.failures);
    if let Some(at) = record.last_success.as_deref().and_then(clock::parse_rfc3339) {
        let help = "When a rehearsal of a restore passed last, since 1970";
        #[allow(clippy::cast_precision_loss, reason = "Prometheus counts in floats; seconds are below 2^53")]
        let seconds = clock::unix_seconds(at) as f64;
        gauge(registry, "snapshot_drill_last_success_timestamp", help, Some(Unit::Seconds), seconds);
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, gauge),
        None => registry.register(name, help, gauge),
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

/// From the histogram on etcd's own metrics page.
async fn wal_fsync_p99(server: &ServerState) -> Option<f64> {
    let address = Addresses::of(&server.context.config).metrics.first().copied()?;
    let stream = tokio::time::timeout(SCRAPE_TIMEOUT, TcpStream::connect(address)).await.ok()?.ok()?;
    let (status, body) = request(stream, "/metrics", SCRAPE_TIMEOUT).await.ok()?;
    (status == StatusCode::OK)
        .then(|| quantile_99(&String::from_utf8_lossy(&body), "etcd_disk_wal_fsync_duration_seconds"))?
}

/// The upper bound of the bucket that the 99th percentile falls into; `None` without observations.
fn quantile_99(page: &str, histogram: &str) -> Option<f64> {
    let prefix = format!("{histogram}_bucket{{le=\"");
    let buckets: Vec<(f64, f64)> = page
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "))
        .filter_map(|(bound, count)| Some((bound.parse().ok()?, count.parse().ok()?)))
        .collect();
    let total = buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
    buckets.iter().find(|(_, count)| *count >= 0.99 * total).map(|(bound, _)| *bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_read_from_the_buckets() {
        let page = "# HELP x\nx_bucket{le=\"0.001\"} 10\nx_bucket{le=\"0.002\"} 99\nx_bucket{le=\"0.004\"} 100\nx_bucket{le=\"+Inf\"} 100\nx_sum 1\n";
        assert_eq!(quantile_99(page, "x"), Some(0.002));
        assert_eq!(quantile_99("", "x"), None);
        assert_eq!(quantile_99("x_bucket{le=\"+Inf\"} 0\n", "x"), None);
    }
}
