//! Addresses, in this process: `host-local` on the reference's own files, `static`, and any other
//! IPAM plugin by exec (CNI spec 1.1.0, section 4, "Plugin Delegation").
//!
//! ```text
//! ipam JSON ──► config ──► Ipam ──► leases.choose ──► Choice ──► leases.reserve     (ADD)
//!                          (pure)   (reads)           (plan)     (writes)
//! record ─────────────────────────► leases.release                                  (DEL, GC)
//! ```
//!
//! [`config`] and [`ranges`] only compute. [`leases`] is one network's folder of [`lease`] files under its
//! lock, [`sync`] brings it up to date when somebody else changed it, [`cooling`] keeps freed addresses apart for a
//! while. [`delegate`] knows nothing of them. Which attachments exist is not decided here: the
//! records of [`crate::attachment`] say so.

pub mod config;
pub mod cooling;
pub mod delegate;
pub mod delegates;
pub mod lease;
pub mod leases;
pub mod ranges;
pub mod resolv;
pub mod sync;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use node::{Error, Kind, Result};

use self::ranges::RangeSet;
use crate::result::{Dns, Ip, Route};

/// Where the reference keeps its leases, one folder a network.
pub const DATA_DIR: &str = "/var/lib/cni/networks";

/// For how long a freed address rests where the configuration does not say.
pub const COOLDOWN: Duration = Duration::from_secs(30);

/// Who gives the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipam {
    /// Ranges and a folder of leases on this node.
    HostLocal(HostLocal),
    /// The addresses that the configuration or the runtime names.
    Static(Static),
    /// Another program on CNI_PATH; its keys are its own business.
    Delegate {
        /// Its file name.
        plugin: String,
    },
}

/// `host-local`, checked and with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLocal {
    /// One address is given from each set, in this order.
    pub sets: Vec<RangeSet>,
    /// Addresses that are never given, as networks.
    pub exclude: Vec<IpNet>,
    /// For the sandbox.
    pub routes: Vec<Route>,
    /// A file in resolv.conf's format that becomes the result's dns.
    pub resolv_conf: Option<PathBuf>,
    /// The folder above the networks' folders, absolute.
    pub data_dir: PathBuf,
    /// For how long a freed address rests; zero is not at all.
    pub cooldown: Duration,
}

impl HostLocal {
    /// The folder of `network`'s leases. The name was checked when the configuration was read.
    pub fn folder(&self, network: &str) -> PathBuf {
        self.data_dir.join(network)
    }

    /// Which wanted address each range set has to give, if any.
    pub(crate) fn assign(&self, wanted: &[IpAddr]) -> Result<Vec<Option<IpAddr>>> {
        let mut left: Vec<IpAddr> = Vec::new();
        // CNI_ARGS and the runtime may name the same one.
        for address in wanted.iter().map(IpAddr::to_canonical) {
            if !left.contains(&address) {
                left.push(address);
            }
        }
        let take = |set: &RangeSet| {
            let at = left.iter().position(|a| set.range_of(*a).is_some());
            at.map(|i| left.remove(i))
        };
        let asked = self.sets.iter().map(take).collect();
        let Some(address) = left.first() else { return Ok(asked) };
        let ranges: Vec<_> = self.sets.iter().map(RangeSet::to_string).collect();
        let doing = format!("give the wanted address `{address}` from the ranges `{}`", ranges.join(" "));
        Err(Error::new(Kind::Config, doing)
            .hint("ask for an address inside the ranges, and for one of each range set at most"))
    }
}

/// `static`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Static {
    /// Addresses with their prefix and gateway.
    pub addresses: Vec<(IpNet, Option<IpAddr>)>,
    /// For the sandbox.
    pub routes: Vec<Route>,
    /// For the sandbox.
    pub dns: Dns,
}

impl Static {
    /// What the attachment gets: `wanted` (runtimeConfig.ips, args.cni.ips or CNI_ARGS IP, with their
    /// prefix) in place of the configuration's. Each of `gateways` (CNI_ARGS GATEWAY) goes to the
    /// addresses whose network it is in, as the reference does it.
    pub fn give(&self, wanted: &[IpNet], gateways: &[IpAddr]) -> Vec<Ip> {
        let own = self.addresses.iter().copied();
        let asked = wanted.iter().map(|net| (*net, None));
        let all: Vec<_> = if wanted.is_empty() { own.collect() } else { asked.collect() };
        let gateway_of = |net: &IpNet| gateways.iter().rev().find(|g| net.contains(*g)).copied();
        all.into_iter()
            .map(|(address, gateway)| Ip {
                interface: None,
                address,
                gateway: gateway_of(&address).or(gateway),
            })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_asked_for_replace_the_configured_ones_and_gateways_find_their_network() {
        let own = Static {
            addresses: vec![("10.1.0.5/24".parse().unwrap(), Some("10.1.0.1".parse().unwrap()))],
            ..Static::default()
        };
        let show = |ips: Vec<Ip>| {
            ips.iter().map(|i| format!("{} via {:?}", i.address, i.gateway)).collect::<Vec<_>>()
        };
        assert_eq!(show(own.give(&[], &[])), ["10.1.0.5/24 via Some(10.1.0.1)"]);
        let wanted = ["10.2.0.7/16".parse().unwrap(), "fd00::7/64".parse().unwrap()];
        assert_eq!(
            show(own.give(&wanted, &["fd00::1".parse().unwrap()])),
            ["10.2.0.7/16 via None", "fd00::7/64 via Some(fd00::1)"]
        );
    }
}
