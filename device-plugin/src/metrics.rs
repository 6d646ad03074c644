//! What the daemon counts, in Prometheus' terms.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::config::ResourceName;

type Label = (&'static str, String);
type Counters<const N: usize> = Family<[Label; N], Counter>;
type Gauges<const N: usize> = Family<[Label; N], Gauge>;
type Histograms = Family<[Label; 1], Histogram>;

/// Seconds: an allocation takes tens of microseconds; a look by commands takes seconds.
const BUCKETS: [f64; 9] = [0.000_05, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.1, 1.0, 10.0];

/// All that is counted. Every name begins with `nodeplug_device_plugin_`.
pub struct Metrics {
    registry: Registry,
    devices: Gauges<2>,
    allocations: Counters<2>,
    allocate_duration: Histograms,
    registrations: Counters<3>,
    stream_connected: Gauges<1>,
    list_updates: Counters<1>,
    list_bytes: Gauges<1>,
    discovery_duration: Histograms,
    in_use: Gauges<1>,
    uevents: Counter,
    config_reloads: Counters<1>,
    config_good: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn histograms() -> Histograms {
    Histograms::new_with_constructor(|| Histogram::new(BUCKETS))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("nodeplug_device_plugin"),
            devices: Gauges::default(),
            allocations: Counters::default(),
            allocate_duration: histograms(),
            registrations: Counters::default(),
            stream_connected: Gauges::default(),
            list_updates: Counters::default(),
            list_bytes: Gauges::default(),
            discovery_duration: histograms(),
            in_use: Gauges::default(),
            uevents: Counter::default(),
            config_reloads: Counters::default(),
            config_good: Gauge::default(),
        };
        metrics.describe();
        metrics
    }
}

impl Metrics {
    fn describe(&mut self) {
        let to = &mut self.registry;
        to.register("devices", "Devices that the kubelet knows, by health", self.devices.clone());
        to.register("allocations", "Allocations, by their result", self.allocations.clone());
        to.register("allocate_duration_seconds", "How long allocations took", self.allocate_duration.clone());
        to.register("registrations", "Registrations, by their reason and result", self.registrations.clone());
        to.register("stream_connected", "1 while the kubelet listens", self.stream_connected.clone());
        to.register("list_updates", "Lists that were sent", self.list_updates.clone());
        to.register("list_bytes", "Size of the list; the kubelet takes 4 MiB", self.list_bytes.clone());
        to.register("discovery_duration_seconds", "How long looks took", self.discovery_duration.clone());
        to.register("in_use", "Devices that pods hold, where the kubelet tells", self.in_use.clone());
        to.register("uevents", "Announcements of the kernel", self.uevents.clone());
        to.register(
            "config_reloads",
            "Configurations that were read, by their result",
            self.config_reloads.clone(),
        );
        to.register("config_good", "1 while the file is what is in force", self.config_good.clone());
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The kubelet knows so many devices by now.
    pub fn listed(&self, resource: &ResourceName, healthy: usize, unhealthy: usize, bytes: usize) {
        for (health, count) in [("healthy", healthy), ("unhealthy", unhealthy)] {
            let labels = [of(resource), ("health", health.to_owned())];
            self.devices.get_or_create(&labels).set(whole(count));
        }
        self.list_bytes.get_or_create(&[of(resource)]).set(whole(bytes));
    }

    /// An allocation is done.
    pub fn allocated(&self, resource: &ResourceName, fine: bool, took: Duration) {
        self.allocations.get_or_create(&[of(resource), result(fine)]).inc();
        self.allocate_duration.get_or_create(&[of(resource)]).observe(took.as_secs_f64());
    }

    /// A registration is done.
    pub fn registered(&self, resource: &ResourceName, reason: &str, fine: bool) {
        self.registrations.get_or_create(&[of(resource), ("reason", reason.to_owned()), result(fine)]).inc();
    }

    /// The kubelet listens, or does so no longer.
    pub fn streaming(&self, resource: &ResourceName, open: bool) {
        self.stream_connected.get_or_create(&[of(resource)]).set(i64::from(open));
    }

    /// A list is on its way.
    pub fn sent(&self, resource: &ResourceName) {
        self.list_updates.get_or_create(&[of(resource)]).inc();
    }

    /// A look is done.
    pub fn looked(&self, resource: &ResourceName, took: Duration) {
        self.discovery_duration.get_or_create(&[of(resource)]).observe(took.as_secs_f64());
    }

    /// Pods hold so many devices.
    pub fn held(&self, resource: &ResourceName, count: usize) {
        self.in_use.get_or_create(&[of(resource)]).set(whole(count));
    }

    /// So many announcements more.
    pub fn announced(&self, count: u64) {
        self.uevents.inc_by(count);
    }

    /// A configuration was read.
    pub fn reloaded(&self, fine: bool) {
        self.config_reloads.get_or_create(&[result(fine)]).inc();
        self.config_good.set(i64::from(fine));
    }

    /// A resource is not offered any more.
    pub fn forget(&self, resource: &ResourceName) {
        for health in ["healthy", "unhealthy"] {
            self.devices.remove(&[of(resource), ("health", health.to_owned())]);
        }
        for gauges in [&self.stream_connected, &self.list_bytes, &self.in_use] {
            gauges.remove(&[of(resource)]);
        }
    }
}

fn of(resource: &ResourceName) -> Label {
    ("resource", resource.as_str().to_owned())
}

fn result(fine: bool) -> Label {
    ("result", if fine { "ok" } else { "error" }.to_owned())
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told_and_what_is_not_offered_is_forgotten() {
        let (metrics, name) = (Metrics::default(), "example.com/x".parse().unwrap());
        metrics.listed(&name, 2, 1, 99);
        metrics.allocated(&name, true, Duration::from_micros(80));
        let text = metrics.text();
        for line in [
            "nodeplug_device_plugin_devices{resource=\"example.com/x\",health=\"healthy\"} 2",
            "nodeplug_device_plugin_allocations_total{resource=\"example.com/x\",result=\"ok\"} 1",
            "nodeplug_device_plugin_allocate_duration_seconds_count{resource=\"example.com/x\"} 1",
            "nodeplug_device_plugin_list_bytes{resource=\"example.com/x\"} 99",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        metrics.forget(&name);
        assert!(!metrics.text().contains("nodeplug_device_plugin_devices{"));
    }
}
