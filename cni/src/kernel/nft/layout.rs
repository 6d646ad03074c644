//! What our tables hold: for a network its sets of pods and its chain, for the bridge the MAC check.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::element::{Element, hash};
use super::rule::{HeldRule, Rule};

/// The one table's name, in each family.
pub const TABLE: &str = "nodeplug";

/// Changes when the rules that a [`Masquerade`] stands for do, so that a newer program makes a chain
/// of its own instead of fighting an older one over the same name.
const RULES_VERSION: &str = "1";
const CHAIN: &str = "masq-";
const PODS4: &str = "pods4-";
const PODS6: &str = "pods6-";
const PORTS: &str = "ports";
const MACS: &str = "macs";
/// Longest part of a network's name in ours: kernels before 4.14 aside, names go to 255 bytes.
const NAME_MAX: usize = 100;
/// Where no network has pods, and where a node must not masquerade: multicast, broadcast, the link.
const NEVER: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// The families that we have a table in, by their number in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Inet = libc::NFPROTO_INET as isize,
    Bridge = libc::NFPROTO_BRIDGE as isize,
    /// Where only the host has tables.
    Ip = libc::NFPROTO_IPV4 as isize,
    Ip6 = libc::NFPROTO_IPV6 as isize,
}

impl Family {
    /// As nft calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{} {TABLE}`", self.word())
    }
}

/// What the keys of a set are: type as nft numbers it, width in bytes, and whether nft prints it in
/// the host's byte order (1), the network's (2) or part by part (0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    pub kind: u32,
    pub width: u32,
    pub byte_order: u8,
}

const IPV4: Keys = Keys { kind: 7, width: 4, byte_order: 2 };
const IPV6: Keys = Keys { kind: 8, width: 16, byte_order: 2 };
const IFNAME: Keys = Keys { kind: 41, width: 16, byte_order: 1 };
/// A concatenation's type is its parts' types, six bits each.
const IFNAME_ETHER: Keys = Keys { kind: 41 << 6 | 9, width: 24, byte_order: 0 };

/// A set of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub name: String,
    pub keys: Keys,
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hook {
    pub kind: String,
    pub number: u32,
    pub priority: i32,
}

/// A chain with its sets and rules: made, compared and re-made as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub family: Family,
    pub chain: String,
    pub hook: Hook,
    pub sets: [Set; 2],
    pub rules: Vec<Rule>,
}

impl Layout {
    /// The comment on the rule at `index`, which tells an operator whose it is and whether one is missing.
    pub fn note(&self, index: usize) -> String {
        format!("{TABLE} {} of {}", index + 1, self.rules.len())
    }

    /// Whether `found` holds this chain's rules, all of them, in order and no others. Rules look up the
    /// sets, and the kernel removes no set or chain that is in use: so the rules prove all the rest.
    pub fn stands_in(&self, found: &[HeldRule]) -> bool {
        let mut held = found.iter().filter(|r| r.chain == self.chain);
        self.rules.iter().all(|r| held.next().is_some_and(|h| r.is(h))) && held.next().is_none()
    }

    /// The MAC check of bridge ports: a frame from a watched port needs the MAC given to that port.
    pub fn spoof_check() -> Self {
        Self {
            family: Family::Bridge,
            chain: "prerouting".to_owned(),
            hook: Hook {
                kind: "filter".to_owned(),
                number: libc::NF_BR_PRE_ROUTING.unsigned_abs(),
                priority: -300,
            },
            sets: [
                Set { name: PORTS.to_owned(), keys: IFNAME },
                Set { name: MACS.to_owned(), keys: IFNAME_ETHER },
            ],
            rules: vec![Rule::pass_known(MACS), Rule::drop_from(PORTS)],
        }
    }

    /// The sets of the MAC check: ports, and ports with MACs.
    pub fn spoof_sets() -> [&'static str; 2] {
        [PORTS, MACS]
    }

    /// The elements that let `port` send from `mac` alone.
    pub fn spoof_elements(port: &str, mac: [u8; 6]) -> [Element; 2] {
        [Element::port(PORTS, port), Element::port_mac(MACS, port, mac)]
    }
}

/// What the chain of a network says: its pods leave with the node's address, except to `keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// The network's name.
    pub network: String,
    /// Destinations that see the pod's own address, in the order of the rules.
    pub keep: Vec<IpNet>,
}

impl Masquerade {
    /// The chain's name: `masq-NETWORK-HASH`, where the hash is over the network and its settings, so
    /// that pods made before a change of settings keep theirs.
    pub fn chain(&self) -> String {
        format!("{CHAIN}{}", self.name())
    }

    /// The set that holds the network's pods of `address`'s family.
    pub(super) fn set(&self, address: IpAddr) -> String {
        format!("{}{}", prefix(address), self.name())
    }

    pub(super) fn elements(&self, addresses: &[IpAddr]) -> Vec<Element> {
        addresses.iter().map(|a| Element::address(self.set(*a), *a)).collect()
    }

    pub(super) fn layout(&self) -> Layout {
        let v4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let v6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let never = NEVER.iter().filter_map(|(a, p)| IpNet::new(*a, *p).ok());
        let mut rules: Vec<Rule> = self.keep.iter().copied().chain(never).map(Rule::keep).collect();
        rules.extend([v4, v6].map(|like| Rule::masquerade(like, &self.set(like))));
        Layout {
            family: Family::Inet,
            chain: self.chain(),
            // 100 is `srcnat`.
            hook: Hook {
                kind: "nat".to_owned(),
                number: libc::NF_INET_POST_ROUTING.unsigned_abs(),
                priority: 100,
            },
            sets: [Set { name: self.set(v4), keys: IPV4 }, Set { name: self.set(v6), keys: IPV6 }],
            rules,
        }
    }

    fn name(&self) -> String {
        let mut said = format!("{RULES_VERSION}\n{}", self.network);
        for net in &self.keep {
            said.push('\n');
            said.push_str(&net.trunc().to_string());
        }
        let hash = hash(said.as_bytes());
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let network: String = self.network.chars().take(NAME_MAX).map(plain).collect();
        format!("{network}-{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff)
    }
}

/// What the name of a set that can hold `address` begins with.
pub(super) fn prefix(address: IpAddr) -> &'static str {
    if address.is_ipv4() { PODS4 } else { PODS6 }
}

/// The part of a network chain's name that its sets share.
pub(super) fn of_chain(chain: &str) -> Option<&str> {
    chain.strip_prefix(CHAIN)
}

/// The chain whose pods the set `name` holds.
pub(super) fn chain_of(set: &str) -> Option<String> {
    let name = set.strip_prefix(PODS4).or_else(|| set.strip_prefix(PODS6))?;
    Some(format!("{CHAIN}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(network: &str, keep: &[&str]) -> Masquerade {
        Masquerade { network: network.into(), keep: keep.iter().map(|n| n.parse().unwrap()).collect() }
    }

    #[test]
    fn chain_names_are_stable_because_a_later_version_must_find_them() {
        assert_eq!(what("pods", &["10.0.0.0/8"]).chain(), "masq-pods-3a2e3694");
        assert_eq!(what("pods", &["10.9.9.9/8"]).chain(), "masq-pods-3a2e3694");
        assert_ne!(what("pods", &[]).chain(), what("pods", &["10.0.0.0/8"]).chain());
    }

    #[test]
    fn odd_and_long_names_are_still_names_and_still_differ() {
        let (odd, twin) = (what("a.b/ü \"", &[]), what("a_b/ü \"", &[]));
        assert!(odd.chain().starts_with("masq-a_b____-"), "{}", odd.chain());
        assert_ne!(odd.chain(), twin.chain());
        let (one, two) = (what(&format!("{}1", "n".repeat(300)), &[]), what(&"n".repeat(300), &[]));
        assert!(one.chain().len() < 128);
        assert_ne!(one.chain(), two.chain());
    }

    #[test]
    fn a_set_names_its_chain() {
        let pods = what("pods", &[]);
        for address in ["10.0.0.1", "fd00::1"] {
            assert_eq!(chain_of(&pods.set(address.parse().unwrap())), Some(pods.chain()));
        }
        assert_eq!(chain_of("other"), None);
    }

    #[test]
    fn the_kept_networks_come_before_what_is_never_masqueraded() {
        let rules = what("pods", &["10.0.0.0/8"]).layout().rules;
        let texts: Vec<&str> = rules.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(texts.len(), 7);
        assert_eq!(texts[0], "ip daddr 10.0.0.0/8 return");
        assert_eq!(texts[1], "ip daddr 224.0.0.0/4 return");
        assert!(texts[5].starts_with("ip saddr @pods4-pods-"), "{texts:?}");
        assert!(texts[6].ends_with(" masquerade fully-random"), "{texts:?}");
    }
}
