//! The configuration: which devices of the node are which resources. All of it is checked when it is read,
//! so that what comes after never meets a wrong name or a contradiction.

mod allocate;
mod check;
mod globs;
mod health;
mod names;
mod parse;
mod resource;
mod selector;
mod words;

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use allocate::{Allocate, Cdi, ExtraDevice, Mount, NodeOptions};
pub use check::{Overlap, overlaps};
pub use health::{Check, Health, Sensor};
pub use names::{CdiKind, ResourceName};
pub(crate) use parse::nearest;
pub use parse::read;
pub use resource::{Preference, Resource};
pub use selector::{
    BlockSelector, CharSelector, CommandSelector, Counted, FileKind, FileSelector, GroupSelector, Measure,
    Member, NetSelector, ParentMatch, PathSelector, PciClass, PciSelector, Selector, SensorSelector,
    SysfsSelector, UsbSelector,
};
pub use words::{FileMode, Glob, Hex, Pattern, Permissions, Quantity, Span};

/// Where the configuration is unless `--config` says otherwise.
pub const PATH: &str = "/etc/nodeplug/device-plugin.yaml";

/// What the daemon offers, and where it finds things.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "nodeplug-device-plugin: the node's resources")]
pub struct Config {
    /// Where the kubelet's sockets are, and how it learns of a resource.
    pub kubelet: Kubelet,
    /// Where the node's devices are seen.
    pub host: Host,
    /// How changes of devices are noticed.
    pub discovery: Discovery,
    /// Metrics and health over HTTP.
    pub http: Http,
    /// A file of labels for node-feature-discovery's local source; none: no file.
    pub feature_file: Option<PathBuf>,
    /// What is offered.
    pub resources: Vec<Resource>,
}

/// The kubelet's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubelet {
    /// The folder of kubelet.sock. The kubelet has it compiled in; `--root-dir` does not move it.
    pub device_plugins: PathBuf,
    /// The folder of the plugin watcher, below the kubelet's `--root-dir`.
    pub plugins_registry: PathBuf,
    /// The socket that tells who holds a device. What is not there is not asked.
    pub pod_resources: PathBuf,
    /// How the kubelet learns of a resource.
    pub registration: Registration,
}

/// How the kubelet learns of a resource. Never both ways for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// By a call on kubelet.sock: within milliseconds.
    #[default]
    Direct,
    /// By a socket in `pluginsRegistry`, which the kubelet looks at once a second.
    Watcher,
}

/// Where the node's files are seen; other folders serve containers and tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Host {
    /// The node's /dev as this process sees it. What pods are given is named as the node sees it: below /dev.
    pub dev: PathBuf,
    /// The node's /sys as this process sees it.
    pub sys: PathBuf,
    /// Where CDI specifications are written: the folder that the container runtime reads.
    pub cdi: PathBuf,
    /// The rest of the node's files as this process sees it, for paths and mounts from elsewhere than /dev and /sys.
    pub root: PathBuf,
}

/// How changes of devices are noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Discovery {
    /// How long a burst of events may go on before it is looked at, from its first event: 0s to 1s.
    pub debounce: Span,
    /// How often everything is looked at without any event, from 1s; a tenth of it is added at random.
    pub rescan: Span,
    /// How long a device that is gone stays listed as unhealthy before it may leave, from 1s: by then no allocation of it
    /// can be on its way. It leaves when the kubelet says that no pod holds it.
    pub forget_after: Span,
}

/// Metrics and health over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Http {
    /// Address and port of /metrics, /healthz and /readyz; none: only the socket.
    pub listen: Option<SocketAddr>,
    /// The Unix socket of the same, which `wait-registered` asks.
    pub socket: PathBuf,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            device_plugins: PathBuf::from("/var/lib/kubelet/device-plugins"),
            plugins_registry: PathBuf::from("/var/lib/kubelet/plugins_registry"),
            pod_resources: PathBuf::from("/var/lib/kubelet/pod-resources/kubelet.sock"),
            registration: Registration::default(),
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self {
            dev: PathBuf::from("/dev"),
            sys: PathBuf::from("/sys"),
            cdi: PathBuf::from("/var/run/cdi"),
            root: PathBuf::from("/"),
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self { debounce: Span::millis(2), rescan: Span::seconds(60), forget_after: Span::seconds(60) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: None, socket: PathBuf::from("/run/nodeplug/device-plugin.sock") }
    }
}

/// The JSON schema (2020-12) of the file, for editors. It is made of the types by a test, which fails where they say
/// something else: a daemon has no use for what makes it.
pub const SCHEMA: &str = include_str!("../../tests/golden/config-schema.json");

#[cfg(test)]
mod tests;
