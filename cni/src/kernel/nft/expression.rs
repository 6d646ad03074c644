//! The expressions that rules are made of, as the kernel reads them.

use std::ffi::CStr;

use netlink_bindings::nftables::{
    CmpOps, MetaKeys, NatRangeFlags, PushDataAttrs, PushExprAttrs, PushExprListAttrs, Registers,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{IterableChunks, finalize_nested_header, push_header, push_nested_header};

/// The register that values go through.
pub(super) const FIRST: u32 = Registers::Reg1 as u32;
const VERDICT: u32 = Registers::RegVerdict as u32;
const EXPR_DATA: u16 = 2;
const LOOKUP_SREG: u16 = 2;
const LOOKUP_DREG: u16 = 3;
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
const FIB_DREG: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
/// NFT_FIB_RESULT_ADDRTYPE and NFTA_FIB_F_DADDR in linux/netfilter/nf_tables.h.
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_OF_DADDR: u32 = 1 << 1;
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_REG_ADDR_MIN: u16 = 3;
const NAT_REG_PROTO_MIN: u16 = 5;
const NAT_OF_DESTINATION: u32 = 1;
const MASQ_FLAGS: u16 = 1;
const CT_DREG: u16 = 1;
const CT_KEY: u16 = 2;

/// One expression, in the words of `nft --debug=netlink`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are nft's")]
pub(super) enum Expression {
    Meta { key: u32, register: u32 },
    SetMark,
    Payload { base: u32, at: (u32, u32), register: u32 },
    Bitwise { mask: Vec<u8>, xor: Vec<u8> },
    Compare { equal: bool, value: Vec<u8> },
    Lookup { set: String, has_data: bool },
    DestinationType,
    Verdict { code: u32, chain: Option<String> },
    DestinationNat { family: u8, port: u32 },
    Masquerade,
    Connection { key: u32 },
}

/// Whether each attribute of `ours` is in `theirs` with the same value.
pub(super) fn says(ours: &[u8], theirs: &[u8]) -> bool {
    IterableChunks::new(ours).all(|(header, value)| {
        let held = IterableChunks::new(theirs).find(|(h, _)| h.r#type == header.r#type);
        held.is_some_and(|(_, held)| if header.is_nested { says(value, held) } else { value == held })
    })
}

/// A list of expressions that is being written.
pub(super) type List<'a> = PushExprListAttrs<&'a mut Vec<u8>>;
type Item<'a> = PushExprAttrs<List<'a>>;

impl Expression {
    /// Appends it to the list.
    pub fn encode<'a>(&self, list: List<'a>) -> List<'a> {
        let item = list.nested_elem();
        match self {
            Self::Payload { base, at: (offset, length), register } => {
                let payload = item.nested_data_payload().push_dreg(*register).push_base(*base);
                payload.push_offset(*offset).push_len(*length).end_nested().end_nested()
            }
            Self::Bitwise { mask, xor } => {
                let length = u32::try_from(mask.len()).unwrap_or_default();
                let bitwise = item.nested_data_bitwise().push_sreg(FIRST).push_dreg(FIRST).push_len(length);
                let bitwise = bitwise.nested_mask().push_value(mask).end_nested();
                let bitwise = bitwise.nested_xor().push_value(xor).end_nested();
                bitwise.end_nested().end_nested()
            }
            Self::Compare { equal, value } => {
                let operator = if *equal { CmpOps::Eq } else { CmpOps::Neq };
                let compare = item.nested_data_cmp().push_sreg(FIRST).push_op(operator as u32);
                compare.nested_data().push_value(value).end_nested().end_nested().end_nested()
            }
            Self::Lookup { set, has_data } => {
                // The builders number the attributes after the set's name otherwise than the kernel.
                let mut lookup = item.nested_data_lookup().push_set_bytes(set.as_bytes());
                push_number(lookup.as_vec_mut(), LOOKUP_SREG, FIRST);
                if *has_data {
                    push_number(lookup.as_vec_mut(), LOOKUP_DREG, FIRST);
                }
                lookup.end_nested().end_nested()
            }
            Self::Verdict { code, chain } => {
                let data: PushDataAttrs<_> = item.nested_data_immediate().push_dreg(VERDICT).nested_data();
                let verdict = data.nested_verdict().push_code(*code);
                let verdict = match chain {
                    Some(chain) => verdict.push_chain_bytes(chain.as_bytes()),
                    None => verdict,
                };
                verdict.end_nested().end_nested().end_nested().end_nested()
            }
            plain => plain.encode_numbers(item),
        }
    }

    /// Those that are numbers alone.
    fn encode_numbers<'a>(&self, item: Item<'a>) -> List<'a> {
        let (name, attributes): (&CStr, Vec<(u16, u32)>) = match self {
            Self::Meta { key, register } => (c"meta", vec![(META_DREG, *register), (META_KEY, *key)]),
            Self::SetMark => (c"meta", vec![(META_KEY, MetaKeys::Mark as u32), (META_SREG, FIRST)]),
            Self::DestinationType => {
                let result = (FIB_RESULT, FIB_RESULT_ADDRTYPE);
                (c"fib", vec![(FIB_DREG, FIRST), result, (FIB_FLAGS, FIB_OF_DADDR)])
            }
            Self::DestinationNat { family, port } => {
                let to = [(NAT_REG_ADDR_MIN, FIRST), (NAT_REG_PROTO_MIN, *port)];
                (c"nat", [[(NAT_TYPE, NAT_OF_DESTINATION), (NAT_FAMILY, u32::from(*family))], to].concat())
            }
            Self::Connection { key } => (c"ct", vec![(CT_DREG, FIRST), (CT_KEY, *key)]),
            Self::Masquerade => (c"masq", vec![(MASQ_FLAGS, NatRangeFlags::ProtoRandomFully as u32)]),
            // Written by its own builder.
            Self::Payload { .. }
            | Self::Bitwise { .. }
            | Self::Compare { .. }
            | Self::Lookup { .. }
            | Self::Verdict { .. } => (c"", Vec::new()),
        };
        numbers(item, name, &attributes)
    }
}

/// An expression all of whose attributes are numbers. For some of these the specification that the builders
/// come from has no data, or other attributes than the kernel.
fn numbers<'a>(item: Item<'a>, name: &CStr, attributes: &[(u16, u32)]) -> List<'a> {
    let mut item = item.push_name(name);
    let data = push_nested_header(item.as_vec_mut(), EXPR_DATA);
    for (attribute, value) in attributes {
        push_number(item.as_vec_mut(), *attribute, *value);
    }
    finalize_nested_header(item.as_vec_mut(), data);
    item.end_nested()
}

fn push_number(buffer: &mut Vec<u8>, attribute: u16, value: u32) {
    push_header(buffer, attribute, 4);
    buffer.extend(value.to_be_bytes());
}
