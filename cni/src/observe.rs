//! What a plan needs to know of the node: asked by name, by index or by destination, never by listing.

use std::net::IpAddr;

use node::Result;

use crate::config::{Attach, NetConf};
use crate::kernel::address::{self, Address};
use crate::kernel::link::{self, Link};
use crate::kernel::socket::RouteSocket;
use crate::kernel::{route, sysctl};
use crate::owner::Owner;
use crate::plan::shape;
use crate::role::Role;

/// The setting that lets the node route IPv4.
pub const FORWARD_4: &str = "net/ipv4/ip_forward";
/// The setting that lets the node route IPv6.
pub const FORWARD_6: &str = "net/ipv6/conf/all/forwarding";

/// The node as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The bridge, where the mode has one and it exists.
    pub bridge: Option<Link>,
    /// Its addresses.
    pub bridge_addresses: Vec<Address>,
    /// Forwarding settings that are off.
    pub not_forwarding: Vec<&'static str>,
}

/// What decides the MTU, looked at before anything is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// The MTU of the device that the default route leaves by; not asked for where the configuration
    /// has one, nor under a reference plugin's name, which takes what Ethernet has.
    pub default_mtu: Option<u32>,
    /// The bridge, where the mode has one and it exists.
    pub bridge: Option<Link>,
}

/// Looks at the links that `conf` builds on.
pub fn links(socket: &mut RouteSocket, conf: &NetConf) -> Result<Links> {
    Ok(Links {
        default_mtu: if conf.mtu.is_none() && conf.role == Role::Main { default_mtu(socket)? } else { None },
        bridge: match &conf.attach {
            Attach::Bridge(bridge) => link::find(socket, &bridge.name)?,
            _ => None,
        },
    })
}

/// Looks at the node for `conf` and the families of `addresses`.
pub fn node(
    socket: &mut RouteSocket,
    conf: &NetConf,
    links: Links,
    addresses: &[IpAddr],
) -> Result<Observed> {
    let mut seen = Observed { bridge: links.bridge, ..Observed::default() };
    let mut routes = true;
    if let Attach::Bridge(bridge) = &conf.attach {
        routes = bridge.is_gateway;
        if let Some(found) = seen.bridge.as_ref().filter(|_| bridge.is_gateway) {
            seen.bridge_addresses = address::list(socket, found.index)?;
        }
    }
    for (name, wanted) in [(FORWARD_4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (FORWARD_6, IpAddr::is_ipv6)]
    {
        if routes && addresses.iter().any(wanted) && sysctl::get(name)?.is_some_and(|v| v == "0") {
            seen.not_forwarding.push(name);
        }
    }
    Ok(seen)
}

/// The ifb that an ADD of `owner` left whose record is gone, this program's or the reference's. One whose
/// alias names another interface of the same container is that one's.
pub fn left_ifb(socket: &mut RouteSocket, network: &str, owner: &Owner) -> Result<Option<String>> {
    let name = shape::ifb(network, owner);
    // The usual answer, and the cheaper question.
    if link::index(&name)?.is_none() {
        return Ok(None);
    }
    let found = link::find(socket, &name)?.filter(|l| l.kind.as_deref() == Some("ifb"));
    let others = |l: &Link| shape::named_owner(l.alias.as_deref()).is_some_and(|named| named != *owner);
    Ok(found.filter(|l| !others(l)).map(|l| l.name))
}

/// Every ifb of this program's with its owner. Not for the path of a pod's ADD.
pub fn ifbs(socket: &mut RouteSocket) -> Result<Vec<(String, Owner)>> {
    let named = |l: Link| Some((l.name, shape::named_owner(l.alias.as_deref())?));
    Ok(link::ifbs(socket)?.into_iter().filter_map(named).collect())
}

/// The MTU of the device that the default route leaves by, IPv4's before IPv6's: the one towards an
/// address that no network routes more specifically (RFC 5737, RFC 3849).
pub fn default_mtu(socket: &mut RouteSocket) -> Result<Option<u32>> {
    for probe in [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])] {
        if let Some(found) = route::matching(socket, probe)? {
            return Ok(
                link::find_index(socket, found.oif)?.map(|l| found.mtu.map_or(l.mtu, |m| m.min(l.mtu)))
            );
        }
    }
    Ok(None)
}
