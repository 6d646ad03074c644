//! The result of an ADD, held in the shape of the newest version (CNI spec 1.1.0, section 5,
//! "Success"), and its conversion to and from every older one.

mod convert;

use std::net::IpAddr;

use ipnet::IpNet;

/// What an attachment got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Links made, host side first.
    pub interfaces: Vec<Interface>,
    /// Addresses given.
    pub ips: Vec<Ip>,
    /// Routes inside the sandbox.
    pub routes: Vec<Route>,
    /// For the runtime's resolv.conf.
    pub dns: Dns,
}

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address as `aa:bb:cc:dd:ee:ff`.
    pub mac: Option<String>,
    /// Its MTU in bytes (1.1.0).
    pub mtu: Option<u32>,
    /// The namespace path; `None` on the host.
    pub sandbox: Option<String>,
    /// A socket in place of a link (1.1.0).
    pub socket_path: Option<String>,
    /// A PCI address in place of a link (1.1.0).
    pub pci_id: Option<String>,
}

/// An address with its prefix length, host bits kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// The index into `interfaces`.
    pub interface: Option<usize>,
    /// `10.1.2.3/24`.
    pub address: IpNet,
    /// The default gateway of that family.
    pub gateway: Option<IpAddr>,
}

/// A route inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// By whom; `None` is the gateway of the family's address.
    pub gw: Option<IpAddr>,
    /// Bytes (1.1.0).
    pub mtu: Option<u32>,
    /// Bytes (1.1.0).
    pub advmss: Option<u32>,
    /// The metric (1.1.0).
    pub priority: Option<u32>,
    /// The routing table (1.1.0); `None` is main.
    pub table: Option<u32>,
    /// The scope (1.1.0): 0 global, 200 site, 253 link, 254 host, 255 nowhere.
    pub scope: Option<u8>,
}

/// Resolver settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses, in order of preference.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: Option<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// resolv.conf options.
    pub options: Vec<String>,
}

#[cfg(test)]
mod tests;
