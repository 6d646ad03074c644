//! The steps of a plan, their one line for people, and their inverses.

mod name;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::attachment::Attachment;
use crate::config::tuning::Tuning;
use crate::ipam::leases::Choice;
use crate::kernel::nft::{Filter, Forward, Trace};
use crate::kernel::route::Route;
use crate::kernel::tc::Bucket;
use crate::mac::Mac;
use crate::owner::Owner;

/// The namespace that a step works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The node's.
    Host,
    /// The pod's.
    Pod,
}

/// One step. Changes over rtnetlink that follow each other in one place travel to the kernel together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "a variant says what its fields are for")]
pub enum Step {
    /// Write the record of the attachment.
    Record(Box<Attachment>),
    /// Note in the record what is known since.
    Amend(Box<Attachment>),
    /// Remove it.
    Forget { owner: Owner },
    /// Take an address from the leases in `folder`, which is `dataDir/NETWORK`.
    Reserve { folder: PathBuf, choice: Choice, owner: Owner },
    /// Give it back.
    Release { folder: PathBuf, address: IpAddr, owner: Owner },
    /// The IPAM plugin's ADD was called.
    Delegated { plugin: String },
    /// Call its DEL.
    Undelegate { plugin: String },
    /// Set a kernel setting, named as below `/proc/sys`.
    Setting { place: Place, name: String, value: String },
    /// Change a link, its addresses, routes or neighbours.
    Link { place: Place, verb: Verb },
    /// Switch IPv6 on, where a runtime switched it off.
    EnableIpv6 { place: Place, link: String },
    /// Wait for duplicate address detection.
    Settle { place: Place, link: String },
    /// Delete links without waiting for their burial.
    DeleteLinks { links: Vec<String> },
    /// Put what the pod gets into nf_tables: all of it or nothing.
    Filter { filters: Vec<Filter>, owner: Owner },
    /// Take it out.
    Unfilter { traces: Vec<Trace>, owner: Owner },
    /// Drop frames with another source than `mac`.
    SpoofCheck { owner: Owner, mac: Mac },
    /// Stop that; without the MAC, the port's elements are searched for it.
    NoSpoofCheck { owner: Owner, mac: Option<Mac> },
    /// Claim ports of the node: all of them or none.
    ClaimPorts { ports: Vec<Forward>, owner: Owner },
    /// Give them back, with the connections that led by them to the pod.
    ReleasePorts { ports: Vec<Forward>, owner: Owner },
    /// Let what the node sends to its loopback addresses leave by `link` and come back.
    OpenLoopback { link: String, four: bool, six: bool },
    /// Forget connections to these ports that lead elsewhere than to their pod; where it does not `live` yet, all.
    FlushConnections { ports: Vec<Forward>, live: bool },
    /// Let what arrives by another plugin's link go its way again, where it is redirected to `to`.
    Unredirect { link: String, to: String },
    /// Set a kernel setting of the pod that the operator asked for.
    Sysctl { name: String, value: String },
    /// Keep what the pod's interface was before it is changed, in `file` as well, where the reference's
    /// tuning plugin looks for it.
    Keep { link: String, before: Box<Tuning>, file: Option<PathBuf> },
    /// Make it that again, if it is still there.
    Restore { link: String, before: Box<Tuning>, file: Option<PathBuf> },
    /// Remove the pod's rules for these source addresses and for those of its interface.
    RemoveRules { link: String, addresses: Vec<IpAddr> },
}

/// A change over rtnetlink. A burst is `told` where somebody asked for it. What is made on a `foreign` link,
/// which another plugin made, has to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what `ip` calls them")]
pub enum Verb {
    CreateBridge { link: String, mac: Mac, mtu: u32 },
    CreateVeth { host: String, host_mac: Mac, pod: String, pod_mac: Mac, mtu: u32, bridge: Option<String> },
    Alias { link: String, alias: String },
    Mac { link: String, mac: Mac },
    Up { link: String },
    Down { link: String },
    Promiscuous { link: String, on: bool },
    Port { link: String, alias: Option<String>, hairpin: bool, isolated: bool },
    NoLinkLocal { link: String },
    ArpNotify { link: String },
    Address { link: String, net: IpNet, dad: bool },
    RemoveAddress { link: String, net: IpNet },
    Route { link: String, route: Route },
    Neighbour { link: String, address: IpAddr, mac: Mac, permanent: bool },
    RemoveNeighbour { link: String, address: IpAddr },
    AddressWithoutRoute { link: String, net: IpNet },
    CreateIfb { link: String, mac: Mac, mtu: u32 },
    Shape { link: String, handle: u16, bucket: Bucket, told: bool, foreign: bool },
    Unshape { link: String, handle: u16 },
    Ingress { link: String, to: String, foreign: bool },
    Redirect { link: String, to: String },
    Mtu { link: String, mtu: u32 },
    AllMulticast { link: String, on: bool },
    QueueLength { link: String, packets: u32 },
    CopyRoute { link: String, route: Route },
    RemoveRoute { link: String, route: Route },
    Rule { from: IpAddr, table: u32 },
    RemoveRule { from: IpAddr, table: u32 },
}

impl Step {
    /// A change on the node.
    pub fn host(verb: Verb) -> Self {
        Self::Link { place: Place::Host, verb }
    }

    /// A change in the pod.
    pub fn pod(verb: Verb) -> Self {
        Self::Link { place: Place::Pod, verb }
    }

    /// Whether the step may have had its effect although it failed, so that its inverse is due. A record
    /// that could not be made is the only thing that may be somebody else's: everything else says whose
    /// it is before it is taken away.
    pub fn may_be_done(&self) -> bool {
        !matches!(self, Self::Record(_))
    }

    /// A kernel setting.
    pub fn setting(place: Place, name: &str, value: &str) -> Self {
        Self::Setting { place, name: name.to_owned(), value: value.to_owned() }
    }
}

impl node::step::Step for Step {
    fn inverse(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::Record(attachment) => Self::Forget { owner: attachment.owner },
            Self::Reserve { folder, choice, owner } => {
                Self::Release { folder, address: choice.address.addr(), owner }
            }
            Self::Delegated { plugin } => Self::Undelegate { plugin },
            Self::Link { place: Place::Host, verb: Verb::CreateVeth { host, .. } } => {
                Self::DeleteLinks { links: vec![host] }
            }
            Self::Link {
                place: Place::Host,
                verb: Verb::Neighbour { link, address, permanent: false, .. },
            } => Self::host(Verb::RemoveNeighbour { link, address }),
            Self::Filter { filters, owner } => {
                Self::Unfilter { traces: filters.iter().map(Filter::trace).collect(), owner }
            }
            Self::SpoofCheck { owner, mac } => Self::NoSpoofCheck { owner, mac: Some(mac) },
            Self::ClaimPorts { ports, owner } => Self::ReleasePorts { ports, owner },
            Self::Link { place: Place::Host, verb: Verb::CreateIfb { link, .. } } => {
                Self::DeleteLinks { links: vec![link] }
            }
            Self::Link { place: Place::Host, verb: Verb::Shape { link, handle, foreign: true, .. } } => {
                Self::host(Verb::Unshape { link, handle })
            }
            Self::Link { place: Place::Host, verb: Verb::Ingress { link, to, foreign: true } } => {
                Self::Unredirect { link, to }
            }
            Self::Keep { link, before, file } => Self::Restore { link, before, file },
            Self::Link { place, verb: Verb::Rule { from, table } } => {
                Self::Link { place, verb: Verb::RemoveRule { from, table } }
            }
            Self::Link { place, verb: Verb::CopyRoute { link, route } } => {
                Self::Link { place, verb: Verb::RemoveRoute { link, route } }
            }
            Self::Link { place, verb: Verb::RemoveRoute { link, route } } => {
                Self::Link { place, verb: Verb::CopyRoute { link, route } }
            }
            // The node's own settings and bridge serve every pod; the rest dies with the link. An inverse
            // has none of its own.
            Self::Setting { .. }
            | Self::Link { .. }
            | Self::Amend(_)
            | Self::EnableIpv6 { .. }
            | Self::Settle { .. }
            | Self::Forget { .. }
            | Self::Release { .. }
            | Self::Undelegate { .. }
            | Self::DeleteLinks { .. }
            | Self::Unfilter { .. }
            | Self::NoSpoofCheck { .. }
            | Self::Unredirect { .. }
            | Self::Sysctl { .. }
            | Self::Restore { .. }
            | Self::RemoveRules { .. }
            | Self::ReleasePorts { .. }
            | Self::OpenLoopback { .. }
            | Self::FlushConnections { .. } => return None,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(attachment) => write!(f, "record the attachment `{}`", attachment.owner),
            Self::Amend(attachment) => {
                write!(f, "note the addresses of `{}` in its record", attachment.owner)
            }
            Self::Forget { owner } => write!(f, "forget the attachment `{owner}`"),
            Self::Reserve { folder, choice, .. } => {
                write!(f, "lease `{}` in `{}`", choice.address.addr(), folder.display())
            }
            Self::Release { folder, address, .. } => {
                write!(f, "release `{address}` in `{}`", folder.display())
            }
            Self::Delegated { plugin } => write!(f, "ask the IPAM plugin `{plugin}` for addresses"),
            Self::Undelegate { plugin } => write!(f, "have the IPAM plugin `{plugin}` release its addresses"),
            Self::Setting { place, name, value } => write!(f, "{place}set `{name}` to {value}"),
            Self::Link { place, verb } => write!(f, "{place}{verb}"),
            Self::EnableIpv6 { place, link } => write!(f, "{place}see that IPv6 is on for `{link}`"),
            Self::Settle { place, link } => {
                write!(f, "{place}wait for duplicate address detection on `{link}`")
            }
            Self::DeleteLinks { links } => {
                let each: Vec<_> = links.iter().map(|l| format!("`{l}`")).collect();
                let word = if links.len() == 1 { "link" } else { "links" };
                write!(f, "delete the {word} {}", each.join(", "))
            }
            Self::Filter { filters, .. } => f.write_str(&joined(filters)),
            Self::Unfilter { traces, .. } => f.write_str(&joined(traces)),
            Self::SpoofCheck { owner, mac } => {
                write!(f, "let only `{mac}` send by `{}`", owner.host_ifname())
            }
            Self::NoSpoofCheck { owner, .. } => {
                write!(f, "stop checking who sends by `{}`", owner.host_ifname())
            }
            Self::ClaimPorts { ports, .. } => write!(f, "claim the host's {}", each(ports)),
            Self::ReleasePorts { ports, .. } => write!(f, "give back the host's {}", each(ports)),
            Self::OpenLoopback { link, .. } => {
                write!(f, "let the host's loopback addresses leave by `{link}`")
            }
            Self::FlushConnections { ports, live: false } => {
                write!(f, "forget connections to the host's {}", each(ports))
            }
            Self::FlushConnections { ports, live: true } => {
                write!(f, "forget connections to the host's {} that lead elsewhere", each(ports))
            }
            Self::Unredirect { link, to } => {
                write!(f, "stop redirecting what arrives by `{link}` to `{to}`")
            }
            Self::Sysctl { name, value } => write!(f, "{}set `{name}` to `{value}`", Place::Pod),
            Self::Keep { link, .. } => write!(f, "keep what `{link}` in the pod is before it is changed"),
            Self::Restore { link, .. } => write!(f, "{}make `{link}` what it was", Place::Pod),
            Self::RemoveRules { link, .. } => {
                write!(f, "{}remove the rules for the addresses of `{link}`", Place::Pod)
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "",
            Self::Pod => "in the pod: ",
        })
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateBridge { link, mac, mtu } => {
                write!(f, "create the bridge `{link}` with MAC {mac} and MTU {mtu}")
            }
            Self::CreateVeth { host, pod, mtu, bridge, .. } => {
                write!(f, "create the veth `{host}` with `{pod}` in the pod and MTU {mtu}")?;
                bridge.as_ref().map_or(Ok(()), |b| write!(f, " on the bridge `{b}`"))
            }
            Self::Alias { link, alias } => write!(f, "name the pod `{alias}` on `{link}`"),
            Self::Mac { link, mac } => write!(f, "fix the MAC of `{link}` at {mac}"),
            Self::Up { link } => write!(f, "bring `{link}` up"),
            Self::Down { link } => write!(f, "bring `{link}` down"),
            Self::Promiscuous { link, on: true } => write!(f, "make `{link}` promiscuous"),
            Self::Promiscuous { link, on: false } => write!(f, "make `{link}` promiscuous no more"),
            Self::Port { link, alias, hairpin, isolated } => {
                alias
                    .as_ref()
                    .map_or(Ok(()), |alias| write!(f, "name the pod `{alias}` on `{link}` and "))?;
                write!(f, "set the port `{link}`: hairpin {hairpin}, isolated {isolated}")
            }
            Self::ArpNotify { link } => write!(f, "have `{link}` announce its addresses"),
            Self::NoLinkLocal { link } => write!(f, "make no link-local address on `{link}`"),
            Self::Address { link, net, .. } => write!(f, "add the address `{net}` to `{link}`"),
            Self::AddressWithoutRoute { link, net } => {
                write!(f, "add the address `{net}` to `{link}` without its subnet's route")
            }
            Self::RemoveAddress { link, net } => write!(f, "remove the address `{net}` from `{link}`"),
            Self::Route { link, route } | Self::CopyRoute { link, route } => {
                write!(f, "add the route `{route}` on `{link}`")
            }
            Self::Neighbour { link, address, mac, .. } => {
                write!(f, "tell `{link}` that `{address}` is at {mac}")
            }
            Self::RemoveNeighbour { link, address } => {
                write!(f, "remove the neighbour `{address}` from `{link}`")
            }
            Self::CreateIfb { link, mtu, .. } => write!(f, "create the ifb `{link}` with MTU {mtu}"),
            Self::Shape { link, bucket, .. } => {
                write!(f, "let `{link}` send {} bits a second", u128::from(bucket.rate) * 8)
            }
            Self::Unshape { link, .. } => write!(f, "let `{link}` send without a limit"),
            Self::Ingress { link, .. } => write!(f, "give `{link}` an ingress qdisc"),
            Self::Redirect { link, to } => write!(f, "redirect what arrives by `{link}` to `{to}`"),
            Self::Mtu { link, mtu } => write!(f, "set the MTU of `{link}` to {mtu}"),
            Self::AllMulticast { link, on } => write!(f, "set all-multicast on `{link}` to {on}"),
            Self::QueueLength { link, packets } => {
                write!(f, "set the queue of `{link}` to {packets} packets")
            }
            Self::RemoveRoute { link, route } => write!(f, "remove the route `{route}` on `{link}`"),
            Self::Rule { from, table } => write!(f, "route what comes from `{from}` by table {table}"),
            Self::RemoveRule { from, table } => {
                write!(f, "route what comes from `{from}` by table {table} no more")
            }
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dst.prefix_len() {
            0 => f.write_str("default"),
            _ => write!(f, "{}", self.dst),
        }?;
        self.gw.map_or(Ok(()), |gw| write!(f, " via {gw}"))?;
        let numbers =
            [("mtu", self.mtu), ("advmss", self.advmss), ("metric", self.priority), ("table", self.table)];
        for (name, value) in numbers.into_iter().filter_map(|(n, v)| Some((n, v?))) {
            write!(f, " {name} {value}")?;
        }
        self.scope.map_or(Ok(()), |scope| write!(f, " scope {scope}"))
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    let each: Vec<_> = items.iter().map(ToString::to_string).collect();
    each.join("; ")
}

fn each(ports: &[Forward]) -> String {
    let each: Vec<_> = ports
        .iter()
        .map(|p| format!("`{}/{}`", std::net::SocketAddr::new(p.host, p.port), p.protocol))
        .collect();
    each.join(", ")
}
