//! What of our tables is made, compared and re-made as one: chains with their rules, and the sets and
//! maps that the rules look up.

use std::fmt;

use netlink_bindings::nftables::SetFlags;

use super::element::hash;
use super::rule::{HeldRule, Rule};

/// The one table's name, in each family.
pub const TABLE: &str = "nodeplug";

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

/// What the keys of a set or the values of a map are: type as nft numbers it, width in bytes, and whether
/// nft prints it in the host's byte order (1), the network's (2) or part by part (0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Type {
    pub kind: u32,
    pub width: u32,
    pub byte_order: u8,
}

pub(super) const IPV4: Type = Type { kind: 7, width: 4, byte_order: 2 };
pub(super) const IPV6: Type = Type { kind: 8, width: 16, byte_order: 2 };
pub(super) const ETHER: Type = Type { kind: 9, width: 6, byte_order: 2 };
pub(super) const PROTOCOL: Type = Type { kind: 12, width: 1, byte_order: 2 };
pub(super) const SERVICE: Type = Type { kind: 13, width: 2, byte_order: 2 };
pub(super) const IFNAME: Type = Type { kind: 41, width: 16, byte_order: 1 };

impl Type {
    /// These one behind the other: six bits of the type for each, each in whole registers of four bytes.
    pub const fn all(parts: &[Self]) -> Self {
        let mut whole = Self { kind: 0, width: 0, byte_order: 0 };
        let mut rest = parts;
        while let [part, others @ ..] = rest {
            whole.kind = whole.kind << 6 | part.kind;
            whole.width += part.width.next_multiple_of(4);
            rest = others;
        }
        whole
    }
}

/// A set of ours, or a map where its keys lead to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub name: String,
    pub keys: Type,
    pub values: Option<Type>,
}

impl Set {
    /// A set of these keys.
    pub fn of(keys: Type, name: impl Into<String>) -> Self {
        Self { name: name.into(), keys, values: None }
    }

    /// A map from these keys to these values.
    pub fn map(keys: Type, values: Type, name: impl Into<String>) -> Self {
        Self { name: name.into(), keys, values: Some(values) }
    }
}

impl Set {
    /// Its flags in the kernel.
    pub fn flags(&self) -> u32 {
        if self.values.is_some() { SetFlags::Map as u32 } else { 0 }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} `{}`", if self.values.is_some() { "map" } else { "set" }, self.name)
    }
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

/// `dstnat` and `srcnat` of nft(8).
pub(super) const DESTINATION_NAT: i32 = -100;
pub(super) const SOURCE_NAT: i32 = 100;
/// `raw` of nft(8): before connections are tracked.
pub(super) const RAW: i32 = -300;

impl Hook {
    /// Address translation at one of `NF_INET_*`.
    pub fn nat(number: i32, priority: i32) -> Self {
        Self { kind: "nat", number: number.unsigned_abs(), priority }
    }

    /// Filtering there.
    pub fn filter(number: i32, priority: i32) -> Self {
        Self { kind: "filter", number: number.unsigned_abs(), priority }
    }
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub name: String,
    /// `None` for one that others call.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
    /// Its rules are the operator's: the chain is made where it is missing, and left alone after that.
    pub free: bool,
}

impl Chain {
    /// A chain at a hook.
    pub fn base(name: impl Into<String>, hook: Hook, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), hook: Some(hook), rules, free: false }
    }

    /// A chain that others call.
    pub fn called(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), hook: None, rules, free: false }
    }

    /// The comment on the rule at `index`, which tells an operator whose it is and whether one is missing.
    pub fn note(&self, index: usize) -> String {
        format!("{TABLE} {} of {}", index + 1, self.rules.len())
    }

    /// Whether `found` holds this chain's rules, all of them, in order and no others.
    pub fn stands_in(&self, found: &[HeldRule]) -> bool {
        let mut held = found.iter().filter(|r| r.chain == self.name);
        self.free || self.rules.iter().all(|r| held.next().is_some_and(|h| r.is(h))) && held.next().is_none()
    }
}

/// Chains with their sets and rules: made, compared and re-made as one. Every chain has a rule, or is
/// called by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub family: Family,
    /// What the names of its chains begin with, whatever the settings: the kernel that took one such layout
    /// takes others.
    pub kind: &'static str,
    pub sets: Vec<Set>,
    /// One that is called stands before those that call it.
    pub chains: Vec<Chain>,
}

impl Layout {
    /// Whether `found` holds the rules of every chain. Rules look up the sets and call the chains, and the
    /// kernel removes no set or chain that is in use: so the rules prove all the rest.
    pub fn stands_in(&self, found: &[HeldRule]) -> bool {
        self.chains.iter().all(|chain| chain.stands_in(found))
    }
}

/// The settings that a layout stands for as the end of its chains' and sets' names.
pub(super) fn fingerprint(said: &str) -> String {
    let hash = hash(said.as_bytes());
    format!("{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_numbered_as_nft_numbers_them() {
        let port = Type::all(&[PROTOCOL, SERVICE]);
        assert_eq!(port, Type { kind: 781, width: 8, byte_order: 0 });
        assert_eq!(Type::all(&[IFNAME, ETHER]), Type { kind: 2633, width: 24, byte_order: 0 });
        assert_eq!(Type::all(&[IPV6, PROTOCOL, SERVICE]).width, 24);
    }
}
