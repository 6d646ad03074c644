//! What features are made on, and what takes them away.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::attachment::Attachment;
use crate::kernel::link::Link;
use crate::kernel::nft::Trace;
use crate::owner::Owner;
use crate::plan::step::Step;
use crate::plan::tune;

/// The pod's interface, as the features need to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Whose.
    pub owner: Owner,
    /// The network's name.
    pub network: String,
    /// The host end; `None` where the interface has none that this node can see.
    pub host_link: Option<String>,
    /// The bridge that the host end is a port of.
    pub bridge: Option<String>,
    /// The pod's addresses with their prefix.
    pub addresses: Vec<IpNet>,
    /// The networks whose hosts reach the pod without the node in between.
    pub neighbours: Vec<IpNet>,
    /// The MTU of the host end in bytes.
    pub mtu: u32,
    /// The interface in the pod as another plugin left it; `None` where this call makes it.
    pub before: Option<Link>,
    /// What else is known of the pod before it is tuned.
    pub tuned: tune::Before,
}

impl Target {
    /// The interface of a record.
    pub fn of(record: &Attachment) -> Self {
        Self {
            owner: record.owner.clone(),
            network: record.network.clone(),
            host_link: record.host_end(),
            bridge: record.port_of.clone(),
            addresses: record.addresses.iter().map(|ip| IpNet::from(*ip)).collect(),
            neighbours: record.networks.iter().filter(|_| record.port_of.is_some()).copied().collect(),
            mtu: record.mtu,
            ..Self::default()
        }
    }

    /// The addresses alone.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }
}

/// The inverse of a feature's steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unmade {
    /// What goes from nf_tables.
    pub traces: Vec<Trace>,
    /// What goes after that and before the links.
    pub steps: Vec<Step>,
    /// Links of the features' own, which go together with the pod's.
    pub links: Vec<String>,
    /// What goes when nothing of the pod is left.
    pub last: Vec<Step>,
}
