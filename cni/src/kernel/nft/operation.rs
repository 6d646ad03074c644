//! What a transaction is made of, and what can be asked: each line reads as the command would, and
//! becomes one netlink message.

use std::fmt;

use netlink_bindings::nftables::{
    PushChainAttrs, PushRuleAttrs, PushSetAttrs, PushSetelemAttrs, PushSetelemListAttrs, PushTableAttrs,
};
use netlink_bindings::traits::Pusher;

use super::element::{Element, user_data};
use super::host::{Lack, Place};
use super::layout::{Chain, Family, Set, TABLE};

const ACCEPT: u32 = 1;
const CREATE: i32 = libc::NLM_F_CREATE;
/// The set's user data that tells nft the byte order of keys and of values (`NFTNL_UDATA_SET_KEYBYTEORDER`,
/// `NFTNL_UDATA_SET_DATABYTEORDER`, each a u32 TLV).
const UDATA_KEY_BYTE_ORDER: u8 = 0;
const UDATA_DATA_BYTE_ORDER: u8 = 1;

/// A change.
#[derive(Debug, Clone)]
pub(super) enum Operation<'a> {
    AddTable(Family),
    AddChain(Family, &'a Chain),
    DropChain(Family, &'a str),
    Flush(Family, &'a str),
    AddSet(Family, &'a Set),
    DropSet(Family, &'a str),
    AddRule(Family, &'a Chain, usize),
    AddElement(&'a Element, &'a str),
    DropElement(&'a Element),
    /// Puts something into a table of the host's.
    Host(&'a Lack),
    /// Takes a rule, by its handle, out of a chain of the host's.
    DropHostRule(&'a Place, u64),
    FlushHost(&'a Place),
    DropHostChain(&'a Place),
}

impl Operation<'_> {
    /// The message's type within nf_tables, and its flags.
    pub fn message(&self) -> (i32, i32) {
        match self {
            Self::AddTable(_) => (libc::NFT_MSG_NEWTABLE, CREATE),
            Self::AddChain(..) | Self::Host(Lack::Chain(_)) => (libc::NFT_MSG_NEWCHAIN, CREATE),
            Self::DropChain(..) | Self::DropHostChain(_) => (libc::NFT_MSG_DELCHAIN, 0),
            Self::Flush(..) | Self::DropHostRule(..) | Self::FlushHost(_) => (libc::NFT_MSG_DELRULE, 0),
            Self::AddSet(..) => (libc::NFT_MSG_NEWSET, CREATE),
            Self::DropSet(..) => (libc::NFT_MSG_DELSET, 0),
            Self::AddRule(..) | Self::Host(Lack::Rule { after: Some(_), .. }) => {
                (libc::NFT_MSG_NEWRULE, CREATE | libc::NLM_F_APPEND)
            }
            // Exclusive, for otherwise the kernel takes the element for done and keeps its old comment.
            Self::AddElement(it, _) if !it.shared => (libc::NFT_MSG_NEWSETELEM, CREATE | libc::NLM_F_EXCL),
            Self::AddElement(..) => (libc::NFT_MSG_NEWSETELEM, CREATE),
            Self::DropElement(_) => (libc::NFT_MSG_DELSETELEM, 0),
            Self::Host(Lack::Rule { after: None, .. }) => (libc::NFT_MSG_NEWRULE, CREATE),
        }
    }

    pub fn family(&self) -> Family {
        match self {
            Self::AddTable(family)
            | Self::AddChain(family, _)
            | Self::DropChain(family, _)
            | Self::Flush(family, _)
            | Self::AddSet(family, _)
            | Self::DropSet(family, _)
            | Self::AddRule(family, ..) => *family,
            Self::AddElement(element, _) | Self::DropElement(element) => element.family,
            Self::Host(lack) => lack.place().family,
            Self::DropHostRule(place, _) | Self::FlushHost(place) | Self::DropHostChain(place) => {
                place.family
            }
        }
    }

    /// Appends the message's attributes.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        match self {
            Self::AddTable(_) => table(buffer),
            Self::AddChain(_, it) => {
                let chain = PushChainAttrs::new(buffer).push_table_bytes(TABLE.as_bytes());
                let chain = chain.push_name_bytes(it.name.as_bytes());
                if let Some(hook) = &it.hook {
                    let chain = chain.nested_hook().push_num(hook.number).push_priority(hook.priority);
                    let chain = chain.end_nested().push_policy(ACCEPT);
                    drop(chain.push_type_bytes(hook.kind.as_bytes()));
                }
            }
            Self::DropChain(_, name) => chain(buffer, name),
            Self::Flush(_, name) => {
                let rule = PushRuleAttrs::new(buffer).push_table_bytes(TABLE.as_bytes());
                drop(rule.push_chain_bytes(name.as_bytes()));
            }
            Self::AddSet(_, it) => {
                let set = PushSetAttrs::new(buffer).push_table_bytes(TABLE.as_bytes());
                let set = set.push_name_bytes(it.name.as_bytes()).push_flags(it.flags());
                let mut set = set.push_key_type(it.keys.kind).push_key_len(it.keys.width);
                let mut data = vec![UDATA_KEY_BYTE_ORDER, 4];
                data.extend(u32::from(it.keys.byte_order).to_ne_bytes());
                if let Some(values) = it.values {
                    set = set.push_data_type(values.kind).push_data_len(values.width);
                    data.extend([UDATA_DATA_BYTE_ORDER, 4]);
                    data.extend(u32::from(values.byte_order).to_ne_bytes());
                }
                // The id is how a message of the same batch may name the set; the kernel insists on one.
                drop(set.push_id(1).push_userdata(&data));
            }
            Self::DropSet(_, name) => set(buffer, name),
            Self::AddRule(_, chain, index) => {
                let mut expressions = Vec::with_capacity(512);
                if let Some(rule) = chain.rules.get(*index) {
                    rule.encode(&mut expressions);
                }
                let rule = PushRuleAttrs::new(buffer).push_table_bytes(TABLE.as_bytes());
                let mut rule = rule.push_chain_bytes(chain.name.as_bytes()).nested_expressions();
                rule.as_vec_mut().extend(&expressions);
                drop(rule.end_nested().push_userdata(&user_data(&chain.note(*index))));
            }
            Self::AddElement(it, comment) => element(buffer, it, Some(it.comment(comment))),
            Self::DropElement(it) => element(buffer, it, None),
            Self::Host(lack) => host(buffer, lack),
            Self::DropHostRule(place, handle) => drop(host_rules(buffer, place).push_handle(*handle)),
            Self::FlushHost(place) => drop(host_rules(buffer, place)),
            Self::DropHostChain(place) => host_chain(buffer, place),
        }
    }
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(family) => write!(f, "add the table {family}"),
            Self::AddChain(family, chain) => write!(f, "add the chain `{}` to {family}", chain.name),
            Self::DropChain(family, name) => write!(f, "remove the chain `{name}` from {family}"),
            Self::Flush(family, name) => write!(f, "flush the chain `{name}` of {family}"),
            Self::AddSet(family, set) => write!(f, "add {set} to {family}"),
            Self::DropSet(family, name) => write!(f, "remove the set `{name}` from {family}"),
            Self::AddRule(_, chain, index) => {
                let text = chain.rules.get(*index).map_or("", |r| &r.text);
                write!(f, "add the rule `{text}` to the chain `{}`", chain.name)
            }
            Self::AddElement(element, _) => write!(f, "put {element}"),
            Self::DropElement(element) => write!(f, "remove {element}"),
            Self::Host(lack) => lack.fmt(f),
            Self::DropHostRule(place, handle) => {
                write!(f, "remove the rule with handle {handle} from {place}")
            }
            Self::FlushHost(place) => write!(f, "flush {place}"),
            Self::DropHostChain(place) => write!(f, "remove {place}"),
        }
    }
}

/// A question.
#[derive(Debug, Clone)]
pub(super) enum Question<'a> {
    Table(Family),
    Chain(Family, &'a str),
    Set(Family, &'a str),
    Element(&'a Element),
    Generation,
    /// All rules of our table.
    Rules(Family),
    /// All sets of our table.
    Sets(Family),
    /// All elements of a set.
    Elements(Family, &'a str),
    /// All chains of a family, whoever has them.
    Chains(Family),
    /// A chain of the host's.
    HostChain(&'a Place),
    /// Its rules.
    HostRules(&'a Place),
    /// All rules of a table of the host's.
    HostTable(Family, &'a str),
}

impl Question<'_> {
    /// The message's type within nf_tables.
    pub fn message(&self) -> i32 {
        match self {
            Self::Table(_) => libc::NFT_MSG_GETTABLE,
            Self::Chain(..) | Self::Chains(_) | Self::HostChain(_) => libc::NFT_MSG_GETCHAIN,
            Self::Set(..) | Self::Sets(_) => libc::NFT_MSG_GETSET,
            Self::Element(_) | Self::Elements(..) => libc::NFT_MSG_GETSETELEM,
            Self::Generation => libc::NFT_MSG_GETGEN,
            Self::Rules(_) | Self::HostRules(_) | Self::HostTable(..) => libc::NFT_MSG_GETRULE,
        }
    }

    /// The family to ask in; the generation is of them all.
    pub fn family(&self) -> u8 {
        match self {
            Self::Table(family)
            | Self::Chain(family, _)
            | Self::Set(family, _)
            | Self::Rules(family)
            | Self::Sets(family)
            | Self::Elements(family, _)
            | Self::Chains(family)
            | Self::HostTable(family, _) => *family as u8,
            Self::HostChain(place) | Self::HostRules(place) => place.family as u8,
            Self::Element(element) => element.family as u8,
            Self::Generation => 0,
        }
    }

    /// Appends the message's attributes.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        match self {
            Self::Table(_) => drop(PushTableAttrs::new(buffer).push_name_bytes(TABLE.as_bytes())),
            Self::Chain(_, name) => chain(buffer, name),
            Self::Set(_, name) => set(buffer, name),
            Self::Element(it) => element(buffer, it, None),
            Self::Generation | Self::Chains(_) => {}
            Self::HostChain(place) => host_chain(buffer, place),
            Self::HostRules(place) => drop(host_rules(buffer, place)),
            Self::HostTable(_, table) => {
                drop(PushRuleAttrs::new(buffer).push_table_bytes(table.as_bytes()));
            }
            Self::Rules(_) => drop(PushRuleAttrs::new(buffer).push_table_bytes(TABLE.as_bytes())),
            Self::Sets(_) => drop(PushSetAttrs::new(buffer).push_table_bytes(TABLE.as_bytes())),
            Self::Elements(_, name) => {
                let list = PushSetelemListAttrs::new(buffer).push_table_bytes(TABLE.as_bytes());
                drop(list.push_set_bytes(name.as_bytes()));
            }
        }
    }
}

impl fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(family) => write!(f, "look for the table {family}"),
            Self::Chain(family, name) => write!(f, "look for the chain `{name}` in {family}"),
            Self::Set(family, name) => write!(f, "look for the set `{name}` in {family}"),
            Self::Element(element) => write!(f, "look for {element}"),
            Self::Generation => f.write_str("ask nf_tables for the generation of its ruleset"),
            Self::Rules(family) => write!(f, "list the rules of {family}"),
            Self::Sets(family) => write!(f, "list the sets of {family}"),
            Self::Elements(family, name) => write!(f, "list the set `{name}` of {family}"),
            Self::Chains(family) => write!(f, "list the chains of the family `{}`", family.word()),
            Self::HostChain(place) => write!(f, "look for {place}"),
            Self::HostRules(place) => write!(f, "list the rules of {place}"),
            Self::HostTable(family, table) => write!(f, "list the rules of `{} {table}`", family.word()),
        }
    }
}

fn table(buffer: &mut Vec<u8>) {
    drop(PushTableAttrs::new(buffer).push_name_bytes(TABLE.as_bytes()).push_flags(0));
}

fn chain(buffer: &mut Vec<u8>, name: &str) {
    drop(PushChainAttrs::new(buffer).push_table_bytes(TABLE.as_bytes()).push_name_bytes(name.as_bytes()));
}

fn set(buffer: &mut Vec<u8>, name: &str) {
    drop(PushSetAttrs::new(buffer).push_table_bytes(TABLE.as_bytes()).push_name_bytes(name.as_bytes()));
}

fn host_chain(buffer: &mut Vec<u8>, place: &Place) {
    let chain = PushChainAttrs::new(buffer).push_table_bytes(place.table.as_bytes());
    drop(chain.push_name_bytes(place.chain.as_bytes()));
}

fn host_rules<'a>(buffer: &'a mut Vec<u8>, place: &Place) -> PushRuleAttrs<&'a mut Vec<u8>> {
    let rule = PushRuleAttrs::new(buffer).push_table_bytes(place.table.as_bytes());
    rule.push_chain_bytes(place.chain.as_bytes())
}

fn host(buffer: &mut Vec<u8>, lack: &Lack) {
    let (table, chain) = (lack.place().table.as_bytes(), lack.place().chain.as_bytes());
    match lack {
        Lack::Chain(_) => drop(PushChainAttrs::new(buffer).push_table_bytes(table).push_name_bytes(chain)),
        Lack::Rule { after, rule, .. } => {
            let mut expressions = Vec::with_capacity(256);
            rule.rule().encode(&mut expressions);
            let message = PushRuleAttrs::new(buffer).push_table_bytes(table).push_chain_bytes(chain);
            let message = match after {
                Some(handle) => message.push_position(*handle),
                None => message,
            };
            let mut message = message.nested_expressions();
            message.as_vec_mut().extend(&expressions);
            drop(message.end_nested().push_userdata(&user_data(rule.comment())));
        }
    }
}

fn element(buffer: &mut Vec<u8>, it: &Element, comment: Option<&str>) {
    let list = PushSetelemListAttrs::new(buffer).push_table_bytes(TABLE.as_bytes());
    let list = list.push_set_bytes(it.set.as_bytes()).nested_elements();
    let item: PushSetelemAttrs<_> = list.nested_elem().nested_key().push_value(&it.key).end_nested();
    let item = match comment {
        Some(comment) => {
            let item = match &it.data {
                Some(data) => item.nested_data().push_value(data).end_nested(),
                None => item,
            };
            item.push_userdata(&user_data(comment))
        }
        None => item,
    };
    drop(item.end_nested().end_nested());
}
