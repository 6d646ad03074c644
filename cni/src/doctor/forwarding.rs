//! Settings of the kernel that let the node route for its pods, or keep it from it.

use std::net::IpAddr;

use node::finding::{Finding, counted};

use super::networks::Networks;
use super::{dotted, number, set};
use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::{Attach, NetConf};
use crate::ipam::Ipam;
use crate::kernel::link;
use crate::kernel::route::{self, Route};
use crate::observe::{FORWARD_4, FORWARD_6};
use crate::plan::step::Place;

const FORWARDING: &str = "forwarding";
const ROUTERS: &str = "router advertisements";
const REVERSE: &str = "reverse path filter";
const BRIDGES: &str = "bridge-nf-call";

/// Made by a router's advertisement (`RTPROT_RA` in linux/rtnetlink.h).
const BY_ADVERTISEMENT: u8 = 9;

/// Which families the pods have: of the configuration, and of the pods that are there.
fn families(networks: &Networks, records: &[Attachment]) -> (bool, bool) {
    let ranges = networks.configurations.iter().flat_map(addresses);
    let all: Vec<IpAddr> = ranges.chain(records.iter().flat_map(|r| r.addresses.iter().copied())).collect();
    (all.iter().any(IpAddr::is_ipv4), all.iter().any(IpAddr::is_ipv6))
}

fn addresses(conf: &NetConf) -> Vec<IpAddr> {
    match &conf.ipam {
        Some(Ipam::HostLocal(config)) => {
            config.sets.iter().flat_map(|set| set.ranges.iter().map(|range| range.start)).collect()
        }
        _ => Vec::new(),
    }
}

/// Forwarding as a whole and of the links that matter, and the default route that goes when it is on.
pub(super) fn settings(hands: &mut Hands, networks: &Networks, records: &[Attachment]) -> Vec<Finding> {
    let uplinks = uplinks(hands);
    let (four, six) = families(networks, records);
    let mut found = Vec::new();
    let mut on = Vec::new();
    for (wanted, name, family) in [(four, FORWARD_4, "ipv4"), (six, FORWARD_6, "ipv6")] {
        if !wanted {
            continue;
        }
        match number(name) {
            Some(0) => found.push(off(name, family, records)),
            None => found.push(missing(family)),
            Some(_) => on.push(family),
        }
        if on.last() != Some(&family) {
            continue;
        }
        // Writing the whole node's setting writes every link's; somebody may have written one after that.
        let links = uplinks.iter().filter(|(_, r)| r.dst.addr().is_ipv4() == (family == "ipv4"));
        let mut names: Vec<&String> = links.map(|(name, _)| name).collect();
        names.dedup();
        for link in names {
            let own = format!("net/{family}/conf/{link}/forwarding");
            // IPv6 asks the whole node's setting alone.
            if family == "ipv4" && number(&own) == Some(0) {
                let why = format!("`{}` is 0: what comes in by `{link}` reaches no pod", dotted(&own));
                found.push(Finding::problem(FORWARDING, why, set(&own, "1")));
            }
        }
    }
    if found.is_empty() && !on.is_empty() {
        found.push(Finding::fine(FORWARDING, format!("{} is on", on.join(" and "))));
    }
    found.extend(advertised(&uplinks));
    found
}

/// A kernel that has no such setting has no such family.
fn missing(family: &str) -> Finding {
    let shown = if family == "ipv4" { "IPv4" } else { "IPv6" };
    let why = format!("the kernel has no {shown}, and the ranges or the pods have {shown} addresses");
    Finding::problem(
        FORWARDING,
        why,
        format!("boot with {shown} on (without `{family}.disable=1`), or take its ranges out"),
    )
}

fn off(name: &str, family: &str, records: &[Attachment]) -> Finding {
    let has = |ip: &IpAddr| ip.is_ipv4() == (family == "ipv4");
    let pods = records.iter().filter(|r| r.addresses.iter().any(has)).count();
    if pods == 0 {
        return Finding::fine(FORWARDING, format!("`{}` is 0; the first pod's ADD sets it", dotted(name)));
    }
    let reach = if pods == 1 { "reaches" } else { "reach" };
    let why = format!("`{}` is 0: {} {reach} nothing beyond this node", dotted(name), counted(pods, "pod"));
    Finding::problem(FORWARDING, why, set(name, "1"))
}

/// The links of the default routes, with these.
fn uplinks(hands: &mut Hands) -> Vec<(String, Route)> {
    let Ok(socket) = hands.socket(Place::Host) else { return Vec::new() };
    let all = route::of_main(socket).unwrap_or_default();
    let defaults = all.into_iter().filter(|(route, _)| route.dst.prefix_len() == 0);
    defaults
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|(route, index)| Some((link::find_index(socket, index).ok()??.name, route)))
        .collect()
}

/// With forwarding on, a link whose `accept_ra` is 1 hears no router any more, and the default route that it heard
/// of ends with its lifetime (Documentation/networking/ip-sysctl.rst).
fn advertised(uplinks: &[(String, Route)]) -> Vec<Finding> {
    if number(FORWARD_6) != Some(1) {
        return Vec::new();
    }
    let heard = uplinks.iter().filter(|(_, route)| route.protocol == Some(BY_ADVERTISEMENT));
    let deaf = heard.filter(|(link, _)| number(&accept(link)) == Some(1));
    deaf.map(|(link, _)| {
        let why = format!(
            "the IPv6 default route by `{link}` came by a router's advertisement, and none is heard any more: it \
             ends with its lifetime, since IPv6 forwarding is on and `{}` is 1",
            dotted(&accept(link))
        );
        Finding::problem(ROUTERS, why, set(&accept(link), "2"))
    })
    .collect()
}

fn accept(link: &str) -> String {
    format!("net/ipv6/conf/{link}/accept_ra")
}

/// Strict: an answer that comes by another link than the route back is dropped. With one way out it harms nobody.
pub(super) fn reverse_path(hands: &mut Hands) -> Vec<Finding> {
    let all = number("net/ipv4/conf/all/rp_filter").unwrap_or_default();
    let mut names: Vec<String> =
        uplinks(hands).into_iter().filter(|(_, r)| r.dst.addr().is_ipv4()).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    if names.len() < 2 {
        return Vec::new();
    }
    let own = |link: &str| format!("net/ipv4/conf/{link}/rp_filter");
    let strict = names.iter().filter(|link| number(&own(link)).unwrap_or_default().max(all) == 1);
    strict
        .map(|link| {
            let why = format!(
                "`{}` is strict, and there are default routes by {}: what comes for a pod by the one that is not used \
                 is dropped",
                dotted(&own(link)),
                names.join(" and ")
            );
            Finding::warning(REVERSE, why, set(&own(link), "2"))
        })
        .collect()
}

/// Between pods of one bridge, a Service's address is translated back only where bridged packets pass netfilter.
pub(super) fn bridges(hands: &mut Hands, networks: &Networks) -> Option<Finding> {
    let bridged = networks.configurations.iter().any(|c| matches!(c.attach, Attach::Bridge(_)));
    if !bridged || !super::kernel::has_nf_tables() {
        return None;
    }
    let proxied = hands.nft().and_then(crate::kernel::nft::Nft::has_kube_proxy).unwrap_or(false);
    let name = "net/bridge/bridge-nf-call-iptables";
    if !proxied || number(name) == Some(1) {
        return None;
    }
    let why = format!(
        "`{}` is not 1 while kube-proxy translates: a pod does not reach a Service whose pod is on the same bridge",
        dotted(name)
    );
    Some(Finding::warning(BRIDGES, why, format!("modprobe br_netfilter; {}", set(name, "1"))))
}

#[cfg(test)]
mod tests {
    use node::finding::State;

    use super::*;

    #[test]
    fn a_family_that_the_kernel_has_not_is_a_problem() {
        let found = missing("ipv6");
        assert_eq!(found.state, State::Problem);
        assert!(found.why.contains("the kernel has no IPv6"), "{found:?}");
        assert!(found.remedy.is_some_and(|remedy| remedy.contains("ipv6.disable=1")));
    }
}
