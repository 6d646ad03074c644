//! A chained call: another plugin made the pod's interface, this one adds to it
//! (CNI spec 1.1.0, section 3, "Execution of Network Configurations").

use node::namespace::Namespace;
use node::step::Done;
use node::{Error, Kind, Result, times};

use crate::apply::Hands;
use crate::attachment::{Attachment, attached};
use crate::kernel::link;
use crate::observe;
use crate::plan::feature;
use crate::plan::step::{Place, Step};
use crate::plan::target::Target;
use crate::plan::{Given, shape, source_routing, tune};
use crate::request::{Call, Del, Gc};
use crate::result::{CniResult, Interface};
use crate::role::Role;
use crate::state::State;
use crate::verb::gc::tidy;
use crate::verb::strays::Strays;
use crate::verb::{add, check, del, repair, seen};

/// Adds what is asked for. The previous result passes through, with what was changed of it.
pub fn add(call: &Call, previous: &CniResult) -> Result<CniResult> {
    if call.config.features.is_empty() {
        return Ok(previous.clone());
    }
    let state = State::chained(call.config.role.name())?;
    add::begin(&state)?;
    if state.attachments.has(&call.owner) {
        return Err(attached(&call.owner));
    }
    let (home, pod) = add::namespaces(&call.netns, call.netns_override)?;
    let mut hands = Hands::new(&state, home, Some(pod));
    times::lap("open");
    let mut target = target(call, previous, &mut hands)?;
    let features = &call.config.features;
    if let Some(tuning) = &features.tuning {
        seen::permit(tuning)?;
        target.tuned = seen::before(tuning, &target, &mut hands)?;
    }
    let mut steps = planned(call, &target, &hands)?;
    if let Some(wish) = features.source_routing {
        let given = given(&call.owner.ifname, previous);
        steps.extend(seen::rerouting(wish, &call.owner.ifname, given, &mut hands)?);
    }
    times::lap("plan");
    let mut done = Done::default();
    match hands.run(steps, &mut done) {
        Ok(()) => {
            repair::where_flushed(call, &mut hands);
            times::lap("after a flush");
            let mut result = changed(call, previous);
            result.interfaces.extend(feature::links(&call.config.features, &target));
            Ok(result)
        }
        Err(first) => Err(done.roll_back(first, |steps| hands.run_all(steps))),
    }
}

/// Takes a whole ADD back, because its answer could not be given.
pub fn take_back(call: &Call) -> Result<()> {
    let state = State::chained(call.config.role.name())?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    match state.attachments.find(&call.owner)? {
        Some(record) => del::remembered(&record, &mut hands),
        None => Ok(()),
    }
}

/// The previous result with what was changed of the pod's interface.
fn changed(call: &Call, previous: &CniResult) -> CniResult {
    let mut result = previous.clone();
    let Some(tuning) = &call.config.features.tuning else { return result };
    let inside = |i: &&mut Interface| i.sandbox.is_some() && i.name == call.owner.ifname;
    for interface in result.interfaces.iter_mut().filter(inside) {
        interface.mac = tuning.mac.map(|mac| mac.to_string()).or(interface.mac.take());
        interface.mtu = tuning.mtu.or(interface.mtu);
    }
    result
}

/// Says everything that is missing or different, or nothing.
pub fn check(call: &Call, previous: &CniResult) -> Result<()> {
    if call.config.features.is_empty() {
        return Ok(());
    }
    let state = State::chained(call.config.role.name())?;
    let (home, pod) = add::namespaces(&call.netns, call.netns_override)?;
    let mut hands = Hands::new(&state, home, Some(pod));
    let target = target(call, previous, &mut hands)?;
    let mut missing = Vec::new();
    for step in features_of(call, &target)? {
        missing.extend(check::absent(&step, &mut hands)?);
    }
    if let Some(wish) = call.config.features.source_routing {
        let name = &call.owner.ifname;
        let seen = seen::lookups(name, given(&call.owner.ifname, previous), &mut hands)?;
        missing.extend(source_routing::missing(wish, name, &seen));
    }
    hands.go(Place::Host)?;
    if missing.is_empty() { Ok(()) } else { Err(check::mismatch(call, &missing)) }
}

/// Takes back what the record names; without one, what can be found of the owner.
pub fn del(call: &Del) -> Result<()> {
    let state = State::chained(call.role.name())?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    if let Some(record) = state.attachments.find(&call.owner)? {
        return del::remembered(&record, &mut hands);
    }
    // What is met here must not keep the rest from going.
    let outside = forgotten(call, &mut hands);
    let mut steps = del::inside(call)?;
    if !steps.is_empty() {
        hands.visit(del::namespace_of(call)?)?;
    }
    if state.attachments.has(&call.owner) {
        steps.push(Step::Forget { owner: call.owner.clone() });
    }
    outside.and(hands.run_all(steps))
}

/// Takes back what can be found without a record: the reference's of the same name, or ours of a lost one.
fn forgotten(call: &Del, hands: &mut Hands) -> Result<()> {
    let state = hands.state();
    let lost = state.attachments.has(&call.owner) || !state.is_whole()?;
    let filters = if lost { del::filters_of(&call.owner, hands) } else { Ok(()) };
    let ports = match call.network.as_ref().filter(|_| matches!(call.role, Role::Main | Role::PortMap)) {
        Some(network) => {
            let [_, ports] = shape::chains_of_reference(network, &call.owner);
            hands.nft().map_or(Ok(()), |nft| nft.remove_chains_of_reference(&[ports]))
        }
        None => Ok(()),
    };
    filters.and(ports).and(accepts_of_reference(call, hands)).and(ifb_of(call, hands))
}

/// The rules of the reference's firewall, which tell their pod by its addresses alone: without the ADD's result
/// they stay, as by the reference's own DEL.
pub fn accepts_of_reference(call: &Del, hands: &mut Hands) -> Result<()> {
    let previous = call.previous.as_ref().filter(|_| matches!(call.role, Role::Main | Role::Firewall));
    let Some(previous) = previous else { return Ok(()) };
    let given = given(&call.owner.ifname, previous);
    let addresses: Vec<_> = given.iter().map(|g| g.address.addr()).collect();
    hands.nft().map_or(Ok(()), |nft| nft.remove_accepts_of_reference(&addresses))
}

/// The ifb of the network and the container, by its name.
pub fn ifb_of(call: &Del, hands: &mut Hands) -> Result<()> {
    let Some(network) = call.network.as_ref().filter(|_| matches!(call.role, Role::Main | Role::Bandwidth))
    else {
        return Ok(());
    };
    let ifb = observe::left_ifb(hands.socket(Place::Host)?, network, &call.owner)?;
    ifb.map_or(Ok(()), |ifb| hands.run_all(vec![Step::DeleteLinks { links: vec![ifb] }]))
}

/// Removes what was added to interfaces that are not in the list of valid ones.
pub fn gc(call: &Gc) -> Result<()> {
    let state = State::chained(call.config.role.name())?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    // Looked at before the records: what an ADD makes from now on has its record by then.
    let strays = Strays::look(&mut hands);
    let mut first = Ok(());
    let doomed = |r: &&Attachment| r.network == call.config.name && !call.valid.contains(&r.owner);
    for record in state.attachments.all()?.iter().filter(doomed) {
        let result = del::remembered(record, &mut hands);
        if first.is_ok() {
            first = result;
        }
    }
    let removed = strays.and_then(|strays| strays.remove(call, &mut hands));
    first.and(removed).and(tidy(&mut hands))
}

fn planned(call: &Call, target: &Target, hands: &Hands) -> Result<Vec<Step>> {
    let mut record = Attachment {
        chained: Some(call.config.role.name().to_owned()),
        host_link: target.host_link.clone(),
        addresses: target.ips(),
        networks: target.neighbours.clone(),
        port_of: target.bridge.clone(),
        mtu: target.mtu,
        ..add::basics(call, hands)
    };
    feature::note(&call.config.features, &mut record);
    record.restore = call.config.features.tuning.as_ref().and_then(|t| tune::before(t, target));
    let mut steps = vec![Step::Record(Box::new(record))];
    steps.extend(features_of(call, target)?);
    Ok(steps)
}

fn features_of(call: &Call, target: &Target) -> Result<Vec<Step>> {
    feature::judge(&call.config.features, target)?;
    let mut steps = feature::first(&call.config.features, target);
    steps.extend(feature::steps_before_up(&call.config.features, target));
    let (more, filters) = feature::steps(&call.config.features, target);
    steps.extend(more);
    if !filters.is_empty() {
        steps.push(Step::Filter { filters, owner: call.owner.clone() });
    }
    steps.extend(feature::after(&call.config.features, target, false));
    Ok(steps)
}

/// The pod's interface and its host end, found from the pod's side: results name it, and names may be wrong.
fn target(call: &Call, previous: &CniResult, hands: &mut Hands) -> Result<Target> {
    let name = &call.owner.ifname;
    let Some(inside) = link::find(hands.socket(Place::Pod)?, name)? else {
        let what = format!("add to the pod's interface `{name}`, which is not there");
        return Err(Error::new(Kind::Mismatch, what)
            .hint("the plugin before this one in the list makes it: its name is the runtime's CNI_IFNAME"));
    };
    hands.know(Place::Pod, name, inside.index);
    let socket = hands.socket(Place::Host)?;
    let is_pair = inside.kind.as_deref() == Some("veth");
    let outside = match inside.peer.filter(|_| is_pair) {
        Some(peer) => link::find_index(socket, peer)?,
        None => None,
    };
    // Indexes are counted by namespace: the link that bears the number here must be the other end.
    let outside = outside.filter(|l| l.kind.as_deref() == Some("veth") && l.peer == Some(inside.index));
    let bridge = match outside.as_ref().and_then(|l| l.master) {
        Some(index) => link::find_index(socket, index)?.map(|l| l.name),
        None => None,
    };
    if let Some(link) = &outside {
        hands.know(Place::Host, &link.name, link.index);
    }
    let addresses: Vec<_> = given(&call.owner.ifname, previous).iter().map(|g| g.address).collect();
    let neighbours = addresses.iter().filter(|_| bridge.is_some()).map(ipnet::IpNet::trunc).collect();
    Ok(Target {
        owner: call.owner.clone(),
        network: call.config.name.clone(),
        mtu: outside.as_ref().map_or(inside.mtu, |l| l.mtu),
        host_link: outside.map(|l| l.name),
        bridge,
        addresses,
        neighbours,
        before: Some(inside),
        ..Target::default()
    })
}

/// The addresses of the pod's interface, as the result has them.
fn given(ifname: &str, previous: &CniResult) -> Vec<Given> {
    let inside = |i: &Interface| i.sandbox.is_some() && i.name == ifname;
    let ours = |i: usize| previous.interfaces.get(i).is_some_and(inside);
    let ips = previous.ips.iter().filter(|ip| ip.interface.is_none_or(ours));
    ips.map(|ip| Given { address: ip.address, gateway: ip.gateway }).collect()
}
