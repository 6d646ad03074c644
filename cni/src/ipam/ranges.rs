//! Range arithmetic: what can be given and in which order. Nothing is ever listed in full, so that a
//! /8 or an IPv6 /64 costs what a /24 costs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Consecutive addresses of one subnet, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Its prefix goes onto every address given.
    pub subnet: IpNet,
    /// The first address.
    pub start: IpAddr,
    /// The last address.
    pub end: IpAddr,
    /// The gateway; never given.
    pub gateway: IpAddr,
}

/// Alternatives of one family: one address is given from the whole set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    /// Tried in this order, round and round.
    pub ranges: Vec<Range>,
}

/// Usable addresses without a gap, both ends included, of the range at an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    range: usize,
    first: u128,
    last: u128,
}

impl Range {
    /// Whether `address` lies between the ends.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && (self.start..=self.end).contains(&address)
    }

    /// Whether both hold a common address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }
}

impl RangeSet {
    /// The range that `address` is of, gateway and exclusions not considered.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|r| r.contains(address))
    }

    /// Whether a range of this set and one of `other` hold a common address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|a| other.ranges.iter().any(|b| a.overlaps(b)))
    }

    /// Whether `address` is the gateway of one of the ranges.
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|r| r.gateway == address)
    }

    /// How many addresses can be given in all; `u128::MAX` also stands for more.
    pub fn usable(&self, exclude: &[IpNet]) -> u128 {
        let each = self.spans(exclude).into_iter().map(|s| (s.last - s.first).saturating_add(1));
        each.fold(0, u128::saturating_add)
    }

    /// Every address that can be given, each once: from the one after `after`, range by range, round
    /// to `after` itself. An `after` that is of no range starts at the beginning.
    pub fn walk(&self, exclude: &[IpNet], after: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + use<> {
        let four = self.ranges.first().is_some_and(|r| r.start.is_ipv4());
        let mark = after.and_then(|a| {
            let range = self.ranges.iter().position(|r| r.contains(a))?;
            Some((range, number(a)))
        });
        let spans = self.spans(exclude);
        let head: Vec<_> = spans.iter().filter_map(|s| s.behind(mark)).collect();
        let tail: Vec<_> = spans.iter().filter_map(|s| s.up_to(mark)).collect();
        let all = head.into_iter().chain(tail);
        all.flat_map(|s| s.first..=s.last).map(move |n| address(n, four))
    }

    fn spans(&self, exclude: &[IpNet]) -> Vec<Span> {
        let mut spans = Vec::with_capacity(self.ranges.len() + 1);
        for (index, range) in self.ranges.iter().enumerate() {
            spans.push(Span { range: index, first: number(range.start), last: number(range.end) });
        }
        // A gateway is no pod's address, and no other range of the set may give it away either.
        for gateway in self.ranges.iter().map(|r| number(r.gateway)) {
            spans = without(&spans, gateway, gateway);
        }
        let four = self.ranges.first().is_some_and(|r| r.start.is_ipv4());
        for net in exclude.iter().filter(|n| n.addr().is_ipv4() == four) {
            spans = without(&spans, number(net.network()), number(net.broadcast()));
        }
        spans
    }
}

impl Span {
    /// The part behind `mark`, a range's index and an address in it; all of it where there is no mark.
    fn behind(self, mark: Option<(usize, u128)>) -> Option<Self> {
        let Some((range, at)) = mark else { return Some(self) };
        if self.range != range {
            return (self.range > range).then_some(self);
        }
        (self.last > at).then(|| Self { first: self.first.max(at.saturating_add(1)), ..self })
    }

    /// The rest: the part before `mark`, with it.
    fn up_to(self, mark: Option<(usize, u128)>) -> Option<Self> {
        let (range, at) = mark?;
        if self.range != range {
            return (self.range < range).then_some(self);
        }
        (self.first <= at).then(|| Self { last: self.last.min(at), ..self })
    }
}

/// `spans` without the addresses from `low` to `high`.
fn without(spans: &[Span], low: u128, high: u128) -> Vec<Span> {
    let mut left = Vec::with_capacity(spans.len() + 1);
    for span in spans {
        if high < span.first || low > span.last {
            left.push(*span);
            continue;
        }
        if low > span.first {
            left.push(Span { last: low - 1, ..*span });
        }
        if high < span.last {
            left.push(Span { first: high + 1, ..*span });
        }
    }
    left
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn address(number: u128, four: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(small) if four => Ipv4Addr::from(small).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}

/// The address `steps` after `from`; `None` past the family's end.
pub(crate) fn step(from: IpAddr, steps: u32) -> Option<IpAddr> {
    match from {
        IpAddr::V4(a) => u32::from(a).checked_add(steps).map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(a) => u128::from(a).checked_add(u128::from(steps)).map(|n| Ipv6Addr::from(n).into()),
    }
}

/// The last address of `subnet` that a host can have: IPv4's broadcast address is left out.
pub(crate) fn last_usable(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.broadcast()).saturating_sub(1)).into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}-{}", range.start, range.end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Range {
        let parse = |t: &str| t.parse().unwrap();
        Range {
            subnet: subnet.parse().unwrap(),
            start: parse(start),
            end: parse(end),
            gateway: parse(gateway),
        }
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn the_walk_goes_round_past_the_gateway_and_what_is_excluded() {
        let set = RangeSet {
            ranges: vec![
                range("10.0.0.0/24", "10.0.0.1", "10.0.0.6", "10.0.0.1"),
                range("10.9.0.0/24", "10.9.0.8", "10.9.0.9", "10.9.0.1"),
            ],
        };
        let exclude = nets(&["10.0.0.4/31", "fd00::/64"]);
        let table: [(&str, &[u8]); 6] = [
            ("", &[2, 3, 6, 8, 9]),
            ("10.0.0.2", &[3, 6, 8, 9, 2]),
            ("10.0.0.5", &[6, 8, 9, 2, 3]),
            ("10.0.0.6", &[8, 9, 2, 3, 6]),
            ("10.9.0.9", &[2, 3, 6, 8, 9]),
            ("192.168.0.1", &[2, 3, 6, 8, 9]),
        ];
        for (after, expect) in table {
            let walked: Vec<u8> = set
                .walk(&exclude, after.parse().ok())
                .map(|a| if let IpAddr::V4(a) = a { a.octets()[3] } else { 0 })
                .collect();
            assert_eq!(walked, expect, "after `{after}`");
        }
        assert_eq!(set.usable(&exclude), 5);
        assert_eq!(set.to_string(), "10.0.0.1-10.0.0.6,10.9.0.8-10.9.0.9");
    }

    #[test]
    fn a_wide_range_costs_no_more_than_a_narrow_one() {
        let eight = RangeSet { ranges: vec![range("10.0.0.0/8", "10.0.0.1", "10.255.255.254", "10.0.0.1")] };
        assert_eq!(eight.usable(&[]), (1 << 24) - 3);
        let six =
            RangeSet { ranges: vec![range("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1")] };
        assert_eq!(six.usable(&[]), (1 << 64) - 2);
        // Half of it excluded: the walk jumps over the hole.
        let exclude = nets(&["fd00::/65"]);
        assert_eq!(six.walk(&exclude, None).next(), "fd00::8000:0:0:0".parse().ok());
        let all =
            RangeSet { ranges: vec![range("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1")] };
        assert_eq!(all.usable(&[]), u128::MAX);
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().ok();
        assert_eq!(all.walk(&[], last).next(), "::".parse().ok());
    }

    fn a_set() -> impl Strategy<Value = RangeSet> {
        // Ranges in consecutive blocks of 64, in any order, so that they never overlap.
        let ends = prop::collection::vec((0u32..64, 0u32..64, 0u32..256), 1..4);
        (ends, any::<bool>()).prop_map(|(ends, backwards)| {
            let mut ranges: Vec<_> = ends
                .into_iter()
                .zip(0u32..)
                .map(|((a, b, gateway), block)| {
                    let at = |n: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + block * 64 + n));
                    Range {
                        subnet: "10.0.0.0/24".parse().unwrap(),
                        start: at(a.min(b)),
                        end: at(a.max(b)),
                        gateway: IpAddr::from(Ipv4Addr::from(0x0a00_0000 + gateway)),
                    }
                })
                .collect();
            if backwards {
                ranges.reverse();
            }
            RangeSet { ranges }
        })
    }

    proptest! {
        #[test]
        fn the_walk_gives_each_usable_address_once_and_starts_after_the_last(
            set in a_set(),
            after in prop::option::of(0u32..256),
            holes in prop::collection::vec((0u32..256, 28u8..=32), 0..4),
        ) {
            let after = after.map(|n| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)));
            let exclude: Vec<_> = holes
                .iter()
                .map(|(n, prefix)| {
                    IpNet::new(Ipv4Addr::from(0x0a00_0000 + n).into(), *prefix).unwrap().trunc()
                })
                .collect();
            let may = |a: &IpAddr| {
                set.range_of(*a).is_some() && !set.is_gateway(*a) && !exclude.iter().any(|n| n.contains(a))
            };
            let expect: HashSet<_> =
                (0u32..256).map(|n| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n))).filter(may).collect();
            let walked: Vec<_> = set.walk(&exclude, after).collect();
            prop_assert_eq!(walked.len() as u128, set.usable(&exclude));
            prop_assert_eq!(walked.iter().copied().collect::<HashSet<_>>(), expect);
            let plain: Vec<_> = set.walk(&exclude, None).collect();
            if let Some(at) = after.and_then(|a| plain.iter().position(|p| *p == a)) {
                // The last one given comes last, and its successor first.
                prop_assert_eq!(walked.last(), plain.get(at));
                prop_assert_eq!(walked.first(), plain.get((at + 1) % plain.len()));
            }
        }
    }
}
