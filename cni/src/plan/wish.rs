//! From what was asked and what was observed to a [`Wish`]: every decision of an ADD, none of its doing.

use std::net::IpAddr;

use ipnet::IpNet;
use node::{Error, Kind, Result};

use super::{BridgeWish, Given, Wish};
use crate::config::bridge::Bridge;
use crate::config::{Attach, NetConf};
use crate::kernel::route::Route;
use crate::mac::Mac;
use crate::observe::{Links, Observed};
use crate::owner::Owner;
use crate::result::{self, Dns};
use crate::role::Role;

/// What a veth takes at the most.
const MOST_MTU: u32 = 65535;
/// What Ethernet has where nothing says otherwise.
const USUAL_MTU: u32 = 1500;
/// What IPv4 needs (RFC 791).
const LEAST_MTU_4: u32 = 68;
/// What IPv6 needs (RFC 8200, section 5).
const LEAST_MTU_6: u32 = 1280;

/// The addresses and routes that the IPAM gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// In the order of the range sets.
    pub addresses: Vec<Given>,
    /// As configured; `None` where the configuration says nothing of routes.
    pub routes: Option<Vec<result::Route>>,
    /// Networks that the addresses are from: never masqueraded among each other.
    pub networks: Vec<IpNet>,
    /// The IPAM's resolver settings.
    pub dns: Dns,
}

/// Decides what an ADD does.
pub fn wish(
    conf: &NetConf,
    owner: &Owner,
    pod: Option<&str>,
    mtu: u32,
    granted: &Granted,
    seen: &Observed,
) -> Result<Wish> {
    let mut addresses = granted.addresses.clone();
    let gateway = match &conf.attach {
        Attach::Bridge(bridge) => bridge.is_gateway,
        _ => true,
    };
    if gateway {
        for given in &mut addresses {
            given.gateway = Some(gateway_of(given, &conf.attach)?);
        }
    }
    enough(mtu, &addresses)?;
    let bridge = match &conf.attach {
        Attach::Bridge(bridge) => Some(bridge_wish(bridge, owner, mtu, &addresses, seen)?),
        _ => None,
    };
    Ok(Wish {
        owner: owner.clone(),
        network: conf.name.clone(),
        pod: pod.map(str::to_owned),
        mtu,
        host_mac: Mac(owner.host_mac()),
        pod_mac: pod_mac(conf, owner, &addresses),
        mac_is_asked_for: conf.mac.is_some(),
        routes: routes(conf, &addresses, granted.routes.as_deref())?,
        bridge,
        masquerade: conf.masquerade.then(|| kept(conf, granted)),
        features: conf.features.clone(),
        networks: granted.networks.clone(),
        by_gateway: conf.role == Role::PointToPoint,
        settings: seen.not_forwarding.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect(),
        addresses,
    })
}

/// The MTU of both ends: as configured, or that of the default route's device less what an encapsulation
/// takes, and no more than the bridge's.
pub fn mtu(conf: &NetConf, links: &Links) -> u32 {
    conf.mtu.unwrap_or_else(|| {
        let device = links.default_mtu.unwrap_or(USUAL_MTU).min(MOST_MTU).saturating_sub(conf.encap_overhead);
        links.bridge.as_ref().map_or(device, |bridge| device.min(bridge.mtu))
    })
}

fn enough(mtu: u32, addresses: &[Given]) -> Result<()> {
    let six = addresses.iter().any(|g| g.address.addr().is_ipv6());
    let least = if six { LEAST_MTU_6 } else { LEAST_MTU_4 };
    if mtu >= least {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("use an MTU of {mtu}, where these addresses need {least}"))
        .hint("set `mtu`, or correct `encapOverhead`"))
}

/// Whoever routes needs an address to be asked at: the IPAM's, or the first of the subnet.
fn gateway_of(given: &Given, attach: &Attach) -> Result<IpAddr> {
    const HINT: &str = "name the `gateway` beside the address";
    if let Some(gateway) = given.gateway {
        return Ok(gateway);
    }
    let address = given.address.addr();
    let refused =
        |why: &str| Error::new(Kind::Config, format!("route for `{}`, {why}", given.address)).hint(HINT);
    let first = first_of(&given.address)
        .ok_or_else(|| refused("which names no gateway and leaves no other address"))?;
    match attach {
        Attach::Bridge(bridge) if first == address => {
            Err(refused(&format!("which the bridge `{}` would take as the subnet's first", bridge.name)))
        }
        _ if first == address => Err(refused("which is the subnet's first, and so its own gateway")),
        _ => Ok(first),
    }
}

/// The first address of a subnet that a host can have; a point-to-point subnet has none to spare.
fn first_of(net: &IpNet) -> Option<IpAddr> {
    let spare = net.max_prefix_len() - net.prefix_len() > 1;
    let first = match net.network() {
        IpAddr::V4(ip) => IpAddr::V4(u32::from(ip).checked_add(1)?.into()),
        IpAddr::V6(ip) => IpAddr::V6(u128::from(ip).checked_add(1)?.into()),
    };
    spare.then_some(first)
}

/// The pod's MAC: as asked, or one of its IPv4 address.
pub fn pod_mac(conf: &NetConf, owner: &Owner, addresses: &[Given]) -> Mac {
    let four =
        addresses.iter().find_map(|g| if let IpAddr::V4(ip) = g.address.addr() { Some(ip) } else { None });
    conf.mac.unwrap_or_else(|| four.map_or_else(|| Mac(owner.pod_mac()), Mac::of))
}

/// Destinations that keep the pod's own address: its networks and what the configuration adds.
pub fn kept(conf: &NetConf, granted: &Granted) -> Vec<IpNet> {
    let own = granted.networks.iter().chain(&conf.non_masquerade).map(IpNet::trunc);
    let mut keep: Vec<IpNet> = own.collect();
    keep.sort();
    keep.dedup();
    keep
}

fn routes(conf: &NetConf, addresses: &[Given], configured: Option<&[result::Route]>) -> Result<Vec<Route>> {
    // A route to each gateway comes first under the reference's name.
    let onlink = !matches!(conf.attach, Attach::Bridge(_)) && conf.role != Role::PointToPoint;
    let gateway_for =
        |dst: &IpNet| addresses.iter().filter(|g| same_family(&g.address, dst)).find_map(|g| g.gateway);
    let mut routes: Vec<Route> =
        configured.unwrap_or_default().iter().map(|r| wanted_route(r, gateway_for(&r.dst), onlink)).collect();
    let defaults = match &conf.attach {
        Attach::Bridge(bridge) => bridge.is_default_gateway,
        // The reference's makes none that nobody names.
        _ if conf.role == Role::PointToPoint => false,
        // A pod with a host route of its own and nowhere to send to is nobody's wish; `routes: []` is.
        _ => configured.is_none(),
    };
    // Of several addresses of a family, the first one's gateway leads out.
    let everywhere = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|net| net.parse().ok());
    for dst in everywhere.filter(|_| defaults) {
        let Some(gateway) = gateway_for(&dst) else { continue };
        match routes.iter().find(|r| r.dst == dst && r.table.is_none()) {
            // For the reference, the route that was configured is the better one.
            Some(other) if other.gw != Some(gateway) && conf.role == Role::Main => {
                let other = other.gw.map_or_else(|| "the link".to_owned(), |gw| format!("`{gw}`"));
                let what = format!("make `{gateway}` the default gateway, where `ipam.routes` has {other}");
                return Err(Error::new(Kind::Config, what)
                    .hint("take the default route out of `ipam.routes`, or `isDefaultGateway` out"));
            }
            Some(_) => {}
            None => routes.push(wanted_route(&bare(dst), Some(gateway), onlink)),
        }
    }
    Ok(routes)
}

fn wanted_route(route: &result::Route, gateway: Option<IpAddr>, routed: bool) -> Route {
    // Scope link says that the destination is on the link itself: a gateway would contradict it.
    let on_link = route.gw.is_none() && route.scope.is_some_and(|s| s >= 253);
    Route {
        dst: route.dst,
        gw: route.gw.or(gateway).filter(|_| !on_link),
        // A routed pod has no subnet on its link: every gateway is on-link by decree.
        onlink: routed && !on_link,
        mtu: route.mtu,
        advmss: route.advmss,
        priority: route.priority,
        table: route.table,
        scope: route.scope,
        source: None,
        protocol: None,
    }
}

pub(super) fn bare(dst: IpNet) -> result::Route {
    result::Route { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
}

fn bridge_wish(
    bridge: &Bridge,
    owner: &Owner,
    mtu: u32,
    addresses: &[Given],
    seen: &Observed,
) -> Result<BridgeWish> {
    let exists = seen.bridge.as_ref();
    if let Some(other) = exists.filter(|l| l.kind.as_deref() != Some("bridge")) {
        let kind = other.kind.as_deref().unwrap_or("physical");
        return Err(Error::new(
            Kind::Conflict,
            format!("use `{}` as the bridge, which is a {kind} link", bridge.name),
        )
        .hint("choose another name in `bridge`"));
    }
    if let Some(link) = exists.filter(|l| l.mtu < mtu) {
        let what = format!("use an MTU of {mtu} on the bridge `{}`, which has {}", bridge.name, link.mtu);
        return Err(Error::new(Kind::Conflict, what)
            .hint(format!("leave `mtu` out, or `ip link set {} mtu {mtu}`", bridge.name)));
    }
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for wanted in addresses.iter().filter(|_| bridge.is_gateway).filter_map(gateway_net) {
        let there = seen.bridge_addresses.iter().map(|a| a.net);
        if there.clone().any(|net| net == wanted) {
            continue;
        }
        // One IPv4 address names the gateway; IPv6 subnets may stand beside each other, unless they overlap.
        let in_the_way: Vec<IpNet> = there
            .filter(|net| same_family(net, &wanted) && !is_link_local(net))
            .filter(|net| wanted.addr().is_ipv4() || net.contains(&wanted) || wanted.contains(net))
            .collect();
        if let Some(other) = in_the_way.first().filter(|_| !bridge.force_address) {
            let name = &bridge.name;
            return Err(Error::new(
                Kind::Conflict,
                format!("give the bridge `{name}` the address `{wanted}`, where it has `{other}`"),
            )
            .hint(format!(
                "`ip address del {other} dev {name}` when no pod uses it, or set `forceAddress`"
            )));
        }
        add.push(wanted);
        remove.extend(in_the_way);
    }
    Ok(BridgeWish {
        name: bridge.name.clone(),
        mac: exists.and_then(|l| l.mac).unwrap_or_else(|| bridge_mac(&bridge.name, owner)),
        mtu: exists.map_or(mtu, |l| l.mtu),
        exists: exists.is_some(),
        raise: exists.is_some_and(|l| !l.up),
        // A bridge that somebody else made may still take its ports' address: fix the one it has now.
        pin: exists.and_then(|l| l.mac).filter(|_| !add.is_empty()),
        promiscuous: bridge.promiscuous && exists.is_none_or(|l| !l.promiscuous),
        add,
        remove,
        hairpin: bridge.hairpin,
        isolated: bridge.port_isolation,
        spoof_check: bridge.mac_spoof_check,
        dad: bridge.duplicate_address_detection,
        gateway: bridge.is_gateway,
        no_container_interface: bridge.disable_container_interface,
    })
}

/// The gateway as the bridge holds it: with the subnet's prefix length.
fn gateway_net(given: &Given) -> Option<IpNet> {
    given.gateway.and_then(|gateway| IpNet::new(gateway, given.address.prefix_len()).ok())
}

/// The owner of the first pod gives the bridge its address: any one will do, as long as it stays.
fn bridge_mac(name: &str, first: &Owner) -> Mac {
    let seed = Owner { container_id: format!("{}@{name}", first.container_id), ifname: first.ifname.clone() };
    Mac(seed.host_mac())
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn same_family(a: &IpNet, b: &IpNet) -> bool {
    a.addr().is_ipv4() == b.addr().is_ipv4()
}
