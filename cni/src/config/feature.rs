//! What a pod can get beside its interface, and under which names each of it is configured.

use serde_json::Value;

use crate::config::bandwidth::Bandwidth;
use crate::config::firewall::Firewall;
use crate::config::ports::HostPorts;
use crate::config::reader::{Problem, Reader};
use crate::config::source_routing::SourceRouting;
use crate::config::tuning::Tuning;
use crate::mac::Mac;
use crate::role::Role;

/// The features that a configuration and the runtime ask for. `None` asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Ports of the host that lead to the pod.
    pub ports: Option<HostPorts>,
    /// The pod's rates.
    pub bandwidth: Option<Bandwidth>,
    /// Its way through the host's firewall.
    pub firewall: Option<Firewall>,
    /// Settings of its interface and namespace.
    pub tuning: Option<Tuning>,
    /// Routing by its source addresses.
    pub source_routing: Option<SourceRouting>,
}

/// Where a feature's keys are read from.
pub(super) struct Source<'r, 'a> {
    /// The entry.
    pub(super) reader: &'r mut Reader<'a>,
    /// `runtimeConfig` with canonical keys, where the runtime gave one; and its place.
    pub(super) runtime: Option<(&'r Value, String)>,
    /// Under which name the program was called.
    pub(super) role: Role,
    /// Whether this plugin makes the pod's interface.
    pub(super) makes: bool,
    /// The pod's hardware address, where somebody asked for one.
    pub(super) mac: Option<Mac>,
}

impl Features {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads those keys that belong to the role; keys of other plugins stay unknown to the reader.
    pub(super) fn read(source: &mut Source<'_, '_>, problems: &mut Vec<Problem>) -> Self {
        let role = source.role;
        let reads = |feature: Role| role == Role::Main || role == feature;
        Self {
            ports: reads(Role::PortMap).then(|| HostPorts::read(source, problems)).flatten(),
            bandwidth: reads(Role::Bandwidth).then(|| Bandwidth::read(source, problems)).flatten(),
            firewall: reads(Role::Firewall).then(|| Firewall::read(source, problems)).flatten(),
            tuning: reads(Role::Tuning).then(|| Tuning::read(source, problems)).flatten(),
            source_routing: reads(Role::SourceRouting)
                .then(|| SourceRouting::read(source, problems))
                .flatten(),
        }
    }
}
