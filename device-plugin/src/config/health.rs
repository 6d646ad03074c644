//! When a device is healthy.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Glob, Span};

/// When a device is healthy. One that is not there never is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Health {
    /// All of these have to hold.
    pub checks: Vec<Check>,
    /// So many failures in a row make a healthy device unhealthy; one that vanishes is unhealthy at once.
    #[schemars(range(min = 1))]
    pub failures: u32,
    /// So many successes in a row make an unhealthy device healthy again.
    #[schemars(range(min = 1))]
    pub successes: u32,
    /// How often the checks run: from 1s.
    pub every: Span,
    /// The checks are made before each start of a container, too (PreStartContainer), for which the kubelet
    /// waits 30s.
    pub before_start: bool,
}

/// One condition. Paths and arguments may hold variables: `${id}` `${path}` (of the first node) `${name}`
/// `${resource}` and `${attribute.NAME}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Check {
    /// The path is there.
    Exists(PathBuf),
    /// An attribute of the device in sysfs matches.
    Attribute {
        /// Its path below the device's folder in sysfs.
        name: String,
        /// What it has to be.
        matches: Glob,
    },
    /// A command ends with 0.
    Command {
        /// The program with its arguments; no shell.
        run: Vec<String>,
        /// How long it may take: at most 30s.
        #[serde(default = "soon")]
        timeout: Span,
    },
    /// A sensor of the node is within its limits.
    Sensor(Sensor),
}

/// A sensor with its limits; the resource's devices are healthy within them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Sensor {
    /// The hottest of the sensors with such a label, in °C.
    Temperature {
        /// The label, as `doctor` lists them.
        #[serde(default)]
        label: Option<Glob>,
        /// Unhealthy above this.
        below: f64,
    },
    /// The load of the last minute for each CPU.
    Load {
        /// Unhealthy above this.
        below: f64,
    },
    /// The part of memory that is available, in percent.
    Memory {
        /// Unhealthy below this.
        above: f64,
    },
    /// The part of a filesystem that is free, in percent.
    Disk {
        /// A path on it.
        path: PathBuf,
        /// Unhealthy below this.
        above: f64,
    },
    /// The charge of the battery, in percent; without a battery, or on mains, it holds.
    Battery {
        /// Unhealthy below this.
        above: f64,
    },
}

impl Default for Health {
    fn default() -> Self {
        Self { checks: Vec::new(), failures: 1, successes: 1, every: Span::seconds(30), before_start: false }
    }
}

fn soon() -> Span {
    Span::seconds(5)
}
