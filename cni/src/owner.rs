//! Who holds an attachment: the pair that names it in every call of the protocol.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Container id and interface name: the key of an attachment
/// (CNI spec 1.1.0, section 2, "Parameters").
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// CNI_CONTAINERID: starts alphanumeric, then `[A-Za-z0-9_.-]`; at most 200 bytes here.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// CNI_IFNAME: the interface inside the sandbox, at most 15 bytes.
    pub ifname: String,
}

impl Owner {
    /// The pair as a file name and as an nftables comment: `ID:IFNAME`. An interface name holds no colon.
    pub fn key(&self) -> String {
        format!("{}:{}", self.container_id, self.ifname)
    }

    /// The pair of a [`Owner::key`].
    pub fn from_key(key: &str) -> Option<Self> {
        let (container_id, ifname) = key.rsplit_once(':')?;
        Some(Self { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
    }

    /// The host end's name: `np` and twelve hex digits of a stable hash (FNV-1a, 64 bit, folded to 48)
    /// of the key, so that DEL finds the link with no memory of the ADD. 14 bytes of IFNAMSIZ's 15.
    pub fn host_ifname(&self) -> String {
        let hash = self.hash();
        format!("np{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
    }

    /// Whether `name` is of the form of [`Owner::host_ifname`].
    pub fn is_host_ifname(name: &str) -> bool {
        let hash = name.strip_prefix("np");
        hash.is_some_and(|h| h.len() == 12 && h.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    }

    /// A locally administered MAC for the host end, the same for the same owner.
    pub fn host_mac(&self) -> [u8; 6] {
        let [_, _, _, a, b, c, d, e] = self.hash().to_be_bytes();
        [0x02, a, b, c, d, e]
    }

    /// A locally administered MAC for the pod's end where no address gives one.
    pub fn pod_mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, ..] = self.hash().to_be_bytes();
        [0x0a, a, b, c, d, e]
    }

    /// The handle of this owner's qdiscs, by which they are told from others': 2 to 0x7fff. 1 is what people
    /// choose, and the kernel itself chooses from 0x8000 on.
    pub fn qdisc_handle(&self) -> u16 {
        u16::try_from(self.hash() % 0x7ffe).unwrap_or_default() + 2
    }

    fn hash(&self) -> u64 {
        self.key()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_because_a_later_version_must_find_the_link() {
        let owner = Owner { container_id: "abc".into(), ifname: "eth0".into() };
        assert_eq!(owner.key(), "abc:eth0");
        assert_eq!(Owner::from_key("abc:eth0"), Some(owner.clone()));
        assert_eq!(owner.host_ifname(), "np2178bf6dfa7e");
        assert!(Owner::is_host_ifname(&owner.host_ifname()));
        assert!(!Owner::is_host_ifname("nproc") && !Owner::is_host_ifname("veth2178bf6dfa7e"));
    }
}
