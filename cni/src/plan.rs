//! What an ADD does, step by step, and what takes it back. Pure: everything that the plan needs to
//! know was asked or observed before.
//!
//! A plan leaves no choice to `apply`. [`unmake()`] plans a DEL from the record; a test holds it against
//! the inverses of the ADD's own steps, so that making and unmaking cannot drift apart.

pub mod feature;
pub mod firewall;
pub mod ports;
pub mod shape;
pub mod source_routing;
pub mod step;
pub mod target;
pub mod tune;
mod unmake;
pub mod wish;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::feature::Features;
use crate::kernel::nft::{Filter, Masquerade};
use crate::kernel::route::Route;
use crate::mac::Mac;
use crate::owner::Owner;
use step::{Place, Step, Verb};
use target::Target;
pub use unmake::{reassert, unmake};

/// Every link-local address is of a /64 (RFC 4291, section 2.5.6).
const LINK_LOCAL_PREFIX: u8 = 64;

/// `IFALIASZ` in linux/if.h, less the NUL that the message carries and the one that the kernel adds.
const LONGEST_ALIAS: usize = 254;

/// One address for the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The address with its subnet's prefix length.
    pub address: IpNet,
    /// The gateway that the IPAM named.
    pub gateway: Option<IpAddr>,
}

/// A bridge as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeWish {
    /// Its name.
    pub name: String,
    /// Its address: a new bridge is given one, so that it never follows its ports.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// It exists already.
    pub exists: bool,
    /// Bring it up (it exists and is down).
    pub raise: bool,
    /// Fix the address that it has.
    pub pin: Option<Mac>,
    /// Make it take every frame.
    pub promiscuous: bool,
    /// Gateway addresses that it lacks.
    pub add: Vec<IpNet>,
    /// Addresses in the gateway's way, under `forceAddress`.
    pub remove: Vec<IpNet>,
    /// Port setting.
    pub hairpin: bool,
    /// Port setting.
    pub isolated: bool,
    /// Only frames from the pod's own MAC are taken.
    pub spoof_check: bool,
    /// IPv6 addresses go through duplicate address detection.
    pub dad: bool,
    /// The bridge is the pod's router: its neighbour table is filled in advance.
    pub gateway: bool,
    /// The pod's interface stays down and without addresses.
    pub no_container_interface: bool,
}

/// Everything that an ADD shall do, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose.
    pub owner: Owner,
    /// The network's name.
    pub network: String,
    /// `namespace/name`.
    pub pod: Option<String>,
    /// Both ends, bytes.
    pub mtu: u32,
    /// The host end.
    pub host_mac: Mac,
    /// The pod's end.
    pub pod_mac: Mac,
    /// Somebody asked for that MAC.
    pub mac_is_asked_for: bool,
    /// In the order of the range sets.
    pub addresses: Vec<Given>,
    /// The networks that they are from.
    pub networks: Vec<IpNet>,
    /// Routes in the pod, gateways filled in.
    pub routes: Vec<Route>,
    /// `None` is routed mode.
    pub bridge: Option<BridgeWish>,
    /// Masquerade what leaves, but for these destinations.
    pub masquerade: Option<Vec<IpNet>>,
    /// Kernel settings of the host that are not as they must be, as name and value.
    pub settings: Vec<(String, String)>,
    /// What the pod gets beside its interface.
    pub features: Features,
    /// The pod's addresses bear their subnet's prefix, and the subnet is reached by the gateway, as the
    /// reference's `ptp` has it.
    pub by_gateway: bool,
}

impl Wish {
    /// The steps from the bare host to a pod with its network. Records and leases come before them.
    pub fn steps(&self) -> Vec<Step> {
        let target = self.target();
        let mut steps = feature::first(&self.features, &target);
        steps.extend(self.settings.iter().map(|(n, v)| Step::setting(Place::Host, n, v)));
        if let Some(bridge) = &self.bridge {
            steps.extend(bridge_steps(bridge));
        }
        steps.extend(self.pair());
        if let Some(bridge) = self.bridge.as_ref().filter(|b| b.gateway) {
            steps.extend(self.known_on(&bridge.name));
        }
        if self.bridge.as_ref().is_none_or(|b| !b.no_container_interface) {
            steps.extend(self.pod_settings());
            steps.extend(self.inside());
        }
        if self.bridge.is_none() {
            steps.extend(self.routed_host_side());
        }
        if self.bridge.as_ref().is_some_and(|b| b.spoof_check) {
            steps.push(Step::SpoofCheck { owner: self.owner.clone(), mac: self.pod_mac });
        }
        let (more, mut filters) = feature::steps(&self.features, &target);
        steps.extend(more);
        filters.splice(0..0, self.masquerade());
        if !filters.is_empty() {
            steps.push(Step::Filter { filters, owner: self.owner.clone() });
        }
        steps.extend(feature::after(&self.features, &target, false));
        steps
    }

    /// The pod's interface, for the features.
    pub fn target(&self) -> Target {
        let bridge = self.bridge.as_ref().map(|b| b.name.clone());
        let addresses: Vec<IpNet> = self.addresses.iter().map(|g| g.address).collect();
        Target {
            owner: self.owner.clone(),
            network: self.network.clone(),
            host_link: Some(self.owner.host_ifname()),
            neighbours: self.networks.iter().filter(|_| bridge.is_some()).copied().collect(),
            bridge,
            addresses,
            mtu: self.mtu,
            ..Target::default()
        }
    }

    fn pair(&self) -> Vec<Step> {
        let host = self.owner.host_ifname();
        let mut steps = vec![Step::host(Verb::CreateVeth {
            host: host.clone(),
            host_mac: self.host_mac,
            pod: self.owner.ifname.clone(),
            pod_mac: self.pod_mac,
            mtu: self.mtu,
            bridge: self.bridge.as_ref().map(|b| b.name.clone()),
        })];
        let alias = self.pod.as_deref().map(alias);
        match self.bridge.as_ref().filter(|b| b.hairpin || b.isolated) {
            Some(bridge) => {
                let (hairpin, isolated) = (bridge.hairpin, bridge.isolated);
                steps.push(Step::host(Verb::Port { link: host.clone(), alias, hairpin, isolated }));
            }
            None => steps.extend(alias.map(|alias| Step::host(Verb::Alias { link: host.clone(), alias }))),
        }
        // Nobody talks to the host end by a link-local address; one would be announced to every pod. The
        // link comes up last: a change to one that is up makes the kernel walk every IPv6 route.
        steps.push(Step::host(Verb::NoLinkLocal { link: host.clone() }));
        steps.extend(feature::steps_before_up(&self.features, &self.target()));
        steps.push(Step::host(Verb::Up { link: host }));
        steps
    }

    /// Everything that must stand before the link comes up. Settings below /proc/sys are the exception:
    /// their files are looked up among those of every pod on the node.
    fn pod_settings(&self) -> Vec<Step> {
        let link = &self.owner.ifname;
        let mut steps = Vec::new();
        if self.bridge.is_some() {
            // Another pod on the bridge must not become this one's IPv6 router (CVE-2020-10749).
            steps.push(Step::setting(Place::Pod, &format!("net/ipv6/conf/{link}/accept_ra"), "0"));
        }
        if self.has_ipv6() {
            steps.push(Step::EnableIpv6 { place: Place::Pod, link: link.clone() });
        }
        if !self.dad() {
            // Without detection, the link-local address is ours to give; without IPv6 there is none.
            steps.push(Step::pod(Verb::NoLinkLocal { link: link.clone() }));
        }
        if self.bridge.is_some() && self.mac_is_asked_for {
            // A MAC of the pod's IPv4 address is the one that neighbours know; any other is announced.
            steps.push(Step::pod(Verb::ArpNotify { link: link.clone() }));
        }
        steps
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|g| g.address.addr().is_ipv6())
    }

    fn dad(&self) -> bool {
        self.has_ipv6() && self.bridge.as_ref().is_some_and(|b| b.dad)
    }

    /// Addresses come before the link is up, so that its first announcement names them; routes after.
    fn inside(&self) -> Vec<Step> {
        let link = &self.owner.ifname;
        let dad = self.dad();
        let verb = |g: &Given| match (self.by_gateway, &self.bridge) {
            (true, _) => Verb::AddressWithoutRoute { link: link.clone(), net: g.address },
            (_, Some(_)) => Verb::Address { link: link.clone(), net: g.address, dad },
            (_, None) => Verb::Address { link: link.clone(), net: alone(g.address.addr()), dad },
        };
        let mut steps: Vec<Step> = self.addresses.iter().map(|g| Step::pod(verb(g))).collect();
        if self.has_ipv6() && !dad {
            let net = IpNet::new(self.pod_mac.link_local().into(), LINK_LOCAL_PREFIX);
            steps.extend(net.map(|net| Step::pod(Verb::Address { link: link.clone(), net, dad })));
        }
        steps.push(Step::pod(Verb::Up { link: link.clone() }));
        if self.bridge.is_none() {
            for given in &self.addresses {
                let Some(gateway) = given.gateway else { continue };
                let mac = self.host_mac;
                steps.push(Step::pod(Verb::Route {
                    link: link.clone(),
                    route: Route::direct(alone(gateway)),
                }));
                steps.push(Step::pod(Verb::Neighbour {
                    link: link.clone(),
                    address: gateway,
                    mac,
                    permanent: true,
                }));
                let subnet = Route { gw: Some(gateway), ..Route::direct(given.address.trunc()) };
                steps.extend(
                    self.by_gateway.then(|| Step::pod(Verb::Route { link: link.clone(), route: subnet })),
                );
            }
        }
        steps.extend(
            self.routes.iter().map(|r| Step::pod(Verb::Route { link: link.clone(), route: r.clone() })),
        );
        if dad {
            steps.push(Step::Settle { place: Place::Pod, link: link.clone() });
        }
        steps
    }

    fn routed_host_side(&self) -> Vec<Step> {
        let host = self.owner.host_ifname();
        let mut steps = Vec::new();
        if self.has_ipv6() {
            steps.push(Step::EnableIpv6 { place: Place::Host, link: host.clone() });
        }
        for given in &self.addresses {
            let (address, mac, link) = (given.address.addr(), self.pod_mac, || host.clone());
            // The gateway's address on every host end answers a pod that pings it, and gives the host a
            // source address for its own traffic to pods.
            steps.extend(
                given.gateway.map(|g| Step::host(Verb::Address { link: link(), net: alone(g), dad: false })),
            );
            steps.push(Step::host(Verb::Route { link: link(), route: Route::direct(alone(address)) }));
            steps.push(Step::host(Verb::Neighbour { link: link(), address, mac, permanent: true }));
        }
        steps
    }

    /// The bridge's neighbour entries: an address that another pod had must not stay with that pod's MAC.
    fn known_on(&self, bridge: &str) -> Vec<Step> {
        let addresses = self.addresses.iter().map(|g| g.address.addr());
        let entry = |address| Verb::Neighbour {
            link: bridge.to_owned(),
            address,
            mac: self.pod_mac,
            permanent: false,
        };
        addresses.map(|address| Step::host(entry(address))).collect()
    }

    fn masquerade(&self) -> Option<Filter> {
        let addresses: Vec<IpAddr> = self.addresses.iter().map(|g| g.address.addr()).collect();
        let keep = self.masquerade.clone().filter(|_| !addresses.is_empty())?;
        Some(Filter::Masquerade(Masquerade { network: self.network.clone(), keep }, addresses))
    }
}

/// The pod's name as a link can bear it: not too long, nothing that a terminal would obey.
fn alias(pod: &str) -> String {
    let shown = pod.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut alias = String::new();
    for c in shown {
        if alias.len() + c.len_utf8() > LONGEST_ALIAS {
            break;
        }
        alias.push(c);
    }
    alias
}

/// The address with a prefix that names it alone.
pub fn alone(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn bridge_steps(bridge: &BridgeWish) -> Vec<Step> {
    let link = || bridge.name.clone();
    let mut steps = Vec::new();
    if !bridge.exists {
        steps.push(Step::host(Verb::CreateBridge { link: link(), mac: bridge.mac, mtu: bridge.mtu }));
    }
    if bridge.raise {
        steps.push(Step::host(Verb::Up { link: link() }));
    }
    steps.extend(bridge.pin.map(|mac| Step::host(Verb::Mac { link: link(), mac })));
    if bridge.promiscuous {
        steps.push(Step::host(Verb::Promiscuous { link: link(), on: true }));
    }
    if bridge.add.iter().any(|net| net.addr().is_ipv6()) {
        steps.push(Step::EnableIpv6 { place: Place::Host, link: link() });
    }
    steps.extend(bridge.remove.iter().map(|net| Step::host(Verb::RemoveAddress { link: link(), net: *net })));
    steps.extend(
        bridge.add.iter().map(|net| Step::host(Verb::Address { link: link(), net: *net, dad: bridge.dad })),
    );
    steps
}

#[cfg(test)]
mod tests;
