//! Routes: `ip route`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use node::Result;

use super::socket::{Request, RouteSocket};

/// A metric after which the host's own route to a loopback address goes first.
const BEHIND: u32 = 2048;

/// A route to make on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// By whom; `None` is directly on the link.
    pub gw: Option<IpAddr>,
    /// The gateway need not be on a subnet of the link.
    pub onlink: bool,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Bytes.
    pub advmss: Option<u32>,
    /// The metric.
    pub priority: Option<u32>,
    /// The table; `None` is main (254).
    pub table: Option<u32>,
    /// 0 global, 253 link and so on; `None` is link without a gateway and global with one.
    pub scope: Option<u8>,
    /// The address that packets of the node's own leave with.
    pub source: Option<IpAddr>,
    /// Who made it (`RTPROT_*`); `None` is boot (3), as `ip route add` has it.
    pub protocol: Option<u8>,
}

impl Route {
    /// A route straight onto the link.
    pub fn direct(dst: IpNet) -> Self {
        Self {
            dst,
            gw: None,
            onlink: false,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
            source: None,
            protocol: None,
        }
    }
}

/// `ip route add …`; EEXIST where there is one like it.
pub fn add(index: u32, route: &Route) -> Request {
    Request {
        message: RouteNetlinkMessage::NewRoute(message(index, route)),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// `ip route add …` of a route that stood in another table, or stands there again. In one of its own it
/// must be the only one of its destination; the main table holds those of several links side by side, as
/// the kernel itself makes them, and so does any table for what is on an IPv6 link, such as fe80::/64.
pub fn copy(index: u32, route: &Route) -> Request {
    let alone = is_apart(route) && (route.dst.addr().is_ipv4() || route.gw.is_some());
    Request {
        message: RouteNetlinkMessage::NewRoute(message(index, route)),
        flags: NLM_F_CREATE | if alone { NLM_F_EXCL } else { 0 },
    }
}

/// Whether a route stands in another table than main.
pub fn is_apart(route: &Route) -> bool {
    route.table.is_some_and(|t| t != u32::from(RouteHeader::RT_TABLE_MAIN))
}

/// `ip route del …`.
pub fn delete(index: u32, route: &Route) -> Request {
    Request { message: RouteNetlinkMessage::DelRoute(message(index, route)), flags: 0 }
}

/// `ip route add local ::1 dev …`, behind the host's own; EEXIST where there is one like it.
pub fn add_loopback(index: u32) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Local;
    message.header.table = libc::RT_TABLE_LOCAL;
    message.attributes.push(RouteAttribute::Destination(wire(Ipv6Addr::LOCALHOST.into())));
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.push(RouteAttribute::Priority(BEHIND));
    // Not exclusive: routes of other links differ from it by nothing but the link.
    Request { message: RouteNetlinkMessage::NewRoute(message), flags: NLM_F_CREATE | NLM_F_APPEND }
}

/// Whether the link has the route of [`add_loopback`].
pub fn has_loopback(socket: &mut RouteSocket, index: u32) -> Result<bool> {
    let all = list(socket, index)?;
    Ok(all.iter().any(|(route, _)| route.dst.addr() == IpAddr::V6(Ipv6Addr::LOCALHOST)))
}

/// Whether `address` is one of this host's.
pub fn is_local(socket: &mut RouteSocket, address: IpAddr) -> Result<bool> {
    let mut query = RouteMessage::default();
    query.header.address_family = family(address);
    query.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    query.attributes.push(RouteAttribute::Destination(wire(address)));
    let doing = || format!("look up the route to `{address}`");
    Ok(match socket.get(RouteNetlinkMessage::GetRoute(query), doing)? {
        Some(RouteNetlinkMessage::NewRoute(found)) => found.header.kind == RouteType::Local,
        _ => false,
    })
}

/// This host's IPv4 addresses, each once; `None` where whole networks are (`ip route add
/// local 192.0.2.0/24 …`). Of 127.0.0.0/8 it is the first alone.
pub fn local_addresses(socket: &mut RouteSocket) -> Result<Option<Vec<Ipv4Addr>>> {
    let mut query = RouteMessage::default();
    query.header.address_family = AddressFamily::Inet;
    query.header.table = libc::RT_TABLE_LOCAL;
    query.header.kind = RouteType::Local;
    let doing = || "list the host's own addresses".to_owned();
    let mut found = Vec::new();
    for message in socket.dump(&RouteNetlinkMessage::GetRoute(query), doing)? {
        let RouteNetlinkMessage::NewRoute(message) = message else { continue };
        let Some(route) = described(&message).filter(|_| message.header.kind == RouteType::Local) else {
            continue;
        };
        let is_host = route.dst.prefix_len() == route.dst.max_prefix_len();
        match route.dst.addr() {
            IpAddr::V4(ip) if ip.is_loopback() => found.push(Ipv4Addr::LOCALHOST),
            IpAddr::V4(ip) if is_host => found.push(ip),
            _ => return Ok(None),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(Some(found))
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The route's own destination.
    pub dst: IpNet,
    /// The link that packets leave by.
    pub oif: u32,
    /// The route's own MTU.
    pub mtu: Option<u32>,
}

/// `ip route get fibmatch ADDRESS`: the entry of the routing table that a packet to `address` would
/// take; `None` where there is none. One look-up in the kernel's trie, whatever the number of routes.
pub fn matching(socket: &mut RouteSocket, address: IpAddr) -> Result<Option<Found>> {
    let mut query = RouteMessage::default();
    query.header.address_family = family(address);
    query.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    query.header.flags = RouteFlags::FibMatch;
    query.attributes.push(RouteAttribute::Destination(wire(address)));
    let doing = || format!("look up the route to `{address}`");
    let found = match socket.get(RouteNetlinkMessage::GetRoute(query), doing)? {
        Some(RouteNetlinkMessage::NewRoute(found)) if found.header.kind == RouteType::Unicast => found,
        _ => return Ok(None),
    };
    Ok(described(&found))
}

/// The tables that hold a route, whatever its link, in this thread's namespace: for a pod's, never for the
/// node's.
pub fn tables(socket: &mut RouteSocket) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let found =
            socket.dump(&RouteNetlinkMessage::GetRoute(query), || "list the routing tables".to_owned())?;
        all.extend(found.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewRoute(m) => listed(m)?.0.table,
            _ => None,
        }));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// `ip route show dev … [table …]`, filtered by the kernel to that link: for CHECK.
pub fn list(socket: &mut RouteSocket, index: u32) -> Result<Vec<(Route, u32)>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        query.attributes.push(RouteAttribute::Oif(index));
        let found =
            socket.dump(&RouteNetlinkMessage::GetRoute(query), || "list the routes of a link".to_owned())?;
        all.extend(found.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewRoute(m) => listed(m),
            _ => None,
        }));
    }
    all.retain(|(_, oif)| *oif == index);
    Ok(all)
}

/// `ip route show table all`: every route that leads to a link, with that link's index. For a person's command,
/// never for a pod's call.
pub fn everywhere(socket: &mut RouteSocket) -> Result<Vec<(Route, u32)>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let found =
            socket.dump(&RouteNetlinkMessage::GetRoute(query), || "list the node's routes".to_owned())?;
        all.extend(found.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewRoute(m) => listed(m),
            _ => None,
        }));
    }
    Ok(all)
}

/// Those of the main table.
pub fn of_main(socket: &mut RouteSocket) -> Result<Vec<(Route, u32)>> {
    let mut all = everywhere(socket)?;
    all.retain(|(route, _)| !is_apart(route));
    Ok(all)
}

fn listed(message: &RouteMessage) -> Option<(Route, u32)> {
    let found = described(message)?;
    let mut route = Route::direct(found.dst);
    route.mtu = found.mtu;
    route.scope = Some(u8::from(message.header.scope));
    route.table = Some(u32::from(message.header.table));
    route.protocol = Some(u8::from(message.header.protocol));
    route.onlink = message.header.flags.contains(RouteFlags::Onlink);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.gw = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => route.gw = Some(IpAddr::V6(*ip)),
            RouteAttribute::Priority(metric) => route.priority = Some(*metric),
            RouteAttribute::Table(table) => route.table = Some(*table),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => route.source = Some(IpAddr::V4(*ip)),
            RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => route.source = Some(IpAddr::V6(*ip)),
            RouteAttribute::Metrics(metrics) => {
                route.advmss =
                    metrics.iter().find_map(|m| if let RouteMetric::Advmss(n) = m { Some(*n) } else { None });
            }
            _ => {}
        }
    }
    Some((route, found.oif))
}

fn described(message: &RouteMessage) -> Option<Found> {
    let (mut dst, mut oif, mut mtu) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => dst = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => dst = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(n) = m { Some(*n) } else { None });
            }
            _ => {}
        }
    }
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let dst = IpNet::new(dst.unwrap_or(any), message.header.destination_prefix_length).ok()?;
    Some(Found { dst, oif: oif?, mtu })
}

fn message(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let dst = route.dst.trunc();
    message.header.address_family = family(dst.addr());
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.protocol = route.protocol.map_or(RouteProtocol::Boot, RouteProtocol::from);
    message.header.kind = RouteType::Unicast;
    let scope = route.scope.map(RouteScope::from);
    message.header.scope =
        scope.unwrap_or(if route.gw.is_some() { RouteScope::Universe } else { RouteScope::Link });
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    match route.table.map(|table| (table, u8::try_from(table))) {
        None => message.header.table = RouteHeader::RT_TABLE_MAIN,
        Some((_, Ok(small))) => message.header.table = small,
        Some((table, Err(_))) => message.attributes.push(RouteAttribute::Table(table)),
    }
    if dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(wire(dst.addr())));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.extend(route.gw.map(|gw| RouteAttribute::Gateway(wire(gw))));
    message.attributes.extend(route.priority.map(RouteAttribute::Priority));
    message.attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(wire(ip))));
    let metrics = [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)];
    let metrics: Vec<_> = metrics.into_iter().flatten().collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn wire(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}
