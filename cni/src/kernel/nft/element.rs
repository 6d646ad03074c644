//! Elements of our sets: a pod's address or port, and the comment that names its owner.

use std::fmt;
use std::net::IpAddr;

use netlink_bindings::nftables::{SetelemAttrs, SetelemListAttrs, SetelemListElemAttrs};

use crate::owner::Owner;

use super::layout::{Family, TABLE};

/// nft reads back comments of at most 128 bytes, the NUL included (`NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_MAX: usize = 127;
/// The TLV type of a comment, the same for rules and elements (`NFTNL_UDATA_SET_ELEM_COMMENT`).
const UDATA_COMMENT: u8 = 0;
/// IFNAMSIZ, which is also how wide nf_tables holds an interface name.
pub(super) const IFNAME_LEN: usize = 16;

/// The comment on every element of `owner`: its key, so that `nft list` shows whose it is and GC finds
/// it with no records left. A key longer than nft's comments keeps its start and ends in `~` and a
/// hash of the whole, so that two owners never share a comment: compare comments, not keys.
pub fn comment(owner: &Owner) -> String {
    let key = owner.key();
    if key.len() <= COMMENT_MAX {
        return key;
    }
    let mut room = COMMENT_MAX - 17;
    while !key.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}~{:016x}", key.get(..room).unwrap_or_default(), hash(key.as_bytes()))
}

/// FNV-1a, 64 bit: the same in every version, since names in the kernel outlive the program.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// A comment as user data: type, length with NUL, text, NUL.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let text = comment.as_bytes();
    let text = text.get(..text.len().min(254)).unwrap_or_default();
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = Vec::with_capacity(text.len() + 3);
    data.extend([UDATA_COMMENT, length]);
    data.extend(text);
    data.push(0);
    data
}

/// The comment in user data; empty where there is none.
pub(super) fn comment_of(mut data: &[u8]) -> String {
    while let [kind, length, rest @ ..] = data {
        let Some((value, next)) = rest.split_at_checked(usize::from(*length)) else { break };
        if *kind == UDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8_lossy(text).into_owned();
        }
        data = next;
    }
    String::new()
}

/// One element: where it is and its key as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub family: Family,
    pub set: String,
    pub key: Vec<u8>,
    /// What a map has for the key; `None` in a set.
    pub data: Option<Vec<u8>>,
    name: String,
    /// What to do where another pod has the key.
    pub hint: &'static str,
    /// Whether it is no pod's own: whoever needs it puts it, and nobody takes it out with a pod.
    pub shared: bool,
}

impl Element {
    /// A pod's address in a set of addresses.
    pub fn address(set: String, address: IpAddr) -> Self {
        let hint = "give each pod an address of its own";
        let mut element = Self::new(Family::Inet, set, &[Value::Address(address)]);
        element.hint = hint;
        element
    }

    /// A key of these parts.
    pub fn new(family: Family, set: String, parts: &[Value]) -> Self {
        let names: Vec<String> = parts.iter().map(ToString::to_string).collect();
        Self { family, set, key: bytes(parts), data: None, name: names.join(" . "), hint: "", shared: false }
    }

    /// The same for every pod that needs it.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// The comment that it bears as an element of the pod with this one.
    pub fn comment<'a>(&self, pod: &'a str) -> &'a str {
        if self.shared { TABLE } else { pod }
    }

    /// The key leads to these parts.
    #[must_use]
    pub fn to(mut self, parts: &[Value]) -> Self {
        self.data = Some(bytes(parts));
        self
    }

    /// What the kernel holds of `set`, as an element to take out.
    pub fn found(family: Family, set: String, held: &Held) -> Self {
        let name: Vec<String> = held.key.iter().map(|b| format!("{b:02x}")).collect();
        let name = name.concat();
        Self { family, set, key: held.key.clone(), data: None, name, hint: "", shared: false }
    }

    /// A bridge's port, by interface name.
    pub fn port(set: &str, port: &str) -> Self {
        Self::new(Family::Bridge, set.to_owned(), &[Value::Interface(port)])
    }

    /// A bridge's port together with the MAC that may send from it.
    pub fn port_mac(set: &str, port: &str, mac: [u8; 6]) -> Self {
        Self::new(Family::Bridge, set.to_owned(), &[Value::Interface(port), Value::Mac(mac)])
    }
}

/// A part of a key or of what a map has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Address(IpAddr),
    Interface(&'a str),
    Mac([u8; 6]),
    /// A protocol's number and its name.
    Protocol(u8, &'a str),
    Port(u16),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(name) | Self::Protocol(_, name) => f.write_str(name),
            Self::Mac(mac) => f.write_str(&mac.map(|b| format!("{b:02x}")).join(":")),
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}

/// The parts one behind the other. One part alone is as long as it is; of several, each fills whole
/// registers of four bytes.
fn bytes(parts: &[Value]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Value::Address(IpAddr::V4(a)) => all.extend(a.octets()),
            Value::Address(IpAddr::V6(a)) => all.extend(a.octets()),
            Value::Interface(name) => {
                let end = all.len() + IFNAME_LEN;
                all.extend(name.as_bytes());
                all.resize(end, 0);
            }
            Value::Mac(mac) => all.extend(mac),
            Value::Protocol(number, _) => all.push(*number),
            Value::Port(port) => all.extend(port.to_be_bytes()),
        }
        if parts.len() > 1 {
            all.resize(all.len().next_multiple_of(4), 0);
        }
    }
    all
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.data.is_some() { "map" } else { "set" };
        write!(f, "`{}` in the {kind} `{}`", self.name, self.set)
    }
}

/// An element as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub key: Vec<u8>,
    /// What a map has for the key; empty in a set.
    pub data: Vec<u8>,
    pub comment: String,
}

impl Held {
    /// The elements of one message, appended to `all`.
    pub fn read(attributes: &[u8], all: &mut Vec<Self>) {
        let Ok(list) = SetelemListAttrs::new(attributes).get_elements() else { return };
        for item in list {
            let Ok(SetelemListElemAttrs::Elem(element)) = item else { continue };
            let (mut key, mut value, mut comment) = (Vec::new(), Vec::new(), String::new());
            for attribute in element {
                match attribute {
                    Ok(SetelemAttrs::Key(data)) => key = data.get_value().unwrap_or_default().to_vec(),
                    Ok(SetelemAttrs::Data(data)) => value = data.get_value().unwrap_or_default().to_vec(),
                    Ok(SetelemAttrs::Userdata(data)) => comment = comment_of(data),
                    _ => {}
                }
            }
            all.push(Self { key, data: value, comment });
        }
    }

    /// The interface name that the key begins with.
    pub fn port(&self) -> String {
        let name = self.key.iter().copied().take(IFNAME_LEN).take_while(|b| *b != 0).collect();
        String::from_utf8(name).unwrap_or_default()
    }

    /// The MAC that follows the interface name, where the key has one.
    pub fn mac(&self) -> Option<[u8; 6]> {
        self.key.get(IFNAME_LEN..IFNAME_LEN + 6)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: &str) -> Owner {
        Owner { container_id: id.to_owned(), ifname: "eth0".to_owned() }
    }

    #[test]
    fn a_comment_is_the_key_and_a_long_key_still_has_a_comment_of_its_own() {
        assert_eq!(comment(&owner("abc")), "abc:eth0");
        let just_fits = "a".repeat(122);
        assert_eq!(comment(&owner(&just_fits)), format!("{just_fits}:eth0"));
        let (one, two) = (format!("{}1", "a".repeat(199)), format!("{}2", "a".repeat(199)));
        assert_eq!(comment(&owner(&one)).len(), 127);
        assert_ne!(comment(&owner(&one)), comment(&owner(&two)));
        assert_eq!(comment(&owner(&"é".repeat(100))).len(), 127);
    }

    #[test]
    fn user_data_is_what_nft_writes_and_reads() {
        assert_eq!(user_data("abc"), [0, 4, b'a', b'b', b'c', 0]);
        let cases: [(&[u8], &str); 6] = [
            (&[0, 4, b'a', b'b', b'c', 0], "abc"),
            (&[1, 1, 9, 0, 2, b'x', 0], "x"),
            (&[0, 2, b'x', b'y'], "xy"),
            (&[0, 9, b'x'], ""),
            (&[1], ""),
            (&[], ""),
        ];
        for (data, expect) in cases {
            assert_eq!(comment_of(data), expect, "{data:?}");
        }
    }

    #[test]
    fn keys_are_as_wide_as_the_registers_that_are_looked_up() {
        assert_eq!(Element::address("s".into(), [10, 0, 0, 1].into()).key, [10, 0, 0, 1]);
        let pair = Element::port_mac("macs", "np1", [2, 0, 0, 0, 0, 9]);
        assert_eq!(pair.key.len(), 24);
        assert_eq!(pair.to_string(), "`np1 . 02:00:00:00:00:09` in the set `macs`");
        let held = Held { key: pair.key, data: Vec::new(), comment: String::new() };
        assert_eq!((held.port().as_str(), held.mac()), ("np1", Some([2, 0, 0, 0, 0, 9])));
    }
}
