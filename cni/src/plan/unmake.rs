//! What takes an attachment back, and what puts back what others took: both by its record alone.

use std::net::IpAddr;

use crate::attachment::Attachment;
use crate::kernel::nft::{Filter, Masquerade, Trace};
use crate::plan::feature;
use crate::plan::step::{Step, Verb};
use crate::plan::target::Target;

/// The plan of a DEL from the record: what takes an ADD's steps back, last first. What dies with the
/// link (addresses, routes, permanent neighbours) needs no step.
pub fn unmake(attachment: &Attachment) -> Vec<Step> {
    let owner = &attachment.owner;
    let mut steps = Vec::new();
    let mut features = feature::unmake(attachment);
    if attachment.masquerade {
        features.traces.insert(0, Trace::Masquerade(attachment.addresses.clone()));
    }
    if !features.traces.is_empty() {
        steps.push(Step::Unfilter { traces: features.traces, owner: owner.clone() });
    }
    steps.extend(features.steps);
    if let Some(mac) = attachment.only_mac {
        steps.push(Step::NoSpoofCheck { owner: owner.clone(), mac: Some(mac) });
    }
    if let Some(bridge) = &attachment.bridge {
        let addresses = attachment.addresses.iter().rev();
        let forget = |address: &IpAddr| Verb::RemoveNeighbour { link: bridge.clone(), address: *address };
        steps.extend(addresses.map(|address| Step::host(forget(address))));
    }
    let own = attachment.chained.is_none().then(|| owner.host_ifname());
    let links: Vec<String> = own.into_iter().chain(features.links).collect();
    if !links.is_empty() {
        steps.push(Step::DeleteLinks { links });
    }
    steps.extend(features.last);
    steps.extend(attachment.delegate.iter().map(|plugin| Step::Undelegate { plugin: plugin.clone() }));
    if let Some(folder) = &attachment.leases {
        let addresses = attachment.addresses.iter().rev();
        let release = |address: &IpAddr| Step::Release {
            folder: folder.clone(),
            address: *address,
            owner: owner.clone(),
        };
        steps.extend(addresses.map(release));
    }
    steps.push(Step::Forget { owner: owner.clone() });
    steps
}

/// What nf_tables has to hold for the pod of a record, whoever flushed it meanwhile.
pub fn reassert(record: &Attachment) -> Vec<Step> {
    let owner = || record.owner.clone();
    let mut steps: Vec<Step> =
        record.only_mac.into_iter().map(|mac| Step::SpoofCheck { owner: owner(), mac }).collect();
    let (features, target) = (record.features(), Target::of(record));
    // Before its port is mapped again: it may have become another pod's.
    steps.extend(feature::first(&features, &target));
    let (_, mut filters) = feature::steps(&features, &target);
    if record.masquerade && !record.addresses.is_empty() {
        let what = Masquerade { network: record.network.clone(), keep: record.keep.clone() };
        filters.insert(0, Filter::Masquerade(what, record.addresses.clone()));
    }
    if !filters.is_empty() {
        steps.push(Step::Filter { filters, owner: owner() });
    }
    // What was sent to a port meanwhile went elsewhere, and the kernel remembers that.
    steps.extend(feature::after(&record.features(), &Target::of(record), true));
    steps
}
