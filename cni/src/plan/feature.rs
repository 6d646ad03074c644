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
use crate::plan::step::Step;
use crate::plan::{firewall, ports, shape, source_routing, tune};
use crate::result::Interface;

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

/// Refuses what this interface cannot have, before anything is made.
pub fn judge(features: &Features, target: &Target) -> Result<()> {
    features.bandwidth.iter().try_for_each(|bandwidth| shape::judge(bandwidth, target))?;
    features.tuning.iter().try_for_each(|tuning| tune::judge(tuning, target))?;
    features.firewall.iter().try_for_each(|wanted| firewall::judge(wanted, target))?;
    ports::judge(features, target)
}

/// The steps that come before anything is made for the pod: what another pod may have already.
pub fn first(features: &Features, target: &Target) -> Vec<Step> {
    ports::first(features, target)
}

/// The steps that are cheapest while the host end is down: the caller puts them before its start. Where
/// another plugin started it, they come first.
pub fn steps_before_up(features: &Features, target: &Target) -> Vec<Step> {
    features.bandwidth.as_ref().map_or_else(Vec::new, |bandwidth| shape::steps(bandwidth, target))
}

/// The links of the features' own, as the result names them.
pub fn links(features: &Features, target: &Target) -> Vec<Interface> {
    let ifb = features.bandwidth.and_then(|b| b.egress).map(|_| Interface {
        name: shape::ifb(&target.network, &target.owner),
        mac: Some(shape::ifb_mac(&target.network, &target.owner).to_string()),
        ..Interface::default()
    });
    ifb.into_iter().collect()
}

/// The steps that give the pod what is asked for. Those that need nf_tables are given as filters, for the
/// caller to put in together with its own.
pub fn steps(features: &Features, target: &Target) -> (Vec<Step>, Vec<Filter>) {
    let mut steps = Vec::new();
    steps.extend(features.tuning.iter().flat_map(|tuning| tune::steps(tuning, target)));
    let mut filters: Vec<Filter> = ports::filter(features, target).into_iter().collect();
    filters.extend(features.firewall.as_ref().map(|wanted| firewall::filter(wanted, target)));
    (steps, filters)
}

/// The steps that come when the filters stand.
pub fn after(features: &Features, target: &Target) -> Vec<Step> {
    ports::after(features, target)
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
    ports::unmake(record, &mut unmade);
    let (steps, ifb) = shape::unmake(record);
    unmade.steps.extend(steps);
    unmade.links.extend(ifb);
    unmade.steps.extend(source_routing::unmake(record));
    unmade.steps.extend(tune::unmake(record));
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
    /// What goes when nothing of the pod is left.
    pub last: Vec<Step>,
}
