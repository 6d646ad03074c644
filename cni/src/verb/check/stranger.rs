//! CHECK of a pod that the reference's plugin made before this one took its name: there is no record, so
//! the result is compared with the kernel.

use node::Result;

use super::mismatch;
use crate::apply::Hands;
use crate::config::Attach;
use crate::ipam::Ipam;
use crate::kernel::link::{self, Link};
use crate::kernel::{address, route};
use crate::owner::Owner;
use crate::plan::step::Place;
use crate::request::Call;
use crate::result::CniResult;
use crate::state::State;
use crate::verb::add;

/// Whether the result is of an interface that another program made.
pub fn made(previous: &CniResult) -> bool {
    let mut host = previous.interfaces.iter().filter(|i| i.sandbox.as_deref().unwrap_or_default().is_empty());
    let inside = previous.interfaces.iter().any(|i| i.sandbox.is_some());
    inside && !host.any(|i| Owner::is_host_ifname(&i.name))
}

/// Says everything that is missing or different, or nothing.
pub fn check(call: &Call, previous: &CniResult, state: &State) -> Result<()> {
    let (home, pod) = add::namespaces(&call.netns, call.netns_override)
        .map_err(|e| mismatch(call, &[format!("its namespace cannot be used: {}", e.chain())]))?;
    let mut hands = Hands::new(state, home, Some(pod));
    let name = &call.owner.ifname;
    let Some(inside) = link::find(hands.socket(Place::Pod)?, name)? else {
        return Err(mismatch(call, &[format!("in the pod: the interface `{name}` is gone")]));
    };
    let mut missing = contents(call, previous, &inside, &mut hands)?;
    missing.extend(outside(call, &inside, &mut hands)?);
    hands.go(Place::Host)?;
    match &call.config.ipam {
        Some(Ipam::Delegate { plugin }) => hands.delegates(&call.path, &call.stdin).check(plugin)?,
        Some(Ipam::HostLocal(config)) => {
            let leases = hands.open_existing_leases(&config.folder(&call.config.name), config.cooldown)?;
            if leases.map(|l| l.held_by(&call.owner)).transpose()?.is_none_or(|held| held.is_empty()) {
                missing.push("its leases are gone".to_owned());
            }
        }
        Some(Ipam::Static(_)) | None => {}
    }
    if missing.is_empty() { Ok(()) } else { Err(mismatch(call, &missing)) }
}

/// The interface in the pod against the result.
fn contents(call: &Call, previous: &CniResult, inside: &Link, hands: &mut Hands) -> Result<Vec<String>> {
    let (name, mut missing) = (&call.owner.ifname, Vec::new());
    let told = previous.interfaces.iter().find(|i| i.sandbox.is_some() && i.name == *name);
    let mac = told.and_then(|i| i.mac.as_deref()).and_then(|mac| mac.parse().ok());
    if mac.is_some() && mac != inside.mac {
        missing.push(format!("in the pod: `{name}` has another MAC than the result says"));
    }
    let ours = |i: usize| previous.interfaces.get(i).is_some_and(|i| i.sandbox.is_some() && i.name == *name);
    let there = address::list(hands.socket(Place::Pod)?, inside.index)?;
    for ip in previous.ips.iter().filter(|ip| ip.interface.is_none_or(ours)) {
        if !there.iter().any(|a| a.net == ip.address) {
            missing.push(format!("in the pod: `{name}` lacks the address `{}`", ip.address));
        }
    }
    let there = route::list(hands.socket(Place::Pod)?, inside.index)?;
    for wanted in &previous.routes {
        let same = |r: &route::Route| {
            r.dst.trunc() == wanted.dst.trunc() && (wanted.gw.is_none() || r.gw == wanted.gw)
        };
        if !there.iter().any(|(r, _)| same(r)) {
            missing.push(format!("in the pod: the route to `{}` is gone or different", wanted.dst));
        }
    }
    Ok(missing)
}

/// The host end, found from the pod's.
fn outside(call: &Call, inside: &Link, hands: &mut Hands) -> Result<Vec<String>> {
    let socket = hands.socket(Place::Host)?;
    let peer = match inside.peer.filter(|_| inside.kind.as_deref() == Some("veth")) {
        Some(peer) => link::find_index(socket, peer)?.filter(|l| l.peer == Some(inside.index)),
        None => None,
    };
    let Some(peer) = peer else { return Ok(vec!["its link on the node is gone".to_owned()]) };
    let mut missing = Vec::new();
    if !peer.up {
        missing.push(format!("`{}` is down", peer.name));
    }
    if let Attach::Bridge(bridge) = &call.config.attach {
        match link::find(socket, &bridge.name)? {
            None => missing.push(format!("the bridge `{}` is gone", bridge.name)),
            Some(found) if peer.master != Some(found.index) => {
                missing.push(format!("`{}` is not a port of the bridge `{}`", peer.name, bridge.name));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}
