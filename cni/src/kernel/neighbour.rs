//! Neighbours: `ip neighbour`.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use node::Result;

use super::socket::{Request, RouteSocket};
use crate::mac::Mac;

/// `ip neighbour replace ADDRESS lladdr MAC dev … nud permanent`: nobody has to ask, nothing expires.
pub fn permanent(index: u32, address: IpAddr, mac: Mac) -> Request {
    replace(index, address, mac, NeighbourState::Permanent)
}

/// `ip neighbour replace ADDRESS lladdr MAC dev … nud reachable`: the kernel may age it like one that
/// it learnt itself.
pub fn reachable(index: u32, address: IpAddr, mac: Mac) -> Request {
    replace(index, address, mac, NeighbourState::Reachable)
}

/// `ip neighbour del ADDRESS dev …`.
pub fn delete(index: u32, address: IpAddr) -> Request {
    Request { message: RouteNetlinkMessage::DelNeighbour(message(index, address)), flags: 0 }
}

/// The MAC and whether the entry is permanent; `None` where there is no entry.
pub fn find(socket: &mut RouteSocket, index: u32, address: IpAddr) -> Result<Option<(Option<Mac>, bool)>> {
    let doing = || format!("look up the neighbour `{address}`");
    let Some(RouteNetlinkMessage::NewNeighbour(found)) =
        socket.get(RouteNetlinkMessage::GetNeighbour(message(index, address)), doing)?
    else {
        return Ok(None);
    };
    let mac = found.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    Ok(Some((mac, found.header.state == NeighbourState::Permanent)))
}

/// `ip neighbour show dev … nud permanent`, filtered by the kernel to that link.
pub fn permanents(socket: &mut RouteSocket, index: u32) -> Result<Vec<(IpAddr, Mac)>> {
    let mut query = NeighbourMessage::default();
    query.attributes.push(NeighbourAttribute::IfIndex(index));
    let doing = || "list the neighbours of a link".to_owned();
    let found = socket.dump(&RouteNetlinkMessage::GetNeighbour(query), doing)?;
    let fixed = found.into_iter().filter_map(|m| match m {
        RouteNetlinkMessage::NewNeighbour(m)
            if m.header.ifindex == index && m.header.state == NeighbourState::Permanent =>
        {
            entry(&m)
        }
        _ => None,
    });
    Ok(fixed.collect())
}

fn entry(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some((address?, mac?))
}

fn replace(index: u32, address: IpAddr, mac: Mac, state: NeighbourState) -> Request {
    let mut message = message(index, address);
    message.header.state = state;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    Request { message: RouteNetlinkMessage::NewNeighbour(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
}

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    let (family, destination) = match address {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
