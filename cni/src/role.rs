//! The names under which the program is called. Under a reference plugin's name it is that plugin: same
//! configuration, same results, same files where they are shared.

use std::ffi::OsStr;
use std::path::Path;

/// What the program is in this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `nodeplug-cni`: everything in one call.
    Main,
    /// A veth on a bridge.
    Bridge,
    /// A veth that is routed.
    PointToPoint,
    /// Addresses from ranges, for another plugin.
    HostLocal,
    /// Addresses from the configuration, for another plugin.
    Static,
    /// `lo`.
    Loopback,
    /// Host ports of an interface that another plugin made.
    PortMap,
    /// Its rates.
    Bandwidth,
    /// Its way through the host's firewall.
    Firewall,
    /// Its settings.
    Tuning,
    /// Its routing by source address.
    SourceRouting,
}

/// The program's own name.
pub const OWN: &str = "nodeplug-cni";

/// The reference's names that the program answers to.
pub const REFERENCE: [(&str, Role); 10] = [
    ("bridge", Role::Bridge),
    ("ptp", Role::PointToPoint),
    ("host-local", Role::HostLocal),
    ("static", Role::Static),
    ("loopback", Role::Loopback),
    ("portmap", Role::PortMap),
    ("bandwidth", Role::Bandwidth),
    ("firewall", Role::Firewall),
    ("tuning", Role::Tuning),
    ("sbr", Role::SourceRouting),
];

impl Role {
    /// The role of a program that was started as `path`; any other name is the program's own, so that an
    /// operator may call the file as they like.
    pub fn called_as(path: &OsStr) -> Self {
        let name = Path::new(path).file_name().and_then(OsStr::to_str).unwrap_or_default();
        Self::named(name).unwrap_or(Self::Main)
    }

    /// The role of a reference plugin's name.
    pub fn named(name: &str) -> Option<Self> {
        REFERENCE.iter().find(|(n, _)| *n == name).map(|(_, role)| *role)
    }

    /// The name that it is called by.
    pub fn name(self) -> &'static str {
        REFERENCE.iter().find(|(_, role)| *role == self).map_or(OWN, |(name, _)| name)
    }

    /// Whether it needs an interface that another plugin made.
    pub fn is_chained(self) -> bool {
        matches!(self, Self::PortMap | Self::Bandwidth | Self::Firewall | Self::Tuning | Self::SourceRouting)
    }

    /// Whether it gives addresses to another plugin.
    pub fn is_ipam(self) -> bool {
        matches!(self, Self::HostLocal | Self::Static)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_and_any_other_name_is_the_programs_own() {
        let cases = [
            ("/opt/cni/bin/bridge", Role::Bridge),
            ("sbr", Role::SourceRouting),
            ("/opt/cni/bin/nodeplug-cni", Role::Main),
            ("/x/mynet", Role::Main),
            ("", Role::Main),
        ];
        for (path, role) in cases {
            assert_eq!(Role::called_as(OsStr::new(path)), role, "{path}");
        }
        for (name, role) in REFERENCE {
            assert_eq!((role.name(), Role::named(name)), (name, Some(role)));
        }
        assert_eq!(Role::Main.name(), OWN);
    }
}
