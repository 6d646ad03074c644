//! Masquerade of a network's pods: one chain, two sets of pods' addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::element::Element;
use super::layout::{Chain, Family, Hook, IPV4, IPV6, Layout, SOURCE_NAT, Set, fingerprint};
use super::rule::{HeldRule, Part, Rule, Side};

/// Changes when the rules that a [`Masquerade`] stands for do, so that a newer program makes a chain
/// of its own instead of fighting an older one over the same name.
const RULES_VERSION: &str = "1";
const CHAIN: &str = "masq-";
const PODS4: &str = "pods4-";
const PODS6: &str = "pods6-";
/// Longest part of a network's name in ours: kernels before 4.14 aside, names go to 255 bytes.
const NAME_MAX: usize = 100;
/// Where no network has pods, and where a node must not masquerade: multicast, broadcast, the link.
const NEVER: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

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
        let keep = |net| Rule::new().address(Side::To, net, true).go_back();
        let mut rules: Vec<Rule> = self.keep.iter().copied().chain(never).map(keep).collect();
        rules.extend([v4, v6].map(|like| {
            Rule::new().within(&[Part::Address(Side::From, like)], &self.set(like)).masquerade()
        }));
        Layout {
            family: Family::Inet,
            kind: CHAIN,
            sets: vec![Set::of(IPV4, self.set(v4)), Set::of(IPV6, self.set(v6))],
            chains: vec![Chain::base(self.chain(), Hook::nat(libc::NF_INET_POST_ROUTING, SOURCE_NAT), rules)],
        }
    }

    /// The same addresses in other networks' sets, where a pod that vanished left them.
    pub(super) fn elsewhere(&self, addresses: &[IpAddr], found: &[HeldRule]) -> Vec<Element> {
        let (own, mut others) = (self.name(), Vec::new());
        others.extend(found.iter().filter_map(|r| r.chain.strip_prefix(CHAIN)).filter(|n| *n != own));
        others.dedup();
        let places = |a: &IpAddr| {
            let address = *a;
            others.iter().map(move |name| Element::address(format!("{}{name}", prefix(address)), address))
        };
        addresses.iter().flat_map(places).collect()
    }

    fn name(&self) -> String {
        let mut said = format!("{RULES_VERSION}\n{}", self.network);
        for net in &self.keep {
            said.push('\n');
            said.push_str(&net.trunc().to_string());
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let network: String = self.network.chars().take(NAME_MAX).map(plain).collect();
        format!("{network}-{}", fingerprint(&said))
    }
}

/// Where any of `sets` may hold one of `addresses`.
pub(super) fn places(addresses: &[IpAddr], sets: &[String]) -> Vec<Element> {
    let places = |a: &IpAddr| {
        let address = *a;
        let fits = sets.iter().filter(move |s| s.starts_with(prefix(address)));
        fits.map(move |s| Element::address(s.clone(), address))
    };
    addresses.iter().flat_map(places).collect()
}

/// What the layout is called whose set or chain has this name.
pub(super) fn layout_of(name: &str) -> Option<&str> {
    [CHAIN, PODS4, PODS6].iter().find_map(|start| name.strip_prefix(start))
}

/// What the name of a set that can hold `address` begins with.
fn prefix(address: IpAddr) -> &'static str {
    if address.is_ipv4() { PODS4 } else { PODS6 }
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
            assert_eq!(layout_of(&pods.set(address.parse().unwrap())), layout_of(&pods.chain()));
        }
        assert_eq!(layout_of("other"), None);
    }

    #[test]
    fn the_kept_networks_come_before_what_is_never_masqueraded() {
        let rules = what("pods", &["10.0.0.0/8"]).layout().chains.remove(0).rules;
        let texts: Vec<&str> = rules.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(texts.len(), 7);
        assert_eq!(texts[0], "ip daddr 10.0.0.0/8 return");
        assert_eq!(texts[1], "ip daddr 224.0.0.0/4 return");
        assert!(texts[5].starts_with("ip saddr @pods4-pods-"), "{texts:?}");
        assert!(texts[6].ends_with(" masquerade fully-random"), "{texts:?}");
    }
}
