//! What a step is called where its time is told: a word or two, the same for every pod.

use super::{Place, Step, Verb};

impl Step {
    /// Its kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Record(_) => "record",
            Self::Amend(_) => "amend record",
            Self::Forget { .. } => "forget record",
            Self::Reserve { .. } => "take lease",
            Self::Release { .. } => "release lease",
            Self::Delegated { .. } => "note delegate",
            Self::Undelegate { .. } => "delegate's DEL",
            Self::Setting { .. } => "setting",
            Self::Link { verb, .. } => verb.name(),
            Self::EnableIpv6 { .. } => "enable IPv6",
            Self::Settle { .. } => "address detection",
            Self::DeleteLinks { .. } => "delete link",
            Self::Filter { .. } => "nf_tables put",
            Self::Unfilter { .. } => "nf_tables take",
            Self::SpoofCheck { .. } => "spoof check",
            Self::NoSpoofCheck { .. } => "no spoof check",
            Self::ClaimPorts { .. } => "claim ports",
            Self::ReleasePorts { .. } => "release ports",
            Self::OpenLoopback { .. } => "open loopback",
            Self::FlushConnections { .. } => "flush connections",
            Self::Unredirect { .. } => "unredirect",
            Self::Sysctl { .. } => "pod's setting",
            Self::Keep { .. } => "keep settings",
            Self::Restore { .. } => "restore settings",
            Self::RemoveRules { .. } => "remove rules",
        }
    }
}

impl Verb {
    /// Its kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateBridge { .. } => "bridge",
            Self::CreateVeth { .. } => "veth",
            Self::Alias { .. } => "alias",
            Self::Mac { .. } => "MAC",
            Self::Up { .. } => "up",
            Self::Down { .. } => "down",
            Self::Promiscuous { .. } => "promiscuous",
            Self::Port { .. } => "port",
            Self::NoLinkLocal { .. } => "no link-local",
            Self::ArpNotify { .. } => "announce",
            Self::Address { .. } | Self::AddressWithoutRoute { .. } => "address",
            Self::RemoveAddress { .. } => "remove address",
            Self::Route { .. } | Self::CopyRoute { .. } => "route",
            Self::Neighbour { .. } => "neighbour",
            Self::RemoveNeighbour { .. } => "remove neighbour",
            Self::CreateIfb { .. } => "ifb",
            Self::Shape { .. } => "rate",
            Self::Unshape { .. } => "no rate",
            Self::Ingress { .. } => "ingress",
            Self::Redirect { .. } => "redirect",
            Self::Mtu { .. } => "MTU",
            Self::AllMulticast { .. } => "all-multicast",
            Self::QueueLength { .. } => "queue",
            Self::RemoveRoute { .. } => "remove route",
            Self::Rule { .. } => "rule",
            Self::RemoveRule { .. } => "remove rule",
        }
    }
}

impl Place {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "node",
            Self::Pod => "pod",
        }
    }
}
