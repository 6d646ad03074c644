//! Rules as lists of nf_tables expressions: written, and compared with what the kernel holds. A rule is
//! put together from parts that read as nft's own words, in nft's own encoding, so that a ruleset that an
//! operator saved and loaded again is still ours.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::nftables::{CtKeys, MetaKeys, PayloadBase, PushExprListAttrs, RuleAttrs, VerdictCode};
use netlink_bindings::utils::IterableChunks;

use super::element::{IFNAME_LEN, comment_of};
use super::expression::{Expression, FIRST, says};

/// The first of the registers of four bytes, which share their room with those of sixteen.
const FIRST_OF_FOUR: u32 = 8;
const LINK: u32 = PayloadBase::LinkLayerHeader as u32;
const NETWORK: u32 = PayloadBase::NetworkHeader as u32;
const TRANSPORT: u32 = PayloadBase::TransportHeader as u32;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`, and `IPS_DST_NAT`, in
/// linux/netfilter/nf_conntrack_common.h.
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const DESTINATION_TRANSLATED: u32 = 1 << 5;

/// A rule: how nft prints it, and its expressions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub text: String,
    expressions: Vec<Expression>,
    /// The family that earlier parts let through alone.
    guard: Option<u8>,
}

/// Which end of a packet or of its way through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Where it comes from.
    From,
    /// Where it goes.
    To,
}

/// A part of a key that is looked up, read from the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// An address of `like`'s family.
    Address(Side, IpAddr),
    /// The interface that the packet came by or leaves by.
    Interface(Side),
    /// Its protocol.
    Protocol,
    /// The port that it goes to.
    DestinationPort,
    /// The sender's MAC.
    EtherSource,
}

impl Rule {
    /// An empty rule: what it is about comes first, what becomes of that last.
    pub fn new() -> Self {
        Self::default()
    }

    /// Packets of `like`'s family.
    pub fn family(mut self, like: IpAddr) -> Self {
        if self.guarded(like) {
            self.say(format_args!("meta nfproto {}", if like.is_ipv4() { "ipv4" } else { "ipv6" }));
        }
        self
    }

    /// Packets whose address is in `net`, or is not. Whole bytes of a prefix are compared without a mask.
    pub fn address(mut self, side: Side, net: IpNet, is: bool) -> Self {
        let net = net.trunc();
        self.guarded(net.addr());
        let (mut address, mask) = (octets(net.addr()), octets(net.netmask()));
        let bits = usize::from(net.prefix_len());
        let whole = bits > 0 && bits.is_multiple_of(8);
        if whole {
            address.truncate(bits / 8);
        }
        let width = u32::try_from(address.len()).unwrap_or_default();
        let (word, offset) = header(net.addr(), side);
        self.expressions.push(Expression::Payload { base: NETWORK, at: (offset, width), register: FIRST });
        if !whole {
            let xor = vec![0; mask.len()];
            self.expressions.push(Expression::Bitwise { mask, xor });
        }
        self.expressions.push(Expression::Compare { equal: is, value: address });
        let single = net.prefix_len() == net.max_prefix_len();
        let shown = if single { net.addr().to_string() } else { net.to_string() };
        self.say(format_args!("{word} {}{shown}", but(is)));
        self
    }

    /// Packets by the interface `name`, or by another; a `*` at its end stands for any further letters.
    pub fn interface(mut self, side: Side, name: &str, is: bool) -> Self {
        let value = match name.strip_suffix('*') {
            Some(start) => start.as_bytes().to_vec(),
            None => padded(name),
        };
        let (word, key) = interface(side);
        self.expressions.push(Expression::Meta { key, register: FIRST });
        self.expressions.push(Expression::Compare { equal: is, value });
        self.say(format_args!("{word} {}\"{name}\"", but(is)));
        self
    }

    /// Packets to an address of this host.
    pub fn for_this_host(mut self) -> Self {
        let value = u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec();
        self.expressions.extend([Expression::DestinationType, Expression::Compare { equal: true, value }]);
        self.say(format_args!("fib daddr type local"));
        self
    }

    /// Packets with this bit of their mark.
    pub fn marked(mut self, bit: u32) -> Self {
        let mask = bit.to_ne_bytes().to_vec();
        self.expressions.extend([
            Expression::Meta { key: MetaKeys::Mark as u32, register: FIRST },
            Expression::Bitwise { mask: mask.clone(), xor: vec![0; 4] },
            Expression::Compare { equal: true, value: mask },
        ]);
        self.say(format_args!("meta mark & {bit:#010x} == {bit:#010x}"));
        self
    }

    /// Packets of a connection that was allowed before, and errors about one.
    pub fn established(self) -> Self {
        self.connection(CtKeys::State, ESTABLISHED | RELATED, "ct state established,related")
    }

    /// Packets of a connection whose destination was translated.
    pub fn translated(self) -> Self {
        self.connection(CtKeys::Status, DESTINATION_TRANSLATED, "ct status dnat")
    }

    /// Packets whose parts together are a key of `set`.
    pub fn within(mut self, parts: &[Part], set: &str) -> Self {
        let words = self.load(parts);
        self.expressions.push(Expression::Lookup { set: set.to_owned(), has_data: false });
        self.say(format_args!("{words} @{set}"));
        self
    }

    /// Gives them this bit of the mark.
    pub fn mark(mut self, bit: u32) -> Self {
        self.change_mark(bit, bit);
        self.say(format_args!("meta mark set meta mark | {bit:#010x}"));
        self
    }

    /// Takes this bit of the mark away.
    pub fn unmark(mut self, bit: u32) -> Self {
        self.change_mark(bit, 0);
        self.say(format_args!("meta mark set meta mark & {:#010x}", !bit));
        self
    }

    /// Sends what goes to a key of `map` to the address and port that the map has for it.
    pub fn destination_nat(mut self, like: IpAddr, parts: &[Part], map: &str) -> Self {
        let words = self.load(parts);
        let (word, family, words_of_address) =
            if like.is_ipv4() { ("ip", NFPROTO_IPV4, 1) } else { ("ip6", NFPROTO_IPV6, 4) };
        self.expressions.push(Expression::Lookup { set: map.to_owned(), has_data: true });
        self.expressions.push(Expression::DestinationNat { family, port: register(words_of_address) });
        self.say(format_args!("dnat {word} to {words} map @{map}"));
        self
    }

    /// They leave with the address of the interface that they leave by.
    pub fn masquerade(mut self) -> Self {
        self.expressions.push(Expression::Masquerade);
        self.say(format_args!("masquerade fully-random"));
        self
    }

    /// They go on where the chain was called from.
    pub fn go_back(self) -> Self {
        self.verdict("return", VerdictCode::Return as u32, None)
    }

    /// They go nowhere.
    pub fn drop(self) -> Self {
        self.verdict("drop", libc::NF_DROP.unsigned_abs(), None)
    }

    /// They pass this hook's chain.
    pub fn accept(self) -> Self {
        self.verdict("accept", libc::NF_ACCEPT.unsigned_abs(), None)
    }

    /// They go through `chain` and come back.
    pub fn jump(self, chain: &str) -> Self {
        self.verdict("jump", VerdictCode::Jump as u32, Some(chain))
    }

    /// They go through `chain` and do not come back.
    pub fn goto(self, chain: &str) -> Self {
        self.verdict("goto", VerdictCode::Goto as u32, Some(chain))
    }

    /// The chain that the rule calls.
    pub fn calls(&self) -> Option<&str> {
        self.expressions.iter().find_map(|e| match e {
            Expression::Verdict { chain, .. } => chain.as_deref(),
            _ => None,
        })
    }

    /// Appends the list's items, without the attribute around them.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let mut list = PushExprListAttrs::new(buffer);
        for expression in &self.expressions {
            list = expression.encode(list);
        }
        drop(list);
    }

    /// Whether `held` says the same. What the kernel adds on its own (an operator's default, flags of
    /// zero) does not count; what we say must be there, in our order, and no further expression.
    pub fn is(&self, held: &HeldRule) -> bool {
        let mut ours = Vec::with_capacity(512);
        self.encode(&mut ours);
        let (ours, theirs) = (IterableChunks::new(&ours), IterableChunks::new(&held.expressions));
        ours.count() == theirs.count() && ours.zip(theirs).all(|((_, a), (_, b))| says(a, b))
    }

    fn say(&mut self, words: impl Display) {
        let gap = if self.text.is_empty() { "" } else { " " };
        self.text = format!("{}{gap}{words}", self.text);
    }

    /// The inet family needs to hear once which addresses are meant; false where it was told already.
    fn guarded(&mut self, like: IpAddr) -> bool {
        let family = if like.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
        if self.guard == Some(family) {
            return false;
        }
        self.guard = Some(family);
        self.expressions.extend([
            Expression::Meta { key: MetaKeys::Nfproto as u32, register: FIRST },
            Expression::Compare { equal: true, value: vec![family] },
        ]);
        true
    }

    /// Reads the parts into registers one behind the other, each in whole words of four bytes.
    fn load(&mut self, parts: &[Part]) -> String {
        for part in parts {
            if let Part::Address(_, like) = part {
                self.guarded(*like);
            }
        }
        let (mut place, mut words) = (0, Vec::new());
        for part in parts {
            let (word, width, expression) = part.read(register(place));
            place += width;
            words.push(word);
            self.expressions.push(expression);
        }
        words.join(" . ")
    }

    /// Packets whose connection has one of these bits.
    fn connection(mut self, key: CtKeys, bits: u32, words: &str) -> Self {
        self.expressions.extend([
            Expression::Connection { key: key as u32 },
            Expression::Bitwise { mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
            Expression::Compare { equal: false, value: vec![0; 4] },
        ]);
        self.say(words);
        self
    }

    fn change_mark(&mut self, bit: u32, to: u32) {
        self.expressions.extend([
            Expression::Meta { key: MetaKeys::Mark as u32, register: FIRST },
            Expression::Bitwise { mask: (!bit).to_ne_bytes().to_vec(), xor: to.to_ne_bytes().to_vec() },
            Expression::SetMark,
        ]);
    }

    fn verdict(mut self, word: &str, code: u32, chain: Option<&str>) -> Self {
        self.expressions.push(Expression::Verdict { code, chain: chain.map(str::to_owned) });
        match chain {
            Some(chain) => self.say(format_args!("{word} {chain}")),
            None => self.say(word),
        }
        self
    }
}

impl Part {
    /// nft's word, the width in words of four bytes, and what reads it into a register.
    fn read(self, register: u32) -> (&'static str, u32, Expression) {
        let payload = |base, at| Expression::Payload { base, at, register };
        match self {
            Self::Address(side, like) => {
                let (word, offset) = header(like, side);
                let words = if like.is_ipv4() { 1 } else { 4 };
                (word, words, payload(NETWORK, (offset, words * 4)))
            }
            Self::Interface(side) => {
                let (word, key) = interface(side);
                (word, 4, Expression::Meta { key, register })
            }
            Self::Protocol => {
                ("meta l4proto", 1, Expression::Meta { key: MetaKeys::L4Proto as u32, register })
            }
            Self::DestinationPort => ("th dport", 1, payload(TRANSPORT, (2, 2))),
            Self::EtherSource => ("ether saddr", 2, payload(LINK, (6, 6))),
        }
    }
}

/// The register that begins at this word of four bytes, under the number that the kernel gives it back by.
fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) { FIRST + word / 4 } else { FIRST_OF_FOUR + word }
}

/// nft's word for an address of `like`'s family, and where it is in the header.
fn header(like: IpAddr, side: Side) -> (&'static str, u32) {
    match (like, side) {
        (IpAddr::V4(_), Side::From) => ("ip saddr", 12),
        (IpAddr::V4(_), Side::To) => ("ip daddr", 16),
        (IpAddr::V6(_), Side::From) => ("ip6 saddr", 8),
        (IpAddr::V6(_), Side::To) => ("ip6 daddr", 24),
    }
}

fn interface(side: Side) -> (&'static str, u32) {
    match side {
        Side::From => ("iifname", MetaKeys::Iifname as u32),
        Side::To => ("oifname", MetaKeys::Oifname as u32),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn padded(name: &str) -> Vec<u8> {
    let mut value = name.as_bytes().to_vec();
    value.resize(IFNAME_LEN, 0);
    value
}

fn but(is: bool) -> &'static str {
    if is { "" } else { "!= " }
}

/// A rule as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldRule {
    pub chain: String,
    pub comment: String,
    expressions: Vec<u8>,
}

impl HeldRule {
    /// The rule of one message, appended to `all`.
    pub fn read(attributes: &[u8], all: &mut Vec<Self>) {
        let mut rule = Self { chain: String::new(), comment: String::new(), expressions: Vec::new() };
        for attribute in RuleAttrs::new(attributes) {
            match attribute {
                Ok(RuleAttrs::Chain(name)) => rule.chain = name.to_string_lossy().into_owned(),
                Ok(RuleAttrs::Userdata(data)) => rule.comment = comment_of(data),
                Ok(RuleAttrs::Expressions(list)) => rule.expressions = list.get_buf().to_vec(),
                _ => {}
            }
        }
        all.push(rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(net: &str) -> Rule {
        Rule::new().address(Side::To, net.parse().unwrap(), true).go_back()
    }

    fn held(rule: &Rule) -> HeldRule {
        let mut expressions = Vec::new();
        rule.encode(&mut expressions);
        HeldRule { chain: "c".into(), comment: String::new(), expressions }
    }

    #[test]
    fn rules_read_as_nft_prints_them() {
        let cases = [
            ("10.1.2.3/8", "ip daddr 10.0.0.0/8 return"),
            ("255.255.255.255/32", "ip daddr 255.255.255.255 return"),
            ("fe80::/10", "ip6 daddr fe80::/10 return"),
        ];
        for (net, expect) in cases {
            assert_eq!(keep(net).text, expect);
        }
        let v4 = IpAddr::from([0, 0, 0, 0]);
        let rule = Rule::new().family(v4).interface(Side::From, "eth*", false).for_this_host().jump("c");
        assert_eq!(rule.text, "meta nfproto ipv4 iifname != \"eth*\" fib daddr type local jump c");
        assert_eq!(rule.calls(), Some("c"));
        let parts = [Part::Address(Side::To, v4), Part::Protocol, Part::DestinationPort];
        let rule = Rule::new().destination_nat(v4, &parts, "m");
        assert_eq!(rule.text, "dnat ip to ip daddr . meta l4proto . th dport map @m");
    }

    #[test]
    fn a_rule_is_itself_and_no_other() {
        let v4 = IpAddr::from([0, 0, 0, 0]);
        let port = [Part::Protocol, Part::DestinationPort];
        let rules = [
            keep("10.0.0.0/8"),
            keep("10.0.0.0/9"),
            keep("10.0.0.0/32"),
            keep("fd00::/8"),
            Rule::new().address(Side::To, "10.0.0.0/8".parse().unwrap(), false).go_back(),
            Rule::new().address(Side::From, "10.0.0.0/8".parse().unwrap(), true).go_back(),
            Rule::new().within(&[Part::Address(Side::From, v4)], "a").masquerade(),
            Rule::new().within(&[Part::Address(Side::From, v4)], "b").masquerade(),
            Rule::new().within(&port, "a").drop(),
            Rule::new().destination_nat(v4, &port, "a"),
            Rule::new().destination_nat([0; 16].into(), &port, "a"),
            Rule::new().marked(1).masquerade(),
            Rule::new().marked(2).masquerade(),
            Rule::new().mark(1),
            Rule::new().unmark(1),
            Rule::new().for_this_host().jump("a"),
            Rule::new().for_this_host().goto("a"),
            Rule::new().for_this_host().jump("b"),
            Rule::new().interface(Side::From, "eth*", true).drop(),
            Rule::new().interface(Side::From, "eth", true).drop(),
            Rule::new().interface(Side::To, "eth", true).drop(),
        ];
        for (i, a) in rules.iter().enumerate() {
            for (j, b) in rules.iter().enumerate() {
                assert_eq!(a.is(&held(b)), i == j, "{} against {}", a.text, b.text);
            }
        }
    }

    #[test]
    fn a_rule_with_one_more_expression_is_another() {
        let rule = Rule::new().interface(Side::From, "a", true).drop();
        let mut longer = rule.clone();
        longer.expressions.push(Expression::Verdict { code: 0, chain: None });
        assert!(!rule.is(&held(&longer)));
    }
}
