//! Hardware addresses as people write them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Six bytes, written `aa:bb:cc:dd:ee:ff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address that a pod with this IPv4 address gets: `0a:58` and the address, so that a
    /// neighbour's cache stays right when the address goes to another pod.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x0a, 0x58, a, b, c, d])
    }

    /// The link-local address of a link with this address (RFC 4291, appendix A: modified EUI-64).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let half = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, half(a ^ 2, b), half(c, 0xff), half(0xfe, d), half(e, f))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What is wrong with a hardware address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAMac(&'static str);

impl fmt::Display for NotAMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotAMac {}

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let wrong = NotAMac("six pairs of hex digits with `:` between them");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(|| wrong.clone())?;
        }
        if parts.next().is_some() {
            return Err(wrong);
        }
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err(NotAMac("it is all zeros")),
            [first, ..] if first & 1 == 1 => Err(NotAMac("it is a multicast address")),
            _ => Ok(Self(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_and_written_the_same_and_group_addresses_are_refused() {
        let mac: Mac = "0A:58:0a:58:00:05".parse().unwrap();
        assert_eq!(mac, Mac::of(Ipv4Addr::new(10, 88, 0, 5)));
        assert_eq!(mac.to_string(), "0a:58:0a:58:00:05");
        assert_eq!(mac.link_local().to_string(), "fe80::858:aff:fe58:5");
        for wrong in [
            "",
            "0a:58",
            "0a:58:0a:58:00:05:06",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+a:58:0a:58:00:05",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
