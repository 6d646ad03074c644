//! Whether the kernel has what pods need, tried out in a network namespace that ends with the question.
//!
//! A kernel that loads modules would load what is asked for: there this is not for somebody who only looks.

use std::net::IpAddr;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use node::namespace::Namespace;
use node::{Context, Error, Kind, Result};

use super::nft::{Filter, Nft};
use super::socket::RouteSocket;
use super::tc::Bucket;
use super::{link, rule, tc};
use crate::mac::Mac;

/// Something that the kernel has or lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Pairs of links.
    Veth,
    /// Bridges.
    Bridge,
    /// Everything that holds a rate.
    Rates,
    /// Masquerade.
    Masquerade,
    /// Host ports.
    Ports,
    /// The way through the host's firewall.
    Firewall,
    /// The MAC check of bridge ports.
    MacCheck,
    /// Routing by source address.
    Rules,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Veth,
        Self::Bridge,
        Self::Rates,
        Self::Masquerade,
        Self::Ports,
        Self::Firewall,
        Self::MacCheck,
        Self::Rules,
    ];
}

/// An IPv4 and an IPv6 address that no pod has (RFC 5737).
const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const MTU: u32 = 1500;

/// Tries every feature; the error of each that is not to be had. `filters` is an example of what each needs of
/// nf_tables.
pub fn every(filters: &(dyn Fn(Feature) -> Vec<Filter> + Sync)) -> Result<Vec<(Feature, Result<()>)>> {
    let doing = || "try the kernel in a network namespace of its own".to_owned();
    let tried = thread::scope(|scope| {
        let apart = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .doing(Kind::Kernel, doing)
                .map_err(|e| e.hint("run as root or grant CAP_SYS_ADMIN"))?;
            Ok(Feature::ALL.map(|feature| (feature, one(feature, &filters(feature)))).into())
        });
        apart.join()
    });
    tried.unwrap_or_else(|_| Err(Error::new(Kind::Internal, doing())))
}

fn one(feature: Feature, filters: &[Filter]) -> Result<()> {
    match feature {
        Feature::Veth => veth("np0", "np1").map(drop),
        Feature::Bridge => {
            let bridge = link::create_bridge("npb", Mac([2, 0, 0, 0, 0, 3]), MTU);
            RouteSocket::open()?.one(bridge, || "make a bridge".to_owned())
        }
        Feature::Rates => rates(),
        Feature::Masquerade | Feature::Ports | Feature::Firewall => Nft::open()?.usable(filters),
        Feature::MacCheck => Nft::open()?.spoof_usable(),
        Feature::Rules => {
            RouteSocket::open()?.one(rule::add(NOBODY, 100), || "add a routing rule".to_owned())
        }
    }
}

/// The index of the first of two ends, both in this namespace.
fn veth(host: &str, pod: &str) -> Result<u32> {
    let here = Namespace::current()?;
    let pair = link::Veth {
        host,
        host_mac: Mac([2, 0, 0, 0, 0, 1]),
        pod,
        pod_mac: Mac([2, 0, 0, 0, 0, 2]),
        mtu: MTU,
        master: None,
        netns: here.raw(),
    };
    let mut socket = RouteSocket::open()?;
    socket.one(link::create_veth(&pair), || "make a pair of links (veth)".to_owned())?;
    index(host)
}

fn rates() -> Result<()> {
    let link = veth("npr0", "npr1")?;
    let mut socket = RouteSocket::open()?;
    let ifb = link::create_ifb("npi", Mac([2, 0, 0, 0, 0, 4]), MTU);
    socket.one(ifb, || "make an ifb, on which a pod's packets wait".to_owned())?;
    let ifb = index("npi")?;
    let bucket = Bucket { rate: 125_000, buffer: 1_000_000, limit: 65_536 };
    socket.one(tc::shape(ifb, 1, &bucket), || "make a token bucket (tbf)".to_owned())?;
    socket.one(tc::add_ingress(link), || "make an ingress qdisc".to_owned())?;
    socket.one(tc::redirect(link, ifb), || "redirect packets (u32, mirred)".to_owned())
}

fn index(name: &str) -> Result<u32> {
    let gone = || Error::new(Kind::Internal, format!("find the link `{name}` that was made a moment ago"));
    link::index(name)?.ok_or_else(gone)
}
