//! Settings of the pod's interface and namespace: the keys of the reference's tuning plugin.

use serde::{Deserialize, Serialize};

use crate::config::feature::Source;
use crate::config::reader::Problem;
use crate::mac::Mac;

/// What is set. `None` and an empty list leave things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// `sysctl`: name below /proc/sys and value, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctl: Vec<(String, String)>,
    /// The hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether every frame is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promiscuous: Option<bool>,
    /// Whether every multicast frame is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_multicast: Option<bool>,
    /// `txQLen`, packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<u32>,
}

impl Tuning {
    /// `None` where nothing is asked for.
    pub(super) fn read(_source: &mut Source<'_, '_>, _problems: &mut Vec<Problem>) -> Option<Self> {
        None
    }
}
