//! Host ports: the keys of the reference's portmap plugin and the runtime's `portMappings`.

mod condition;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::feature::Source;
use crate::config::reader::{Problem, Reader};
use crate::port::{Condition, Protocol};
use crate::role::Role;

/// The bit of the mark that lets packets through the host's firewall (`kernel::nft::host::MARK`).
const FIREWALL_BIT: u32 = 12;
/// The reference's mark: 0x2000.
const MARK_BIT: u32 = 13;

/// The ports of the host that lead to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPorts {
    /// Each port once.
    pub mappings: Vec<Mapping>,
    /// `snat`: whether the pod and its neighbours reach it by the host's port, and the host by 127.0.0.1,
    /// with the host's address as their source.
    pub snat: bool,
    /// `masqAll`: whether every connection comes with the host's address.
    pub masquerade_all: bool,
    /// `markMasqBit`: the bit of the packet's mark that asks for masquerade, 0 to 31.
    pub mark_bit: u32,
    /// `conditionsV4`: which IPv4 packets are taken; all of them have to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions_v4: Vec<Condition>,
    /// `conditionsV6`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions_v6: Vec<Condition>,
}

/// One port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Only packets to this address of the host; an unspecified one is every address of its family, `None`
    /// is every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl Mapping {
    /// Which addresses of the host it takes, in the family of `pod`; an unspecified one is all of them.
    pub fn host(&self, pod: IpAddr) -> Option<IpAddr> {
        let any =
            if pod.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let host = self.host_ip.unwrap_or(any);
        (host.is_ipv4() == pod.is_ipv4()).then_some(host)
    }
}

impl HostPorts {
    /// `None` where no port is asked for.
    pub(super) fn read(source: &mut Source<'_, '_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let role = source.role;
        let reader = &mut *source.reader;
        let snat = reader.bool("snat", problems).unwrap_or(true);
        let ports = Self {
            mappings: Vec::new(),
            snat,
            // Without `snat` it asks for nothing, as for the reference.
            masquerade_all: reader.bool("masqAll", problems).unwrap_or(false) && snat,
            mark_bit: mark_bit(reader, problems),
            conditions_v4: condition::read(reader, "conditionsV4", true, problems),
            conditions_v6: condition::read(reader, "conditionsV6", false, problems),
        };
        check_backend(reader, role, problems);
        check_chain(reader, problems);
        let (value, place) = source.runtime.as_ref()?;
        let mut runtime = Reader::new(value, place, problems);
        let mut mappings: Vec<Mapping> = Vec::new();
        for (at, value) in runtime.list("portMappings", problems).unwrap_or_default() {
            let Some(mapping) = mapping(value, &at, problems) else { continue };
            match mappings.iter().find(|known| known.collides(&mapping)) {
                Some(known) if *known == mapping => {}
                Some(known) => problems.push(twice(&at, &mapping, known)),
                None => mappings.push(mapping),
            }
        }
        (!mappings.is_empty()).then_some(Self { mappings, ..ports })
    }
}

/// The bit that asks for masquerade: one of its own.
fn mark_bit(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> u32 {
    let bit = reader.number("markMasqBit", 31, problems).unwrap_or(MARK_BIT);
    if bit == FIREWALL_BIT {
        let what = format!("is {bit}, the bit by which the firewall's rules know the packets of pods");
        problems.push(Problem::wrong(&reader.place("markMasqBit"), what).hint("choose another bit"));
    }
    bit
}

impl Mapping {
    /// Whether both want the same packets.
    fn collides(&self, other: &Self) -> bool {
        let overlap = match (self.host_ip, other.host_ip) {
            (None, _) | (_, None) => true,
            (Some(a), Some(b)) => {
                a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
            }
        };
        (self.protocol, self.host_port) == (other.protocol, other.host_port) && overlap
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, protocol) = (self.host_port, self.protocol);
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{port}/{protocol}"),
            Some(ip) => write!(f, "{ip}:{port}/{protocol}"),
            None => write!(f, "{port}/{protocol}"),
        }
    }
}

/// Both of the reference's back ends are the one here.
fn check_backend(reader: &mut Reader<'_>, role: Role, problems: &mut Vec<Problem>) {
    match reader.string("backend", problems) {
        None | Some("iptables" | "nftables") => {}
        // The firewall plugin's key has the same name, and other words.
        Some(_) if role != Role::PortMap => {}
        Some(other) => {
            let what = format!("is `{other}`, and only `nftables` and `iptables` are known");
            let hint = "leave it out: ports are mapped by nf_tables, whichever is named";
            problems.push(Problem::wrong(&reader.place("backend"), what).hint(hint));
        }
    }
}

fn check_chain(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) {
    if let Some(chain) = reader.string("externalSetMarkChain", problems) {
        let what = format!("is `{chain}`, a chain of iptables, and nf_tables cannot call one");
        let hint = "use `markMasqBit` with the bit that the chain sets: KUBE-MARK-MASQ sets 14";
        problems.push(Problem::unsupported(&reader.place("externalSetMarkChain"), what).hint(hint));
    }
}

/// `None` where it maps nothing, or is wrong.
fn mapping(value: &Value, at: &str, problems: &mut Vec<Problem>) -> Option<Mapping> {
    let before = problems.len();
    let mut reader = Reader::new(value, at, problems);
    let host_port = reader.number("hostPort", u32::from(u16::MAX), problems).unwrap_or(0);
    let container_port = reader.number("containerPort", u32::from(u16::MAX), problems);
    let protocol = reader.string("protocol", problems).map_or(Some(Protocol::Tcp), |text| {
        let known = Protocol::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(text));
        if known.is_none() {
            let what = format!("is `{text}`, and only `tcp`, `udp` and `sctp` are known");
            problems.push(Problem::wrong(&reader.place("protocol"), what));
        }
        known
    });
    let host_ip = reader.parsed("hostIP", "an address of this host such as 192.0.2.1", problems);
    // The kubelet hands over every port of a pod, those that it wants on the host and the others.
    if problems.len() > before || host_port == 0 {
        return None;
    }
    let container_port = container_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    if container_port.is_none() {
        let what = format!("is missing, and port {host_port} of the host has to lead to one of the pod");
        problems.push(Problem::wrong(&reader.place("containerPort"), what).hint("write 1 to 65535"));
    }
    Some(Mapping {
        host_ip,
        host_port: u16::try_from(host_port).ok()?,
        container_port: container_port?,
        protocol: protocol?,
    })
}

fn twice(at: &str, mapping: &Mapping, known: &Mapping) -> Problem {
    let what = format!(
        "wants {mapping} for port {} of the pod, and an earlier one has {known} for its port {}",
        mapping.container_port, known.container_port
    );
    Problem::wrong(at, what).hint("give each a `hostPort` of its own, or a `hostIP`")
}

#[cfg(test)]
mod tests;
