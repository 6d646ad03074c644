//! Elements of our sets: a pod's address or port, and the comment that names its owner.

use std::fmt;
use std::net::IpAddr;

use netlink_bindings::nftables::{SetelemAttrs, SetelemListAttrs, SetelemListElemAttrs};

use crate::owner::Owner;

use super::layout::Family;

/// nft reads back comments of at most 128 bytes, the NUL included (`NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_MAX: usize = 127;
/// The TLV type of a comment, the same for rules and elements (`NFTNL_UDATA_SET_ELEM_COMMENT`).
const UDATA_COMMENT: u8 = 0;
/// IFNAMSIZ, which is also how wide nf_tables holds an interface name.
const IFNAME_LEN: usize = 16;

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
    name: String,
}

impl Element {
    /// A pod's address in a set of addresses.
    pub fn address(set: String, address: IpAddr) -> Self {
        let key = match address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        Self { family: Family::Inet, set, key, name: address.to_string() }
    }

    /// A bridge's port, by interface name.
    pub fn port(set: &str, port: &str) -> Self {
        Self { family: Family::Bridge, set: set.to_owned(), key: padded(port), name: port.to_owned() }
    }

    /// A bridge's port together with the MAC that may send from it.
    pub fn port_mac(set: &str, port: &str, mac: [u8; 6]) -> Self {
        let mut key = padded(port);
        key.extend(mac);
        // A concatenation holds each part in whole registers of four bytes.
        key.extend([0, 0]);
        let name = format!("{port} . {}", mac.map(|b| format!("{b:02x}")).join(":"));
        Self { family: Family::Bridge, set: set.to_owned(), key, name }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in the set `{}`", self.name, self.set)
    }
}

fn padded(port: &str) -> Vec<u8> {
    let mut key = port.as_bytes().to_vec();
    key.resize(IFNAME_LEN, 0);
    key
}

/// An element as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub key: Vec<u8>,
    pub comment: String,
}

impl Held {
    /// The elements of one message, appended to `all`.
    pub fn read(attributes: &[u8], all: &mut Vec<Self>) {
        let Ok(list) = SetelemListAttrs::new(attributes).get_elements() else { return };
        for item in list {
            let Ok(SetelemListElemAttrs::Elem(element)) = item else { continue };
            let (mut key, mut comment) = (Vec::new(), String::new());
            for attribute in element {
                match attribute {
                    Ok(SetelemAttrs::Key(data)) => key = data.get_value().unwrap_or_default().to_vec(),
                    Ok(SetelemAttrs::Userdata(data)) => comment = comment_of(data),
                    _ => {}
                }
            }
            all.push(Self { key, comment });
        }
    }

    /// The key as an address, where it is as long as one.
    pub fn address(&self) -> Option<IpAddr> {
        let v4 = <[u8; 4]>::try_from(self.key.as_slice()).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(self.key.as_slice()).map(IpAddr::from)).ok()
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
        let held = Held { key: pair.key, comment: String::new() };
        assert_eq!((held.port().as_str(), held.mac()), ("np1", Some([2, 0, 0, 0, 0, 9])));
    }
}
