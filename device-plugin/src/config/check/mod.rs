//! Contradictions in a configuration, all at once, and what is only odd.

mod allocate;
mod clash;
mod overlap;
mod selector;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{Check, Config, Health, Resource, Sensor, Span};
use crate::allocate::template;

pub use overlap::{Overlap, overlaps};

/// The longest that a command may take, and that the kubelet waits for PreStartContainer.
const PATIENCE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);
/// A socket's path has 107 bytes; ours are called by at most 27.
const LONGEST_FOLDER: usize = 80;

/// The mistakes found, each with its place.
#[derive(Default)]
struct Mistakes {
    /// The resource that is looked at, as it is put before its mistakes.
    about: String,
    found: Vec<String>,
}

impl Config {
    /// Every contradiction, with its place; none where the configuration is good.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Mistakes::default();
        mistakes.node(self);
        let mut known = BTreeMap::new();
        for (index, resource) in self.resources.iter().enumerate() {
            mistakes.about.clear();
            if let Some(first) = known.insert(resource.name.as_str(), index) {
                let what =
                    format!("has the name `{}` of `resources[{first}]`; put them together", resource.name);
                mistakes.note(&format!("resources[{index}]"), what);
            }
            mistakes.about = format!("`{}`: ", resource.name);
            mistakes.resource(resource);
        }
        mistakes.about.clear();
        mistakes.found.extend(overlap::written(&self.resources));
        mistakes.found.extend(clash::kinds(&self.resources));
        mistakes.found
    }

    /// What works and is hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.resources.is_empty() {
            warnings.push("`resources` is empty: nothing is offered".to_owned());
        }
        for resource in &self.resources {
            warnings.extend(allocate::oddities(resource));
            warnings.extend(selector::oddities(resource));
        }
        warnings.extend(clash::between(&self.resources));
        warnings
    }
}

impl Mistakes {
    fn note(&mut self, at: &str, what: impl AsRef<str>) {
        self.found.push(format!("{}`{at}` {}", self.about, what.as_ref()));
    }

    /// An absolute path that says where it leads, and not the root folder.
    fn path(&mut self, at: &str, path: &Path) {
        if let Err(why) = template::absolute(path.to_string_lossy().into_owned()) {
            self.note(at, format!("is not a path: {why}"));
        }
    }

    /// A path that may hold variables.
    fn path_text(&mut self, at: &str, text: &str, known: &[&str]) {
        let pieces = match template::pieces(text, known) {
            Ok(pieces) => pieces,
            Err(why) => return self.note(at, format!("is off: {why}")),
        };
        // One that begins with a variable is judged when the device is there.
        if matches!(pieces.first(), Some(template::Piece::Variable(_))) {
            return;
        }
        if let Err(why) = template::absolute(text.to_owned()) {
            self.note(at, format!("is not a path: {why}"));
        }
    }

    fn text(&mut self, at: &str, text: &str, known: &[&str]) {
        if let Err(why) = template::pieces(text, known).and_then(|_| template::plain(text.to_owned())) {
            self.note(at, format!("is off: {why}"));
        }
    }

    fn node(&mut self, config: &Config) {
        let folders = [
            ("kubelet.devicePlugins", &config.kubelet.device_plugins),
            ("kubelet.pluginsRegistry", &config.kubelet.plugins_registry),
        ];
        for (at, folder) in folders {
            let length = folder.as_os_str().len();
            if length > LONGEST_FOLDER {
                let what =
                    format!("has {length} bytes, so that no socket fits in it; at most {LONGEST_FOLDER} do");
                self.note(at, what);
            }
            self.path(at, folder);
        }
        self.path("kubelet.podResources", &config.kubelet.pod_resources);
        self.path("host.dev", &config.host.dev);
        self.path("host.sys", &config.host.sys);
        self.path("host.cdi", &config.host.cdi);
        if !config.host.root.is_absolute() {
            self.note("host.root", format!("({}) is not absolute", config.host.root.display()));
        }
        self.path("http.socket", &config.http.socket);
        if let Some(path) = &config.feature_file {
            self.path("featureFile", path);
        }
        self.at_most("discovery.debounce", config.discovery.debounce, SECOND);
        self.at_least_a_second("discovery.rescan", config.discovery.rescan);
        self.at_least_a_second("discovery.forgetAfter", config.discovery.forget_after);
    }

    fn at_most(&mut self, at: &str, span: Span, most: Duration) {
        if span.duration() > most {
            self.note(at, format!("({span}) is longer than {}s", most.as_secs()));
        }
    }

    fn at_least_a_second(&mut self, at: &str, span: Span) {
        if span.duration() < SECOND {
            self.note(at, format!("({span}) is shorter than 1s"));
        }
    }

    fn resource(&mut self, resource: &Resource) {
        if !(1..=10_000).contains(&resource.replicas) {
            self.note("replicas", format!("is {}; write 1 to 10000", resource.replicas));
        }
        self.selectors(resource);
        self.health(&resource.health);
        self.allocate(resource);
    }

    fn health(&mut self, health: &Health) {
        for (at, count) in [("health.failures", health.failures), ("health.successes", health.successes)] {
            if count == 0 {
                self.note(at, "is 0; write at least 1");
            }
        }
        self.at_least_a_second("health.every", health.every);
        let mut longest = Duration::ZERO;
        for (index, check) in health.checks.iter().enumerate() {
            let at = format!("health.checks[{index}]");
            match check {
                Check::Exists(path) => {
                    self.path_text(&format!("{at}.exists"), &path.to_string_lossy(), template::HEALTH);
                }
                Check::Attribute { name, .. } => self.attribute(&format!("{at}.attribute.name"), name),
                Check::Command { run, timeout } => {
                    self.command(&format!("{at}.command"), run, *timeout, template::HEALTH);
                    longest = longest.saturating_add(timeout.duration());
                }
                Check::Sensor(sensor) => self.sensor(&format!("{at}.sensor"), sensor),
            }
        }
        if health.before_start && longest >= PATIENCE {
            let what = format!("lets the kubelet wait {}s, and it gives up after 30s", longest.as_secs());
            self.note("health.beforeStart", what);
        }
    }

    /// A program with its arguments. `known` are the variables that they may hold.
    fn command(&mut self, at: &str, run: &[String], timeout: Span, known: &[&str]) {
        match run.first() {
            None => self.note(&format!("{at}.run"), "is empty; write the program and its arguments"),
            Some(program) if program.is_empty() || (program.contains('/') && !program.starts_with('/')) => {
                self.note(
                    &format!("{at}.run"),
                    format!("has `{program}`, which is no absolute path and no name in PATH"),
                );
            }
            Some(_) => {}
        }
        for (index, argument) in run.iter().enumerate() {
            let place = format!("{at}.run[{index}]");
            if argument.contains('\0') {
                self.note(&place, "has a NUL");
            }
            // A source's command has no variables, and `${` is then its own business.
            if let Err(why) = template::pieces(argument, known)
                && !known.is_empty()
            {
                self.note(&place, format!("is off: {why}"));
            }
        }
        if timeout.duration().is_zero() {
            self.note(&format!("{at}.timeout"), "is 0s; write up to 30s");
        }
        self.at_most(&format!("{at}.timeout"), timeout, PATIENCE);
    }

    /// An attribute's path below the device's folder in sysfs.
    fn attribute(&mut self, at: &str, name: &str) {
        let leads_away = name.split('/').any(|part| part.is_empty() || part == "..");
        if leads_away {
            self.note(
                at,
                format!("(`{}`) is no path below the device's folder in sysfs", name.escape_debug()),
            );
        }
    }

    fn sensor(&mut self, at: &str, sensor: &Sensor) {
        let (limit, most) = match sensor {
            Sensor::Temperature { below, .. } => (*below, 1000.0),
            Sensor::Load { below } => (*below, 1_000_000.0),
            Sensor::Memory { above } | Sensor::Disk { above, .. } | Sensor::Battery { above } => {
                (*above, 100.0)
            }
        };
        if !(0.0..=most).contains(&limit) {
            self.note(at, format!("has the limit {limit}; write 0 to {most}"));
        }
        if let Sensor::Disk { path, .. } = sensor
            && path.as_path() != Path::new("/")
        {
            self.path(&format!("{at}.path"), path);
        }
    }
}
