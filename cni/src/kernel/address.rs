//! Addresses: `ip address`.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use node::Result;
use rtnetlink::AddressMessageBuilder;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::socket::{Request, RouteSocket};

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// With its prefix length.
    pub net: IpNet,
    /// Duplicate address detection is still going on.
    pub tentative: bool,
    /// Duplicate address detection found another owner.
    pub duplicate: bool,
}

/// `ip address add NET dev … [nodad]`; EEXIST where it is there already. `dad` asks for duplicate
/// address detection, without which an IPv6 address is usable at once.
pub fn add(index: u32, net: IpNet, dad: bool) -> Request {
    let mut message = built(index, net);
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, net.addr().is_ipv6() && !dad);
    // A /128's own route would stand once more for every pod; the local table has it anyway.
    flags.set(AddressFlags::Noprefixroute, net.addr().is_ipv6() && net.prefix_len() == 128);
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    Request { message: RouteNetlinkMessage::NewAddress(message), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// `ip address add NET dev … noprefixroute [nodad]`: the subnet is not on the link.
pub fn add_without_route(index: u32, net: IpNet) -> Request {
    let mut message = built(index, net);
    let mut flags = AddressFlags::Noprefixroute;
    flags.set(AddressFlags::Nodad, net.addr().is_ipv6());
    message.attributes.push(AddressAttribute::Flags(flags));
    Request { message: RouteNetlinkMessage::NewAddress(message), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// `ip address del NET dev …`.
pub fn delete(index: u32, net: IpNet) -> Request {
    Request { message: RouteNetlinkMessage::DelAddress(built(index, net)), flags: 0 }
}

/// `ip address show dev …`, filtered by the kernel to that link.
pub fn list(socket: &mut RouteSocket, index: u32) -> Result<Vec<Address>> {
    let mut query = AddressMessage::default();
    query.header.index = index;
    let found =
        socket.dump(&RouteNetlinkMessage::GetAddress(query), || "list the addresses of a link".to_owned())?;
    let messages = found.into_iter().filter_map(|m| match m {
        RouteNetlinkMessage::NewAddress(m) if m.header.index == index => Some(m),
        _ => None,
    });
    Ok(messages.filter_map(|m| described(&m)).collect())
}

/// `ip address show`: every address with the index of its link. For a person's command, never for a pod's call.
pub fn everywhere(socket: &mut RouteSocket) -> Result<Vec<(IpNet, u32)>> {
    let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = socket.dump(&query, || "list the node's addresses".to_owned())?;
    let messages = found.iter().filter_map(|m| match m {
        RouteNetlinkMessage::NewAddress(m) => Some((described(m)?.net, m.header.index)),
        _ => None,
    });
    Ok(messages.collect())
}

fn built(index: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
    }
}

fn described(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address, mut flags) = (None::<IpAddr>, None::<IpAddr>, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(f) => flags = *f,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    let (tentative, duplicate) =
        (flags.contains(AddressFlags::Tentative), flags.contains(AddressFlags::Dadfailed));
    Some(Address { net, tentative, duplicate })
}
