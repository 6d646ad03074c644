//! Rules as lists of nf_tables expressions: written, and compared with what the kernel holds.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::nftables::{
    CmpOps, MetaKeys, NatRangeFlags, PayloadBase, PushDataAttrs, PushExprListAttrs, PushExprMasqAttrs,
    Registers, RuleAttrs, VerdictCode,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{IterableChunks, finalize_nested_header, push_header, push_nested_header};

use super::element::comment_of;

const FIRST: u32 = Registers::Reg1 as u32;
const SECOND: u32 = Registers::Reg2 as u32;
const VERDICT: u32 = Registers::RegVerdict as u32;
const RETURN: u32 = VerdictCode::Return as u32;
const DROP: u32 = VerdictCode::Drop as u32;
const PROTOCOL: u32 = MetaKeys::Nfproto as u32;
const INPUT_NAME: u32 = MetaKeys::Iifname as u32;
const LINK: u32 = PayloadBase::LinkLayerHeader as u32;
const NETWORK: u32 = PayloadBase::NetworkHeader as u32;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const EXPR_DATA: u16 = 2;
const LOOKUP_SREG: u16 = 2;
const ETHER_SOURCE: (u32, u32) = (6, 6);

/// One expression, in the words of `nft --debug=netlink`. Values go through the first register, and
/// the second half of a concatenation through the second.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Meta(u32),
    Payload { base: u32, at: (u32, u32), register: u32 },
    Mask(Vec<u8>),
    Equal(Vec<u8>),
    Lookup(String),
    Verdict(u32),
    Masquerade,
}

/// A rule: how nft prints it, and its expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub text: String,
    expressions: Vec<Expression>,
}

impl Rule {
    /// Traffic to `net` keeps its source. In nft's own encoding, so that a ruleset that an operator
    /// saved and loaded again is still ours: whole bytes of a prefix are compared without a mask.
    pub fn keep(net: IpNet) -> Self {
        let net = net.trunc();
        let (word, protocol, offset, mut address, mask) = match net {
            IpNet::V4(n) => {
                ("ip", NFPROTO_IPV4, 16, n.addr().octets().to_vec(), n.netmask().octets().to_vec())
            }
            IpNet::V6(n) => {
                ("ip6", NFPROTO_IPV6, 24, n.addr().octets().to_vec(), n.netmask().octets().to_vec())
            }
        };
        let bits = usize::from(net.prefix_len());
        let whole = bits > 0 && bits.is_multiple_of(8);
        if whole {
            address.truncate(bits / 8);
        }
        let mut expressions = address_of(protocol, offset, address.len());
        if !whole {
            expressions.push(Expression::Mask(mask));
        }
        expressions.extend([Expression::Equal(address), Expression::Verdict(RETURN)]);
        let single = net.prefix_len() == net.max_prefix_len();
        let shown = if single { net.addr().to_string() } else { net.to_string() };
        Self { text: format!("{word} daddr {shown} return"), expressions }
    }

    /// Traffic from an address of `set`, of `like`'s family, leaves with the node's address.
    pub fn masquerade(like: IpAddr, set: &str) -> Self {
        let (word, protocol, offset, bytes) =
            if like.is_ipv4() { ("ip", NFPROTO_IPV4, 12, 4) } else { ("ip6", NFPROTO_IPV6, 8, 16) };
        let mut expressions = address_of(protocol, offset, bytes);
        expressions.extend([Expression::Lookup(set.to_owned()), Expression::Masquerade]);
        Self { text: format!("{word} saddr @{set} masquerade fully-random"), expressions }
    }

    /// A frame from a port with the MAC that was given to it goes on.
    pub fn pass_known(macs: &str) -> Self {
        let source = Expression::Payload { base: LINK, at: ETHER_SOURCE, register: SECOND };
        let expressions = vec![
            Expression::Meta(INPUT_NAME),
            source,
            Expression::Lookup(macs.to_owned()),
            Expression::Verdict(RETURN),
        ];
        Self { text: format!("iifname . ether saddr @{macs} return"), expressions }
    }

    /// Any other frame from a port that is watched goes nowhere.
    pub fn drop_from(ports: &str) -> Self {
        let expressions = vec![
            Expression::Meta(INPUT_NAME),
            Expression::Lookup(ports.to_owned()),
            Expression::Verdict(DROP),
        ];
        Self { text: format!("iifname @{ports} drop"), expressions }
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
}

/// The guard that the inet family needs, and the first `bytes` of the address at `offset` of the header.
fn address_of(protocol: u8, offset: u32, bytes: usize) -> Vec<Expression> {
    let at = (offset, u32::try_from(bytes).unwrap_or_default());
    vec![
        Expression::Meta(PROTOCOL),
        Expression::Equal(vec![protocol]),
        Expression::Payload { base: NETWORK, at, register: FIRST },
    ]
}

/// Whether each attribute of `ours` is in `theirs` with the same value.
pub(super) fn says(ours: &[u8], theirs: &[u8]) -> bool {
    IterableChunks::new(ours).all(|(header, value)| {
        let held = IterableChunks::new(theirs).find(|(h, _)| h.r#type == header.r#type);
        held.is_some_and(|(_, held)| if header.is_nested { says(value, held) } else { value == held })
    })
}

type List<'a> = PushExprListAttrs<&'a mut Vec<u8>>;

impl Expression {
    fn encode<'a>(&self, list: List<'a>) -> List<'a> {
        let item = list.nested_elem();
        match self {
            Self::Meta(key) => {
                let meta = item.nested_data_meta().push_key(*key).push_dreg(FIRST);
                meta.end_nested().end_nested()
            }
            Self::Payload { base, at: (offset, length), register } => {
                let payload = item.nested_data_payload().push_dreg(*register).push_base(*base);
                payload.push_offset(*offset).push_len(*length).end_nested().end_nested()
            }
            Self::Mask(mask) => {
                let length = u32::try_from(mask.len()).unwrap_or_default();
                let bitwise = item.nested_data_bitwise().push_sreg(FIRST).push_dreg(FIRST).push_len(length);
                let bitwise = bitwise.nested_mask().push_value(mask).end_nested();
                let bitwise = bitwise.nested_xor().push_value(&vec![0; mask.len()]).end_nested();
                bitwise.end_nested().end_nested()
            }
            Self::Equal(value) => {
                let compare = item.nested_data_cmp().push_sreg(FIRST).push_op(CmpOps::Eq as u32);
                compare.nested_data().push_value(value).end_nested().end_nested().end_nested()
            }
            Self::Lookup(set) => {
                // The builders number the attributes after the set's name otherwise than the kernel.
                let mut lookup = item.nested_data_lookup().push_set_bytes(set.as_bytes());
                push_header(lookup.as_vec_mut(), LOOKUP_SREG, 4);
                lookup.as_vec_mut().extend(FIRST.to_be_bytes());
                lookup.end_nested().end_nested()
            }
            Self::Verdict(code) => {
                let data: PushDataAttrs<_> = item.nested_data_immediate().push_dreg(VERDICT).nested_data();
                let data = data.nested_verdict().push_code(*code).end_nested();
                data.end_nested().end_nested().end_nested()
            }
            Self::Masquerade => {
                let flags = NatRangeFlags::ProtoRandomFully as u32;
                // The specification that the builders come from names no data for `masq`.
                let mut item = item.push_name(c"masq");
                let data = push_nested_header(item.as_vec_mut(), EXPR_DATA);
                drop(PushExprMasqAttrs::new(item.as_vec_mut()).push_flags(flags));
                finalize_nested_header(item.as_vec_mut(), data);
                item.end_nested()
            }
        }
    }
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
            assert_eq!(Rule::keep(net.parse().unwrap()).text, expect);
        }
    }

    #[test]
    fn a_rule_is_itself_and_no_other() {
        let v4 = IpAddr::from([0, 0, 0, 0]);
        let rules = [
            Rule::keep("10.0.0.0/8".parse().unwrap()),
            Rule::keep("10.0.0.0/9".parse().unwrap()),
            Rule::keep("10.0.0.0/32".parse().unwrap()),
            Rule::keep("fd00::/8".parse().unwrap()),
            Rule::masquerade(v4, "a"),
            Rule::masquerade(v4, "b"),
            Rule::pass_known("macs"),
            Rule::drop_from("ports"),
        ];
        for (i, a) in rules.iter().enumerate() {
            for (j, b) in rules.iter().enumerate() {
                assert_eq!(a.is(&held(b)), i == j, "{} against {}", a.text, b.text);
            }
        }
    }

    #[test]
    fn a_rule_with_one_more_expression_is_another() {
        let rule = Rule::drop_from("ports");
        let mut longer = rule.clone();
        longer.expressions.push(Expression::Verdict(DROP));
        assert!(!rule.is(&held(&longer)));
    }
}
