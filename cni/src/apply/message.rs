//! A verb as the message that the kernel reads, and what its refusal means.

use std::os::fd::RawFd;

use node::Error;

use crate::kernel::link::Veth;
use crate::kernel::socket::{Refusal, Request, refused};
use crate::kernel::{address, link, neighbour, route, rule};
use crate::plan::step::{Place, Step, Verb};

/// The message of a verb on the link `index` (see [`needs_index`]); `netns` is the pod's namespace.
pub fn message(verb: &Verb, index: u32, netns: RawFd) -> Request {
    match verb {
        Verb::CreateVeth { host, host_mac, pod, pod_mac, mtu, bridge } => {
            let (host_mac, pod_mac, mtu, master) =
                (*host_mac, *pod_mac, *mtu, bridge.as_ref().map(|_| index));
            link::create_veth(&Veth { host, host_mac, pod, pod_mac, mtu, master, netns })
        }
        Verb::CreateBridge { link, mac, mtu } => link::create_bridge(link, *mac, *mtu),
        Verb::Alias { link, alias } => link::set_alias(link, alias),
        Verb::Mac { link, mac } => link::set_mac(link, *mac),
        Verb::Up { link } => link::up(link),
        Verb::Down { link } => link::down(link),
        Verb::Promiscuous { link, on } => link::promiscuous(link, *on),
        Verb::Port { link, alias, hairpin, isolated } => {
            link::port(link, alias.as_deref(), *hairpin, *isolated)
        }
        Verb::NoLinkLocal { link } => link::without_link_local(link),
        Verb::ArpNotify { link } => link::arp_notify(link),
        Verb::Address { net, dad, .. } => address::add(index, *net, *dad),
        Verb::RemoveAddress { net, .. } => address::delete(index, *net),
        Verb::Route { route, .. } => route::add(index, route),
        Verb::Neighbour { address, mac, permanent: true, .. } => neighbour::permanent(index, *address, *mac),
        Verb::Neighbour { address, mac, permanent: false, .. } => neighbour::reachable(index, *address, *mac),
        Verb::RemoveNeighbour { address, .. } => neighbour::delete(index, *address),
        Verb::Mtu { link, mtu } => link::set_mtu(link, *mtu),
        Verb::AllMulticast { link, on } => link::all_multicast(link, *on),
        Verb::QueueLength { link, packets } => link::queue_length(link, *packets),
        Verb::CopyRoute { route, .. } => route::copy(index, route),
        Verb::RemoveRoute { route, .. } => route::delete(index, route),
        Verb::Rule { from, table } => rule::add(*from, *table),
        Verb::RemoveRule { from, table } => rule::delete(*from, *table),
    }
}

/// Whether the verb gives a link its index.
pub fn makes_a_link(verb: &Verb) -> bool {
    matches!(verb, Verb::CreateBridge { .. } | Verb::CreateVeth { .. })
}

/// The link whose index the verb's message carries.
pub fn needs_index(verb: &Verb) -> Option<&str> {
    match verb {
        Verb::CreateVeth { bridge, .. } => bridge.as_deref(),
        Verb::Address { link, .. }
        | Verb::RemoveAddress { link, .. }
        | Verb::Route { link, .. }
        | Verb::CopyRoute { link, .. }
        | Verb::RemoveRoute { link, .. }
        | Verb::Neighbour { link, .. }
        | Verb::RemoveNeighbour { link, .. } => Some(link),
        _ => None,
    }
}

/// Whether the verb is about something that shall go.
pub fn takes_away(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::RemoveAddress { .. }
            | Verb::RemoveNeighbour { .. }
            | Verb::Down { .. }
            | Verb::RemoveRoute { .. }
            | Verb::RemoveRule { .. }
    )
}

/// Whether the refusal says that the kernel is as the verb wants it: shared things may have been made by
/// another call meanwhile, and what shall go may be gone.
pub fn is_done_already(verb: &Verb, refusal: &Refusal) -> bool {
    match verb {
        Verb::CreateBridge { .. } | Verb::Address { .. } => refusal.errno() == libc::EEXIST,
        // A kernel without IPv6 makes no link-local address anyway.
        Verb::NoLinkLocal { .. } => matches!(refusal.errno(), libc::EAFNOSUPPORT | libc::EOPNOTSUPP),
        verb if takes_away(verb) => {
            matches!(refusal.errno(), libc::ENODEV | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ESRCH)
        }
        _ => false,
    }
}

/// The refusal as an error that says what to do.
pub fn explained(step: Step, refusal: Refusal) -> Box<Error> {
    let exists = refusal.errno() == libc::EEXIST;
    let error = refused(step.to_string(), refusal);
    match step {
        Step::Link { verb: Verb::CreateVeth { host, pod, .. }, .. } if exists => error.hint(format!(
            "the pod has an interface `{pod}` already, or the node has `{host}` left from an ADD that was never deleted: call DEL first"
        )),
        Step::Link { place: Place::Host, verb: Verb::Route { route, .. } } if exists => error.hint(format!(
            "another pod on this node has the address: `ip route get {}` shows its link, whose alias names it",
            route.dst.addr()
        )),
        _ => error,
    }
}
