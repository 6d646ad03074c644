//! What somebody asked for this one pod: addresses and a hardware address. Three ways lead here:
//! `CNI_ARGS`, `args.cni` and `runtimeConfig`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::config::reader::{Problem, Reader};
use crate::mac::Mac;

/// An address that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length, where it was given.
    pub prefix: Option<u8>,
}

/// The wishes of one way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Addresses.
    pub ips: Vec<Wanted>,
    /// The hardware address.
    pub mac: Option<Mac>,
}

/// What [`Wanted`] reads, for messages.
pub const IP_SHAPE: &str = "an address such as 10.1.0.7 or 10.1.0.7/16";

/// What [`Mac`] reads, for messages.
pub const MAC_SHAPE: &str = "a hardware address such as 0a:58:0a:01:00:07";

impl FromStr for Wanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "not an IPv4 or IPv6 address")?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => None,
            Some(text) => {
                let number =
                    text.parse().ok().filter(|n| *n <= most && text.bytes().all(|b| b.is_ascii_digit()));
                Some(number.ok_or("the prefix length is none of that family")?)
            }
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// All lists as one, each address once; one with a prefix length tells more and stays.
pub(super) fn merge<'a>(lists: impl IntoIterator<Item = &'a Vec<Wanted>>) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for wanted in lists.into_iter().flatten() {
        match all.iter_mut().find(|w| w.address == wanted.address) {
            Some(known) => known.prefix = known.prefix.or(wanted.prefix),
            None => all.push(*wanted),
        }
    }
    all
}

/// `args.cni.ips` and `args.cni.mac`. The rest of `args` is anybody's
/// (CNI conventions, "args in network config").
pub(super) fn read_args(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Asked {
    let Some(args) = reader.value("args") else { return Asked::default() };
    let mut args = Reader::new(args, &reader.place("args"), problems);
    let Some(cni) = args.value("cni") else { return Asked::default() };
    let mut cni = Reader::new(cni, &args.place("cni"), problems);
    Asked { ips: cni.parsed_list("ips", IP_SHAPE, problems), mac: cni.parsed("mac", MAC_SHAPE, problems) }
}
