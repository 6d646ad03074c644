//! Host ports: the keys of the reference's portmap plugin and the runtime's `portMappings`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::feature::Source;
use crate::config::reader::Problem;

/// The ports of the host that lead to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPorts {
    /// Each port once.
    pub mappings: Vec<Mapping>,
    /// `snat`: whether the pod and its neighbours reach it by the host's port, and the host by 127.0.0.1,
    /// with the host's address as their source.
    pub snat: bool,
    /// `masqAll`: whether every connection comes with the host's address.
    pub masquerade_all: bool,
    /// `markMasqBit`: the bit of the packet's mark that asks for masquerade, 0 to 31.
    pub mark_bit: u32,
}

/// One port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Only packets to this address of the host; `None` is every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "their names say it")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl HostPorts {
    /// `None` where no port is asked for.
    pub(super) fn read(_source: &mut Source<'_, '_>, _problems: &mut Vec<Problem>) -> Option<Self> {
        None
    }
}
