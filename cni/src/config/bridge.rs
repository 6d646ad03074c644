//! The keys of the bridge mode, named and meant as the reference's bridge plugin has them.

use crate::config::reader::{Problem, Reader};
use crate::name;
use crate::role::Role;

/// Keys that need `"mode": "bridge"`.
pub(super) const KEYS: [&str; 10] = [
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "hairpinMode",
    "promiscMode",
    "portIsolation",
    "macspoofchk",
    "enabledad",
    "disableContainerInterface",
];

/// How the bridge and its ports are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge's name.
    pub name: String,
    /// Whether the bridge takes the gateway's address.
    pub is_gateway: bool,
    /// Whether the pod's default route goes there; implies `is_gateway`.
    pub is_default_gateway: bool,
    /// Whether another address of the same family on the bridge is replaced.
    pub force_address: bool,
    /// Whether a port sends frames back to where they came from, so that a pod reaches itself
    /// through a service.
    pub hairpin: bool,
    /// Whether the bridge is promiscuous, the other way to the same end.
    pub promiscuous: bool,
    /// Whether ports reach only the bridge and not each other.
    pub port_isolation: bool,
    /// Whether frames from another hardware address than the pod's are dropped.
    pub mac_spoof_check: bool,
    /// Whether IPv6 addresses wait for duplicate address detection.
    pub duplicate_address_detection: bool,
    /// Whether the pod's interface stays down.
    pub disable_container_interface: bool,
}

impl Bridge {
    pub(super) fn read(reader: &mut Reader<'_>, role: Role, problems: &mut Vec<Problem>) -> Self {
        let mut name = reader.string("bridge", problems).unwrap_or("cni0");
        if let Err(why) = name::interface(name) {
            problems.push(Problem::wrong(&reader.place("bridge"), format!("`{name}` {why}")));
            name = "cni0";
        }
        let hairpin = reader.bool("hairpinMode", problems);
        let promiscuous = reader.bool("promiscMode", problems).unwrap_or(false);
        if promiscuous && hairpin == Some(true) {
            let what = "is true beside `promiscMode`, and together they deliver every frame twice";
            problems.push(Problem::wrong(&reader.place("hairpinMode"), what).hint("keep one of the two"));
        }
        let mut on = |key| reader.bool(key, problems).unwrap_or(false);
        let is_default_gateway = on("isDefaultGateway");
        Self {
            name: name.to_owned(),
            // Read in any case, so that a wrong value is told.
            is_gateway: on("isGateway") || is_default_gateway,
            is_default_gateway,
            force_address: on("forceAddress"),
            // The reference's is off where nobody asks for it.
            hairpin: hairpin.unwrap_or(role == Role::Main && !promiscuous),
            promiscuous,
            port_isolation: on("portIsolation"),
            mac_spoof_check: on("macspoofchk"),
            duplicate_address_detection: on("enabledad"),
            disable_container_interface: on("disableContainerInterface"),
        }
    }
}
