//! A verb as the message that the kernel reads, and what its refusal means.

use std::os::fd::RawFd;

use node::Error;

use crate::kernel::link::Veth;
use crate::kernel::socket::{Refusal, Request, refused};
use crate::kernel::{address, link, neighbour, route, rule, tc};
use crate::plan::step::{Place, Step, Verb};

/// The message of a verb on the link `index` (see [`needs_index`]) and towards the link `to` (see
/// [`needs_other`]); `netns` is the pod's namespace.
pub fn message(verb: &Verb, index: u32, to: u32, netns: RawFd) -> Request {
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
        Verb::AddressWithoutRoute { net, .. } => address::add_without_route(index, *net),
        Verb::RemoveAddress { net, .. } => address::delete(index, *net),
        Verb::Route { route, .. } => route::add(index, route),
        Verb::Neighbour { address, mac, permanent: true, .. } => neighbour::permanent(index, *address, *mac),
        Verb::Neighbour { address, mac, permanent: false, .. } => neighbour::reachable(index, *address, *mac),
        Verb::RemoveNeighbour { address, .. } => neighbour::delete(index, *address),
        Verb::CreateIfb { link, mac, mtu } => link::create_ifb(link, *mac, *mtu),
        Verb::Shape { handle, bucket, .. } => tc::shape(index, *handle, bucket),
        Verb::Unshape { handle, .. } => tc::unshape(index, *handle),
        Verb::Ingress { .. } => tc::add_ingress(index),
        Verb::Redirect { .. } => tc::redirect(index, to),
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
    matches!(verb, Verb::CreateBridge { .. } | Verb::CreateVeth { .. } | Verb::CreateIfb { .. })
}

/// The link whose index the verb's message carries.
pub fn needs_index(verb: &Verb) -> Option<&str> {
    match verb {
        Verb::CreateVeth { bridge, .. } => bridge.as_deref(),
        Verb::Address { link, .. }
        | Verb::AddressWithoutRoute { link, .. }
        | Verb::RemoveAddress { link, .. }
        | Verb::Route { link, .. }
        | Verb::CopyRoute { link, .. }
        | Verb::RemoveRoute { link, .. }
        | Verb::Neighbour { link, .. }
        | Verb::RemoveNeighbour { link, .. }
        | Verb::Shape { link, .. }
        | Verb::Unshape { link, .. }
        | Verb::Ingress { link, .. }
        | Verb::Redirect { link, .. } => Some(link),
        _ => None,
    }
}

/// The second link whose index the verb's message carries.
pub fn needs_other(verb: &Verb) -> Option<&str> {
    if let Verb::Redirect { to, .. } = verb { Some(to) } else { None }
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
            | Verb::Unshape { .. }
    )
}

/// Whether the refusal says that the kernel is as the verb wants it: shared things may have been made by
/// another call meanwhile, and what shall go may be gone.
pub fn is_done_already(verb: &Verb, refusal: &Refusal) -> bool {
    match verb {
        Verb::CreateBridge { .. } | Verb::Address { .. } | Verb::AddressWithoutRoute { .. } => {
            refusal.errno() == libc::EEXIST
        }
        // Put back into the main table, which it never left.
        Verb::CopyRoute { route, .. } if !route::is_apart(route) => refusal.errno() == libc::EEXIST,
        // A kernel without IPv6 makes no link-local address anyway.
        Verb::NoLinkLocal { .. } => matches!(refusal.errno(), libc::EAFNOSUPPORT | libc::EOPNOTSUPP),
        // EINVAL is another's: another handle or another kind of qdisc than the message names.
        Verb::Unshape { .. } => matches!(refusal.errno(), libc::ENODEV | libc::ENOENT | libc::EINVAL),
        verb if takes_away(verb) => {
            matches!(refusal.errno(), libc::ENODEV | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ESRCH)
        }
        _ => false,
    }
}

/// The refusal as an error that says what to do.
pub fn explained(step: Step, refusal: Refusal) -> Box<Error> {
    let exists = refusal.errno() == libc::EEXIST;
    let unknown = matches!(refusal.errno(), libc::ENOENT | libc::EOPNOTSUPP);
    let error = refused(step.to_string(), refusal);
    match step {
        Step::Link { verb: Verb::CopyRoute { .. }, .. } if exists => error.hint(
            "another interface of the pod has such a route in that table: leave `table` out to have the first free one",
        ),
        Step::Link { verb: Verb::CreateVeth { host, pod, .. }, .. } if exists => error.hint(format!(
            "the pod has an interface `{pod}` already, or the node has `{host}` left from an ADD that was never deleted: call DEL first"
        )),
        Step::Link { place: Place::Host, verb: Verb::Route { route, .. } } if exists => error.hint(format!(
            "another pod on this node has the address: `ip route get {}` shows its link, whose alias names it",
            route.dst.addr()
        )),
        Step::Link { verb: Verb::CreateIfb { link, .. }, .. } if exists => error.hint(format!(
            "`ip link show {link}` names its owner: an ADD that was never deleted, or another interface of the same container in this network, which can have rates once"
        )),
        Step::Link { verb, .. } if unknown => match kernel_option(&verb) {
            Some(option) => error.hint(format!("rates need a kernel with {option}")),
            None => error,
        },
        _ => error,
    }
}

/// What the kernel has to be built with for a verb that it does not know.
fn kernel_option(verb: &Verb) -> Option<&'static str> {
    match verb {
        Verb::CreateIfb { .. } => Some("CONFIG_IFB"),
        Verb::Shape { .. } => Some("CONFIG_NET_SCH_TBF"),
        Verb::Ingress { .. } => Some("CONFIG_NET_SCH_INGRESS"),
        Verb::Redirect { .. } => Some("CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED"),
        _ => None,
    }
}
