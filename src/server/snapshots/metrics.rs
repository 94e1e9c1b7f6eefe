//! How long saves and uploads take, for the metrics.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// `status` of a save: success or error, as in k3s.
pub type SaveLabels = [(&'static str, &'static str); 1];

pub(crate) fn histogram() -> Histogram {
    // The buckets of k3s: 8 ms, doubled 14 times.
    Histogram::new(exponential_buckets(0.008, 2.0, 15))
}
