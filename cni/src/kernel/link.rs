//! Links: `ip link`.

use std::os::fd::RawFd;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use node::{Context, Kind, Result};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::socket::{Request, RouteSocket};
use crate::mac::Mac;

/// A link as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The index in its namespace.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// `veth`, `bridge` and so on.
    pub kind: Option<String>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The other end's index, in the other end's namespace.
    pub peer: Option<u32>,
    /// Somebody asked that every frame is taken; a sniffer's own asking does not show here.
    pub promiscuous: bool,
    /// The same for every multicast frame.
    pub all_multicast: bool,
    /// `txqueuelen`, packets.
    pub queue_length: u32,
    /// Bridge port: frames may leave by the port that they came from.
    pub hairpin: Option<bool>,
    /// Bridge port: no traffic between isolated ports.
    pub isolated: Option<bool>,
    /// The alias that an operator sees.
    pub alias: Option<String>,
    /// IPv6 is switched off on it.
    pub ipv6_off: bool,
}

/// A pair to be made: the host end here, the pod end in another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth<'a> {
    /// The host end's name.
    pub host: &'a str,
    /// Its address.
    pub host_mac: Mac,
    /// The pod end's name.
    pub pod: &'a str,
    /// Its address.
    pub pod_mac: Mac,
    /// Both ends, bytes.
    pub mtu: u32,
    /// The bridge's index.
    pub master: Option<u32>,
    /// The pod's namespace.
    pub netns: RawFd,
}

/// `ip link add HOST mtu … master … type veth peer POD netns …`, in one message. One queue at each
/// end spares two RCU waits in veth_init_queues; the peer made in its namespace spares the move, which
/// waits for an RCU barrier with RTNL held.
pub fn create_veth(veth: &Veth) -> Request {
    let peer = LinkUnspec::new_with_name(veth.pod)
        .mtu(veth.mtu)
        .address(veth.pod_mac.0.to_vec())
        .setns_by_fd(veth.netns)
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1))
        .build();
    let mut host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(veth.host)
        .mtu(veth.mtu)
        .address(veth.host_mac.0.to_vec())
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    if let Some(master) = veth.master {
        host = host.controller(master);
    }
    Request { message: RouteNetlinkMessage::NewLink(host.build()), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// `ip link set HOST alias …`: an attribute that the kernel takes on change only.
pub fn set_alias(name: &str, alias: &str) -> Request {
    change(LinkUnspec::new_with_name(name).alias(alias))
}

/// `ip link add NAME address MAC type bridge`, up. A given address is kept when ports come and go.
pub fn create_bridge(name: &str, mac: Mac, mtu: u32) -> Request {
    let link = LinkBridge::new(name).address(mac.0.to_vec()).mtu(mtu).up();
    Request { message: RouteNetlinkMessage::NewLink(link.build()), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// `ip link add NAME address MAC mtu … type ifb`, with one queue.
pub fn create_ifb(name: &str, mac: Mac, mtu: u32) -> Request {
    let link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Ifb)
        .name(name)
        .address(mac.0.to_vec())
        .mtu(mtu)
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1));
    Request { message: RouteNetlinkMessage::NewLink(link.build()), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// `ip link set NAME address MAC`: also pins the address that the link already has.
pub fn set_mac(name: &str, mac: Mac) -> Request {
    change(LinkUnspec::new_with_name(name).address(mac.0.to_vec()))
}

/// `ip link set NAME up`.
pub fn up(name: &str) -> Request {
    change(LinkUnspec::new_with_name(name).up())
}

/// `ip link set NAME down`.
pub fn down(name: &str) -> Request {
    change(LinkUnspec::new_with_name(name).down())
}

/// `ip link set NAME mtu BYTES`.
pub fn set_mtu(name: &str, mtu: u32) -> Request {
    change(LinkUnspec::new_with_name(name).mtu(mtu))
}

/// `ip link set NAME promisc on|off`.
pub fn promiscuous(name: &str, on: bool) -> Request {
    change(LinkUnspec::new_with_name(name).promiscuous(on))
}

/// `ip link set NAME allmulticast on|off`.
pub fn all_multicast(name: &str, on: bool) -> Request {
    change(LinkUnspec::new_with_name(name).allmulticast(on))
}

/// `ip link set NAME txqueuelen PACKETS`.
pub fn queue_length(name: &str, packets: u32) -> Request {
    change(LinkUnspec::new_with_name(name).txqueuelen(packets))
}

/// `ip link set NAME addrgenmode none`: no link-local address, hence no duplicate address detection.
pub fn without_link_local(name: &str) -> Request {
    let spec = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let link =
        LinkUnspec::new_with_name(name).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![spec]));
    Request { message: RouteNetlinkMessage::SetLink(link.build()), flags: 0 }
}

/// `sysctl net.ipv4.conf.NAME.arp_notify=1`, said over netlink: the file below /proc/sys costs a walk over
/// every pod's file of that name.
pub fn arp_notify(name: &str) -> Request {
    // `IFLA_INET_CONF` holds one attribute a setting, named by its number (linux/if_link.h, linux/ip.h).
    const INET_CONF: u16 = 1;
    const ARP_NOTIFY: u16 = 22;
    let mut setting = Vec::with_capacity(8);
    setting.extend(8_u16.to_ne_bytes());
    setting.extend(ARP_NOTIFY.to_ne_bytes());
    setting.extend(1_u32.to_ne_bytes());
    let conf = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, setting));
    let spec = vec![AfSpecUnspec::Inet(vec![conf])];
    let link = LinkUnspec::new_with_name(name).append_extra_attribute(LinkAttribute::AfSpecUnspec(spec));
    Request { message: RouteNetlinkMessage::SetLink(link.build()), flags: 0 }
}

/// `bridge link set dev NAME hairpin … isolated …`, and `ip link set NAME alias …` in the same message:
/// each takes the kernel's big lock once.
pub fn port(name: &str, alias: Option<&str>, hairpin: bool, isolated: bool) -> Request {
    let data = vec![InfoBridgePort::HairpinMode(hairpin), InfoBridgePort::Isolated(isolated)];
    let mut link = LinkUnspec::new_with_name(name)
        .set_port_kind(InfoPortKind::Bridge)
        .set_port_data(InfoPortData::BridgePort(data));
    if let Some(alias) = alias {
        link = link.alias(alias);
    }
    // Port settings are read from RTM_NEWLINK only, even where nothing new is made.
    Request { message: RouteNetlinkMessage::NewLink(link.build()), flags: 0 }
}

/// `ip link set NAME group N`.
pub fn set_group(name: &str, group: u32) -> Request {
    change(LinkUnspec::new_with_name(name).link_group(group))
}

/// [`set_group`], by index.
pub fn set_group_index(index: u32, group: u32) -> Request {
    change(LinkUnspec::new_with_index(index).link_group(group))
}

/// `ip link del`, by index: a name may be another link's by the time that a late request arrives. Both
/// ends of a veth go.
pub fn delete(index: u32) -> Request {
    Request { message: RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()), flags: 0 }
}

/// `ip link del group N`: one unregister batch in the kernel, hence one RCU barrier for all.
pub fn delete_group(group: u32) -> Request {
    let link = LinkMessageBuilder::<LinkUnspec>::default().link_group(group);
    Request { message: RouteNetlinkMessage::DelLink(link.build()), flags: 0 }
}

/// The index of the link NAME in this thread's namespace; `None` where there is no such link. Unlike a
/// netlink request, the ioctl behind it takes no lock that others wait for (netdevice(7), SIOCGIFINDEX).
pub fn index(name: &str) -> Result<Option<u32>> {
    match if_nametoindex(name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::ENODEV) => Ok(None),
        Err(e) => Err(e).doing(Kind::Kernel, || format!("look up the index of `{name}`")),
    }
}

/// `ip link show NAME`; `None` where there is no such link.
pub fn find(socket: &mut RouteSocket, name: &str) -> Result<Option<Link>> {
    ask(socket, LinkUnspec::new_with_name(name).build(), name)
}

/// `ip link show` by index.
pub fn find_index(socket: &mut RouteSocket, index: u32) -> Result<Option<Link>> {
    ask(socket, LinkUnspec::new_with_index(index).build(), &format!("#{index}"))
}

/// `ip link show type veth`, filtered by the kernel. Not for the path of a pod's ADD.
pub fn veths(socket: &mut RouteSocket) -> Result<Vec<Link>> {
    of_kind(socket, InfoKind::Veth)
}

/// `ip link show type ifb`, in the same way.
pub fn ifbs(socket: &mut RouteSocket) -> Result<Vec<Link>> {
    of_kind(socket, InfoKind::Ifb)
}

fn of_kind(socket: &mut RouteSocket, kind: InfoKind) -> Result<Vec<Link>> {
    let mut query = LinkMessage::default();
    query.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    let found = socket.dump(&RouteNetlinkMessage::GetLink(query), || "list the links".to_owned())?;
    Ok(found.into_iter().filter_map(|m| described(&m)).collect())
}

fn ask(socket: &mut RouteSocket, mut query: LinkMessage, name: &str) -> Result<Option<Link>> {
    // Counters are most of the answer, and nobody here reads them.
    query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let doing = || format!("look up the link `{name}`");
    Ok(socket.get(RouteNetlinkMessage::GetLink(query), doing)?.as_ref().and_then(described))
}

fn change<T>(link: LinkMessageBuilder<T>) -> Request {
    Request { message: RouteNetlinkMessage::SetLink(link.build()), flags: 0 }
}

/// The link of a NEWLINK or DELLINK message; `None` for bridge-port events, which come under AF_BRIDGE.
pub fn described(message: &RouteNetlinkMessage) -> Option<Link> {
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else {
        return None;
    };
    if message.header.interface_family == AddressFamily::Bridge {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        promiscuous: flags.contains(LinkFlags::Promisc),
        all_multicast: flags.contains(LinkFlags::Allmulti),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::TxQueueLen(packets) => link.queue_length = *packets,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::AfSpecUnspec(specs) => link.ipv6_off = specs.iter().any(is_ipv6_off),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| note(&mut link, info)),
            _ => {}
        }
    }
    Some(link)
}

fn is_ipv6_off(spec: &AfSpecUnspec) -> bool {
    let AfSpecUnspec::Inet6(settings) = spec else { return false };
    settings.iter().any(|s| matches!(s, AfSpecInet6::DevConf(conf) if conf.disable_ipv6 != 0))
}

fn note(link: &mut Link, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
            for setting in data {
                match setting {
                    InfoBridgePort::HairpinMode(on) => link.hairpin = Some(*on),
                    InfoBridgePort::Isolated(on) => link.isolated = Some(*on),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}
