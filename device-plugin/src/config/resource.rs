//! One resource: which devices it has, and how they are shared, watched and handed out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Allocate, Health, ResourceName, Selector};

/// A resource of the node, as a pod names it in its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource {
    /// `domain/name`, as in `limits: {example.com/serial: 1}`.
    pub name: ResourceName,
    /// Where its devices come from; a device that several find is one.
    #[schemars(length(min = 1))]
    pub devices: Vec<Selector>,
    /// How many pods may have each device at a time: 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default = "one")]
    pub replicas: u32,
    /// When a device is healthy.
    #[serde(default)]
    pub health: Health,
    /// What a container with a device gets.
    #[serde(default)]
    pub allocate: Allocate,
    /// Which devices are best together; none: the kubelet chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<Preference>,
}

/// Which devices are best together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Preference {
    /// As few devices as possible: replicas of one that is in use already come first.
    Packed,
    /// As many devices as possible: replicas of the least used one come first.
    Spread,
    /// All near one NUMA node, where that can be.
    Numa,
    /// All below one parent (a hub, a PCI bridge), where that can be.
    SameParent,
}

fn one() -> u32 {
    1
}
