//! Host ports: what goes to a port of the node goes to a pod, at the price of one look-up in a map.
//!
//! Only packets to an address of the node are taken (GHSA-jv3w-x3r3-g6rm). Those whose answer would miss the
//! node are marked before they are sent on, and the mark is masquerade: the pod's own, those of hosts on the
//! pod's bridge, those from the loopback addresses. A mark that led to no pod is taken back, so that no
//! traffic but the ports' is masqueraded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::element::{Element, Held, Value};
use super::layout::{
    Chain, DESTINATION_NAT, Family, Hook, IPV4, IPV6, Layout, PROTOCOL, RAW, SERVICE, SOURCE_NAT, Set, Type,
    fingerprint,
};
use super::rule::{HeldRule, Part, Rule, Side};
use crate::port::{Condition, Protocol};

/// See [`super::masquerade`].
const RULES_VERSION: &str = "1";
const CHAIN: &str = "ports-";
const TO: &str = "ports-to-";
const IN: &str = "ports-in-";
const OUT: &str = "ports-out-";
const LEAVE: &str = "ports-leave-";
/// By the number of the family: ports of every address of the node, ports of one address, and what tells a
/// pod's connection to itself.
const ANY: [&str; 2] = ["ports4-", "ports6-"];
const HOST: [&str; 2] = ["hostports4-", "hostports6-"];
const SELF: [&str; 2] = ["hairpin4-", "hairpin6-"];
const GUARD: &str = "loopback";
const LIKE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
const PORT: [Part; 2] = [Part::Protocol, Part::DestinationPort];
const HINT: &str = "give one of the two pods another `hostPort`, or a `hostIP` of its own";

/// The settings of host ports that pods share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRules {
    /// Whether connections whose answer would miss the node get the node's address.
    pub snat: bool,
    /// Whether all of them do.
    pub masquerade_all: bool,
    /// The bit of the mark that says so, 0 to 31.
    pub mark_bit: u32,
    /// Networks whose hosts reach the pod without the node in between.
    pub neighbours: Vec<IpNet>,
    /// What has to hold for a packet, IPv4's and IPv6's.
    pub conditions: [Vec<Condition>; 2],
}

/// A port of the node, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The node's address; an unspecified one is all of its family.
    pub host: IpAddr,
    /// The node's port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The pod's address and port, of the same family.
    pub to: SocketAddr,
}

impl PortRules {
    pub(super) fn layouts(&self, forwards: &[Forward]) -> Vec<Layout> {
        let guard = self.snat && forwards.iter().any(Forward::is_at_loopback);
        // The guard stands before what it guards is opened.
        guard.then(guard_layout).into_iter().chain([self.layout()]).collect()
    }

    pub(super) fn elements(&self, forwards: &[Forward]) -> Vec<Element> {
        let name = self.name();
        let mut all: Vec<Element> = Vec::new();
        for forward in forwards {
            all.push(forward.element(&name));
            let hairpin = forward.hairpin(&name);
            // One port of two addresses of the node is one connection of the pod to itself.
            if self.has_hairpin() && !all.contains(&hairpin) {
                all.push(hairpin);
            }
        }
        all
    }

    /// The same ports in layouts of other settings.
    pub(super) fn elsewhere(&self, forwards: &[Forward], found: &[HeldRule]) -> Vec<Element> {
        let (own, mut others) = (self.name(), Vec::new());
        others.extend(found.iter().filter_map(|r| r.chain.strip_prefix(TO)).filter(|n| *n != own));
        others.dedup();
        forwards.iter().flat_map(|f| others.iter().map(|name| f.element(name))).collect()
    }

    fn has_hairpin(&self) -> bool {
        self.snat && !self.masquerade_all
    }

    fn bit(&self) -> u32 {
        1_u32.checked_shl(self.mark_bit).unwrap_or_default()
    }

    fn layout(&self) -> Layout {
        let name = self.name();
        let called = |start: &str| format!("{start}{name}");
        let mut chains = vec![Chain::called(called(TO), destinations(&name))];
        let enter = if self.snat {
            chains.push(Chain::called(called(CHAIN), self.marks(&name)));
            called(CHAIN)
        } else {
            called(TO)
        };
        let mut output = self.entries(&enter);
        if !self.snat {
            // What the host sends to itself stays there: the pod could not answer a loopback address.
            let alone = |net: IpAddr, prefix| IpNet::new(net, prefix).ok();
            let loopback = [alone(Ipv4Addr::LOCALHOST.into(), 8), alone(Ipv6Addr::LOCALHOST.into(), 128)];
            let stay =
                loopback.into_iter().flatten().map(|n| Rule::new().address(Side::To, n, true).go_back());
            output.splice(0..0, stay);
        }
        let hook = |number| Hook::nat(number, DESTINATION_NAT);
        chains.push(Chain::base(called(IN), hook(libc::NF_INET_PRE_ROUTING), self.entries(&enter)));
        chains.push(Chain::base(called(OUT), hook(libc::NF_INET_LOCAL_OUT), output));
        if self.snat {
            let hook = Hook::nat(libc::NF_INET_POST_ROUTING, SOURCE_NAT);
            chains.push(Chain::base(called(LEAVE), hook, vec![Rule::new().marked(self.bit()).masquerade()]));
        }
        Layout { family: Family::Inet, kind: CHAIN, sets: self.sets(&name), chains }
    }

    /// Which packets may be to a port of a pod.
    fn entries(&self, enter: &str) -> Vec<Rule> {
        let each = LIKE.iter().zip(&self.conditions);
        each.map(|(like, conditions)| {
            let rule = Rule::new().family(*like);
            conditions.iter().fold(rule, condition).for_this_host().jump(enter)
        })
        .collect()
    }

    /// Which of them need the node's address, before they are sent on.
    fn marks(&self, name: &str) -> Vec<Rule> {
        let (bit, to) = (self.bit(), format!("{TO}{name}"));
        let mut rules = vec![Rule::new().marked(bit).goto(&to)];
        if self.masquerade_all {
            rules.push(Rule::new().mark(bit));
        } else {
            let hairpin = LIKE.iter().zip(SELF).map(|(like, set)| {
                let parts = [Part::Address(Side::From, *like), Part::Protocol, Part::DestinationPort];
                Rule::new().within(&parts, &format!("{set}{name}")).mark(bit)
            });
            rules.extend(hairpin);
            let loopback: [(IpAddr, u8); 2] =
                [(Ipv4Addr::LOCALHOST.into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)];
            let loopback = loopback.into_iter().filter_map(|(ip, prefix)| IpNet::new(ip, prefix).ok());
            let from = self.neighbours.iter().copied().chain(loopback);
            rules.extend(from.map(|net| Rule::new().address(Side::From, net, true).mark(bit)));
        }
        rules.extend([Rule::new().jump(&to), Rule::new().unmark(bit)]);
        rules
    }

    fn sets(&self, name: &str) -> Vec<Set> {
        let mut sets = Vec::new();
        for (index, address) in [IPV4, IPV6].into_iter().enumerate() {
            let named = |starts: &[&str; 2]| starts.get(index).map(|start| format!("{start}{name}"));
            let values = Type::all(&[address, SERVICE]);
            let whole = Type::all(&[address, PROTOCOL, SERVICE]);
            sets.extend(named(&HOST).map(|n| Set::map(whole, values, n)));
            sets.extend(named(&ANY).map(|n| Set::map(Type::all(&[PROTOCOL, SERVICE]), values, n)));
            sets.extend(named(&SELF).filter(|_| self.has_hairpin()).map(|n| Set::of(whole, n)));
        }
        sets
    }

    /// What the names of all that these settings stand for end in.
    fn name(&self) -> String {
        let mut said = format!("{RULES_VERSION} {} {} {}", self.snat, self.masquerade_all, self.mark_bit);
        for net in &self.neighbours {
            said.push_str("\nneighbour ");
            said.push_str(&net.trunc().to_string());
        }
        for (family, conditions) in ["4", "6"].into_iter().zip(&self.conditions) {
            if !conditions.is_empty() {
                let rule = conditions.iter().fold(Rule::new(), condition);
                said.extend(["\n", family, " ", &rule.text]);
            }
        }
        fingerprint(&said)
    }
}

impl Forward {
    /// Whether the host reaches the pod by a loopback address of IPv4.
    pub fn is_at_loopback(&self) -> bool {
        match self.host {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_loopback(),
            IpAddr::V6(_) => false,
        }
    }

    /// Whether the kernel remembers a connection to it for as long as anybody sends, without a handshake
    /// that would tell an old one.
    pub fn is_remembered(&self) -> bool {
        self.protocol != Protocol::Tcp
    }

    /// The pod's entry in the map of the layout `name`.
    fn element(&self, name: &str) -> Element {
        let port = [Value::Protocol(self.protocol.number(), self.protocol.name()), Value::Port(self.port)];
        let to = [Value::Address(self.to.ip()), Value::Port(self.to.port())];
        let mut element = if self.host.is_unspecified() {
            Element::new(Family::Inet, format!("{}{name}", of(ANY, self.host)), &port)
        } else {
            let [protocol, port] = port;
            let key = [Value::Address(self.host), protocol, port];
            Element::new(Family::Inet, format!("{}{name}", of(HOST, self.host)), &key)
        };
        element.hint = HINT;
        element.to(&to)
    }

    /// What tells the pod's own connections to the port.
    fn hairpin(&self, name: &str) -> Element {
        let protocol = Value::Protocol(self.protocol.number(), self.protocol.name());
        let key = [Value::Address(self.to.ip()), protocol, Value::Port(self.port)];
        Element::new(Family::Inet, format!("{}{name}", of(SELF, self.host)), &key)
    }
}

/// Where any of `sets` may hold one of the ports.
pub(super) fn places(forwards: &[Forward], sets: &[String]) -> Vec<Element> {
    let mut all = Vec::new();
    for set in sets {
        for forward in forwards {
            let name = |start: &str| set.strip_prefix(start);
            let map = if forward.host.is_unspecified() { ANY } else { HOST };
            if let Some(name) = name(of(map, forward.host)) {
                all.push(forward.element(name));
            } else if let Some(name) = name(of(SELF, forward.host)) {
                let hairpin = forward.hairpin(name);
                if !all.contains(&hairpin) {
                    all.push(hairpin);
                }
            }
        }
    }
    all
}

/// The port that an element of a map leads from, where it is one of these maps.
pub(super) fn forward_of(set: &str, held: &Held) -> Option<Forward> {
    let index =
        LIKE.iter().position(|like| set.starts_with(of(ANY, *like)) || set.starts_with(of(HOST, *like)))?;
    let like = *LIKE.get(index)?;
    let width = if like.is_ipv4() { 4 } else { 16 };
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let number = |bytes: &[u8]| bytes.first_chunk::<2>().map(|b| u16::from_be_bytes(*b));
    let (host, key) = if set.starts_with(of(HOST, like)) {
        let (host, key) = held.key.split_at_checked(width)?;
        (address(host)?, key)
    } else {
        (like, held.key.as_slice())
    };
    let protocol = Protocol::ALL.into_iter().find(|p| Some(&p.number()) == key.first())?;
    let (pod, port) = held.data.split_at_checked(width)?;
    let to = SocketAddr::new(address(pod)?, number(port)?);
    Some(Forward { host, port: number(key.get(4..)?)?, protocol, to })
}

/// What the layout is called whose chain, set or map has this name.
pub(super) fn layout_of(name: &str) -> Option<&str> {
    let chains = [TO, IN, OUT, LEAVE, CHAIN];
    let all = chains.iter().chain(&ANY).chain(&HOST).chain(&SELF);
    all.into_iter().find_map(|start| name.strip_prefix(start))
}

/// Where the pods of ports are, in the order of preference: ports of one address go first.
fn destinations(name: &str) -> Vec<Rule> {
    let each = LIKE.iter().zip(HOST.iter().zip(&ANY));
    each.flat_map(|(like, (host, any))| {
        let whole = [Part::Address(Side::To, *like), Part::Protocol, Part::DestinationPort];
        [
            Rule::new().destination_nat(*like, &whole, &format!("{host}{name}")),
            Rule::new().destination_nat(*like, &PORT, &format!("{any}{name}")),
        ]
    })
    .collect()
}

fn condition(rule: Rule, condition: &Condition) -> Rule {
    match condition {
        Condition::Source { net, is } => rule.address(Side::From, *net, *is),
        Condition::Destination { net, is } => rule.address(Side::To, *net, *is),
        Condition::Interface { name, is } => rule.interface(Side::From, name, *is),
    }
}

/// Nothing from a link reaches the host's loopback addresses, nor claims to come from one. The kernel sees to
/// that itself where `route_localnet` is off, and always for IPv6 (RFC 4291, section 2.5.3).
fn guard_layout() -> Layout {
    let loopback = IpNet::new(Ipv4Addr::LOCALHOST.into(), 8).ok();
    let rule = |side| {
        loopback.map(|net| Rule::new().interface(Side::From, "lo", false).address(side, net, true).drop())
    };
    let rules = [Side::To, Side::From].into_iter().filter_map(rule).collect();
    // Before connections are tracked: an answer to a loopback address bears the node's own until then.
    let chain = Chain::base(GUARD, Hook::filter(libc::NF_INET_PRE_ROUTING, RAW), rules);
    Layout { family: Family::Inet, kind: GUARD, sets: Vec::new(), chains: vec![chain] }
}

fn of(starts: [&'static str; 2], like: IpAddr) -> &'static str {
    let [four, six] = starts;
    if like.is_ipv4() { four } else { six }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, from) = (self.protocol, SocketAddr::new(self.host, self.port));
        write!(f, "{from}/{protocol} to {}", self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> PortRules {
        PortRules {
            snat: true,
            masquerade_all: false,
            mark_bit: 13,
            neighbours: vec!["10.88.0.0/16".parse().unwrap()],
            conditions: [Vec::new(), Vec::new()],
        }
    }

    fn forward(host: &str, to: &str) -> Forward {
        let (host, to) = (host.parse().unwrap(), to.parse().unwrap());
        Forward { host, port: 80, protocol: Protocol::Tcp, to }
    }

    fn lines(layout: &Layout) -> Vec<String> {
        let chains = layout.chains.iter();
        let each = chains.flat_map(|c| c.rules.iter().map(move |r| format!("{}: {}", c.name, r.text)));
        each.map(|line| line.replace(layout_of(&layout.chains[0].name).unwrap(), "N")).collect()
    }

    #[test]
    fn names_are_stable_because_a_later_version_must_find_them() {
        assert_eq!(rules().name(), "0eba6b96");
        let other = [
            PortRules { snat: false, ..rules() },
            PortRules { masquerade_all: true, ..rules() },
            PortRules { mark_bit: 14, ..rules() },
            PortRules { neighbours: Vec::new(), ..rules() },
            PortRules {
                conditions: [Vec::new(), vec![Condition::Interface { name: "eth0".into(), is: true }]],
                ..rules()
            },
        ];
        for other in other {
            assert_ne!(other.name(), rules().name());
        }
    }

    #[test]
    fn what_would_miss_the_node_is_marked_and_no_other_traffic_stays_marked() {
        assert_eq!(
            lines(&rules().layout()),
            [
                "ports-to-N: dnat ip to ip daddr . meta l4proto . th dport map @hostports4-N",
                "ports-to-N: dnat ip to meta l4proto . th dport map @ports4-N",
                "ports-to-N: dnat ip6 to ip6 daddr . meta l4proto . th dport map @hostports6-N",
                "ports-to-N: dnat ip6 to meta l4proto . th dport map @ports6-N",
                "ports-N: meta mark & 0x00002000 == 0x00002000 goto ports-to-N",
                "ports-N: ip saddr . meta l4proto . th dport @hairpin4-N meta mark set meta mark | 0x00002000",
                "ports-N: ip6 saddr . meta l4proto . th dport @hairpin6-N meta mark set meta mark | 0x00002000",
                "ports-N: ip saddr 10.88.0.0/16 meta mark set meta mark | 0x00002000",
                "ports-N: ip saddr 127.0.0.0/8 meta mark set meta mark | 0x00002000",
                "ports-N: ip6 saddr ::1 meta mark set meta mark | 0x00002000",
                "ports-N: jump ports-to-N",
                "ports-N: meta mark set meta mark & 0xffffdfff",
                "ports-in-N: meta nfproto ipv4 fib daddr type local jump ports-N",
                "ports-in-N: meta nfproto ipv6 fib daddr type local jump ports-N",
                "ports-out-N: meta nfproto ipv4 fib daddr type local jump ports-N",
                "ports-out-N: meta nfproto ipv6 fib daddr type local jump ports-N",
                "ports-leave-N: meta mark & 0x00002000 == 0x00002000 masquerade fully-random",
            ]
        );
    }

    #[test]
    fn without_snat_nothing_is_marked_and_loopback_stays_the_hosts() {
        let lines = lines(&PortRules { snat: false, ..rules() }.layout());
        assert!(lines.iter().all(|l| !l.contains("mark") && !l.contains("masquerade")), "{lines:?}");
        assert!(lines.contains(&"ports-out-N: ip daddr 127.0.0.0/8 return".to_owned()), "{lines:?}");
        assert!(
            lines.contains(&"ports-in-N: meta nfproto ipv4 fib daddr type local jump ports-to-N".to_owned())
        );
    }

    #[test]
    fn conditions_hold_for_their_family_alone() {
        let net = "192.0.2.0/24".parse().unwrap();
        let conditions = [vec![Condition::Destination { net, is: false }], Vec::new()];
        let lines = lines(&PortRules { conditions, ..rules() }.layout());
        let four = "ports-in-N: meta nfproto ipv4 ip daddr != 192.0.2.0/24 fib daddr type local jump ports-N";
        assert!(lines.iter().any(|l| l == four), "{lines:?}");
        assert!(lines.iter().any(|l| l == "ports-in-N: meta nfproto ipv6 fib daddr type local jump ports-N"));
    }

    #[test]
    fn an_element_is_found_in_whichever_layout() {
        let forwards = [forward("0.0.0.0", "10.88.0.2:8080"), forward("192.0.2.1", "10.88.0.2:8080")];
        let elements = rules().elements(&forwards);
        let sets: Vec<String> = rules().layout().sets.into_iter().map(|s| s.name).collect();
        let mut places = places(&forwards, &sets);
        assert_eq!(elements.len(), 3, "one hairpin for both");
        let held = |e: &Element| Held {
            key: e.key.clone(),
            data: e.data.clone().unwrap_or_default(),
            comment: String::new(),
        };
        let read: Vec<Forward> = elements.iter().filter_map(|e| forward_of(&e.set, &held(e))).collect();
        assert_eq!(read, forwards);
        let six = [forward("fd00::1", "[fd00::2]:53"), forward("::", "[fd00::2]:53")];
        let read = rules().elements(&six);
        assert_eq!(read.iter().filter_map(|e| forward_of(&e.set, &held(e))).collect::<Vec<_>>(), six);
        places.retain(|place| !elements.contains(place));
        assert_eq!(places, []);
        assert_eq!(forwards.map(|f| f.is_at_loopback()), [true, false]);
    }
}
