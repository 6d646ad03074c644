//! The node's own addresses and routes in the pods' subnets: packets of either would go astray.

use std::path::Path;

use ipnet::IpNet;
use node::namespace::is_shared_with;
use node::{Error, Kind, Result};

use super::Mode;
use super::conflist::Network;
use super::subnets::overlap;
use crate::kernel::link::Link;
use crate::kernel::socket::RouteSocket;
use crate::kernel::{address, link, route};
use crate::owner::Owner;
use crate::runtime::below;

/// The bridge of a generated network in bridge mode.
const BRIDGE: &str = "cni0";
/// The kernel's own table of local addresses.
const LOCAL: u32 = 255;

/// Refuses subnets that the node uses otherwise, whose network namespace is this process's.
pub(super) fn none(network: &Network) -> Result<()> {
    let mut socket = RouteSocket::open()?;
    for used in used(&mut socket)? {
        let Some(subnet) = network.subnets.iter().find(|subnet| used.meets(subnet)) else { continue };
        // A pod's may be gone by now.
        let Some(Link { name, .. }) = link::find_index(&mut socket, used.link)? else { continue };
        if !is_pods(&name, network.mode) {
            let why = format!("`{name}` has the {} `{}`", used.what, used.net);
            return Err(Error::caused(Kind::Conflict, format!("give pods addresses of `{subnet}`"), why).hint(
                "choose another subnet; where another plugin's pods left it there, drain the node and delete the \
                 link, or add `--force`",
            ));
        }
    }
    Ok(())
}

/// A network that the node uses.
#[derive(Debug)]
struct Used {
    net: IpNet,
    link: u32,
    what: &'static str,
    /// A route by a router loses to the pods' own routes where it is wider than their subnet.
    by_router: bool,
}

impl Used {
    fn meets(&self, subnet: &IpNet) -> bool {
        // The network's own address, which no pod gets: flannel gives it to its tunnel's link.
        if self.net.prefix_len() == self.net.max_prefix_len() && self.net.addr() == subnet.network() {
            return false;
        }
        if self.by_router { subnet.contains(&self.net) } else { overlap(subnet, &self.net) }
    }
}

fn used(socket: &mut RouteSocket) -> Result<Vec<Used>> {
    let addresses = address::everywhere(socket)?.into_iter();
    let mut found: Vec<Used> =
        addresses.map(|(net, link)| Used { net, link, what: "address", by_router: false }).collect();
    let routes = route::everywhere(socket)?.into_iter();
    let routes = routes.filter(|(route, _)| route.table != Some(LOCAL) && route.dst.prefix_len() > 0);
    found.extend(routes.map(|(route, link)| Used {
        net: route.dst,
        link,
        what: "route",
        by_router: route.gw.is_some(),
    }));
    Ok(found)
}

/// What pods of this network are behind.
fn is_pods(link: &str, mode: Mode) -> bool {
    Owner::is_host_ifname(link) || (mode == Mode::Bridge && link == BRIDGE)
}

/// Whether the node below `root` runs, in the network namespace of this process. `serves` where whoever installs is
/// there to serve a node that runs; in a container its /proc is seldom mounted.
pub(super) fn is_this_node(root: &Path, serves: bool) -> bool {
    if root == Path::new("/") {
        return true;
    }
    let first = below(root, Path::new("/proc/1"));
    if !first.exists() {
        return serves;
    }
    is_shared_with(&first).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnets_own_address_on_a_tunnel_meets_nobody() {
        let table = [
            ("10.66.0.0/32", "10.66.0.0/24", false),
            ("10.66.0.1/32", "10.66.0.0/24", true),
            ("10.66.0.0/24", "10.66.0.0/24", true),
            ("10.66.0.0/32", "10.66.0.0/16", false),
            ("10.66.1.0/32", "10.66.0.0/16", true),
            ("fd00:66::/128", "fd00:66::/64", false),
            ("fd00:66::1/128", "fd00:66::/64", true),
        ];
        for (net, subnet, meets) in table {
            let used = Used { net: net.parse().unwrap(), link: 1, what: "address", by_router: false };
            assert_eq!(used.meets(&subnet.parse().unwrap()), meets, "{net} {subnet}");
        }
    }
}
