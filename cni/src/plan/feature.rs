//! What a pod gets beside its interface, planned the same for an interface that this call made and for one
//! that another plugin made.

use std::net::IpAddr;

use ipnet::IpNet;
use node::Result;

use crate::attachment::Attachment;
use crate::config::feature::Features;
use crate::kernel::link::Link;
use crate::kernel::nft::{Filter, Trace};
use crate::owner::Owner;
use crate::plan::firewall;
use crate::plan::step::Step;

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
    /// The interface in the pod as another plugin left it; `None` where this call makes it.
    pub before: Option<Link>,
}

impl Target {
    /// The addresses alone.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }
}

/// Refuses what this interface cannot have, before anything is made.
pub fn judge(features: &Features, target: &Target) -> Result<()> {
    features.firewall.as_ref().map_or(Ok(()), |wanted| firewall::judge(wanted, target))
}

/// The steps that give the pod what is asked for. Those that need nf_tables are given as filters, for the
/// caller to put in together with its own.
pub fn steps(features: &Features, target: &Target) -> (Vec<Step>, Vec<Filter>) {
    let mut filters = Vec::new();
    filters.extend(features.firewall.as_ref().map(|wanted| firewall::filter(wanted, target)));
    (Vec::new(), filters)
}

/// Writes into the record what [`unmake`] needs.
pub fn note(features: &Features, record: &mut Attachment) {
    record.ports.clone_from(&features.ports);
    record.bandwidth = features.bandwidth;
    record.firewall.clone_from(&features.firewall);
    record.source_routing = features.source_routing;
}

/// What takes the features of a record back.
pub fn unmake(record: &Attachment) -> Unmade {
    let mut unmade = Unmade::default();
    unmade.traces.extend(firewall::unmake(record));
    unmade
}

/// The inverse of [`steps`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unmade {
    /// What goes from nf_tables.
    pub traces: Vec<Trace>,
    /// What goes after that and before the links.
    pub steps: Vec<Step>,
    /// Links of the features' own, which go together with the pod's.
    pub links: Vec<String>,
}
