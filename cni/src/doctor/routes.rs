//! The node's routes beside the pods' subnets, and the size of packets.

use ipnet::IpNet;
use node::finding::{Finding, counted, unread};

use super::networks::Networks;
use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::Attach;
use crate::ipam::Ipam;
use crate::kernel::link;
use crate::kernel::route;
use crate::observe;
use crate::owner::Owner;
use crate::plan::step::Place;

const ROUTES: &str = "pods' subnets";
const MTU: &str = "MTU";

/// Routes of the node to a part of a pods' subnet, by links that are no pod's.
pub(super) fn overlaps(hands: &mut Hands, networks: &Networks) -> Vec<Finding> {
    let subnets = subnets(networks);
    if subnets.is_empty() {
        return Vec::new();
    }
    let bridges: Vec<&str> = networks
        .configurations
        .iter()
        .filter_map(
            |c| if let Attach::Bridge(bridge) = &c.attach { Some(bridge.name.as_str()) } else { None },
        )
        .collect();
    let found = match hands.socket(Place::Host).and_then(route::of_main) {
        Ok(found) => found,
        Err(error) => return vec![unread(ROUTES, &error)],
    };
    let mut told = Vec::new();
    for (route, index) in found.iter().filter(|(route, _)| route.dst.prefix_len() > 0) {
        let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(&route.dst)) else { continue };
        let link = hands.socket(Place::Host).and_then(|socket| link::find_index(socket, *index));
        let Ok(Some(link)) = link else { continue };
        if Owner::is_host_ifname(&link.name) || bridges.contains(&link.name.as_str()) {
            continue;
        }
        told.push(overlap(*subnet, route.dst, &link.name));
    }
    if told.is_empty() {
        let all: Vec<String> = subnets.iter().map(ToString::to_string).collect();
        told.push(Finding::fine(ROUTES, format!("no route of the node leads into {}", all.join(", "))));
    }
    told
}

fn overlap(subnet: IpNet, dst: IpNet, link: &str) -> Finding {
    let why =
        format!("the node routes {dst} by `{link}`, which is of the pods' {subnet}: addresses of both clash");
    let remedy = format!(
        "give the pods another subnet; where another network left `{link}` on the node: ip link delete {link}"
    );
    Finding::warning(ROUTES, why, remedy)
}

fn subnets(networks: &Networks) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = Vec::new();
    for conf in &networks.configurations {
        let Some(Ipam::HostLocal(config)) = &conf.ipam else { continue };
        all.extend(config.sets.iter().flat_map(|set| set.ranges.iter().map(|range| range.subnet.trunc())));
    }
    all.sort();
    all.dedup();
    all
}

/// Pods whose packets are larger than those that leave the node.
pub(super) fn mtu(hands: &mut Hands, networks: &Networks, records: &[Attachment]) -> Option<Finding> {
    let uplink = hands.socket(Place::Host).and_then(observe::default_mtu).ok().flatten()?;
    let larger = records.iter().filter(|record| record.mtu > uplink).count();
    let set = networks.configurations.iter().filter_map(|conf| conf.mtu).find(|mtu| *mtu > uplink);
    if let Some(mtu) = set {
        let why =
            format!("`mtu` is {mtu}, and the default route's device takes {uplink}: large packets are lost");
        return Some(Finding::warning(
            MTU,
            why,
            "leave `mtu` out: it is derived for each pod; restart the pods",
        ));
    }
    if larger > 0 {
        let why = format!(
            "{} were made with a larger MTU than the {uplink} of the default route's device: large packets are lost",
            counted(larger, "pod")
        );
        return Some(Finding::warning(MTU, why, "restart those pods: `nodeplug-cni ipam list` names them"));
    }
    Some(Finding::fine(MTU, format!("{uplink} by the default route, and no pod's is larger")))
}
