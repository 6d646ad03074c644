//! CHECK: is everything as ADD made it? (CNI spec 1.1.0, section 2, "CHECK").
//!
//! The same decisions as for an ADD give the same steps; each step is then looked for in the kernel. So
//! whatever ADD learns to make, CHECK learns to miss.

mod shape;
mod stranger;
mod tuned;

use std::path::Path;

use ipnet::IpNet;
use node::{Error, Kind, Result};

use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::tuning::{self, Tuning};
use crate::ipam::Ipam;
use crate::kernel::link::{self, Link};
use crate::kernel::route::{self, Route};
use crate::kernel::{address, loopback, neighbour, sysctl};
use crate::mac::Mac;
use crate::observe;
use crate::plan::step::{Place, Step, Verb};
use crate::plan::wish::Granted;
use crate::plan::{Given, source_routing};
use crate::request::Call;
use crate::result::{self, CniResult, Interface};
use crate::role::Role;
use crate::state::State;
use crate::verb::{add, seen};

/// The main routing table (rtnetlink(7), RT_TABLE_MAIN).
const MAIN: u32 = 254;

/// Says everything that is missing or different, or nothing.
pub fn check(call: &Call, previous: &CniResult) -> Result<()> {
    let state = State::open()?;
    let Some(record) = state.attachments.find(&call.owner)? else {
        if stranger::made(previous) {
            return stranger::check(call, previous, &state);
        }
        return Err(mismatch(call, &["its record is gone".to_owned()]));
    };
    // With a record there is something to delete, whatever became of the namespace: not code 3.
    let (home, pod) = add::namespaces(&call.netns, call.netns_override).map_err(|e| {
        let what = format!("its namespace cannot be used: {}", e.chain());
        mismatch(call, &[what])
    })?;
    let mut hands = Hands::new(&state, home, Some(pod));
    let mut missing = Vec::new();
    let granted = granted(previous, &record, call);
    missing.extend(leases(call, &record, &mut hands)?);
    let links = observe::links(hands.socket(Place::Host)?, &call.config)?;
    let mut wish = add::decide(call, &record, links, &granted, &mut hands)?;
    // A plugin later in the chain may have set another MTU or MAC: the result says so.
    if let Some(mac) = mac_of(previous, call) {
        wish.pod_mac = mac;
    }
    let mut pod_mtu = inside(previous, call).and_then(|i| i.mtu);
    if pod_mtu.is_none() && is_tuned(call)? {
        pod_mtu = link::find(hands.socket(Place::Pod)?, &call.owner.ifname)?.map(|l| l.mtu);
    }
    for step in wish.steps() {
        missing.extend(match &step {
            Step::Link { verb: verb @ Verb::CreateVeth { .. }, .. } => pair(verb, pod_mtu, &mut hands)?,
            Step::Link { place: Place::Pod, verb: Verb::Route { link, route } } => {
                unrouted(link, route, &record, &mut hands)?
            }
            step => absent(step, &mut hands)?,
        });
    }
    if let Some(wish) = call.config.features.source_routing {
        let given = granted.addresses.clone();
        let seen = seen::lookups(&call.owner.ifname, given, &mut hands)?;
        missing.extend(source_routing::missing(wish, &call.owner.ifname, &seen));
    }
    hands.go(Place::Host)?;
    if let Some(Ipam::Delegate { plugin }) = &call.config.ipam {
        hands.delegates(&call.path, &call.stdin).check(plugin)?;
    }
    if missing.is_empty() { Ok(()) } else { Err(mismatch(call, &missing)) }
}

/// Whether a plugin later in the chain set the interface's MTU, and keeps the one before. Results before
/// 1.1.0 have no word for it: then that plugin's CHECK alone can tell.
fn is_tuned(call: &Call) -> Result<bool> {
    for role in [Role::Tuning, Role::Main] {
        let record = State::chained(role.name())?.attachments.find(&call.owner)?;
        if record.is_some_and(|r| r.restore.is_some_and(|before| before.mtu.is_some())) {
            return Ok(true);
        }
    }
    let file = Tuning::file(Path::new(tuning::DATA_DIR), &call.owner.container_id, &call.owner.ifname);
    Ok(file.exists())
}

/// The error that names everything.
pub fn mismatch(call: &Call, missing: &[String]) -> Box<Error> {
    let pod = call.args.pod().unwrap_or_else(|| call.owner.to_string());
    Error::new(Kind::Mismatch, format!("check the network of `{pod}`: {}", missing.join("; ")))
        .hint("restart the pod, or put back what is named")
}

/// What the pod was given, from the result that the runtime kept.
fn granted(previous: &CniResult, record: &Attachment, call: &Call) -> Granted {
    let ours = previous.ips.iter().filter(|ip| record.addresses.contains(&ip.address.addr()));
    let configured = match &call.config.ipam {
        Some(Ipam::HostLocal(config)) => config.routes.as_slice(),
        Some(Ipam::Static(config)) => config.routes.as_slice(),
        Some(Ipam::Delegate { .. }) | None => &[],
    };
    // Results before 1.1.0 have no words for a route's table, scope and metrics: the configuration has.
    let whole = |route: &result::Route| {
        let same =
            |c: &&result::Route| c.dst.trunc() == route.dst.trunc() && (c.gw.is_none() || c.gw == route.gw);
        let plain = route.table.is_none() && route.scope.is_none() && route.priority.is_none();
        configured.iter().filter(|_| plain).find(same).unwrap_or(route).clone()
    };
    Granted {
        addresses: ours.map(|ip| Given { address: ip.address, gateway: ip.gateway }).collect(),
        routes: Some(previous.routes.iter().map(whole).collect()),
        networks: record.networks.clone(),
        dns: previous.dns.clone(),
    }
}

fn inside<'a>(previous: &'a CniResult, call: &Call) -> Option<&'a Interface> {
    previous.interfaces.iter().find(|i| i.sandbox.is_some() && i.name == call.owner.ifname)
}

fn mac_of(previous: &CniResult, call: &Call) -> Option<Mac> {
    inside(previous, call).and_then(|i| i.mac.as_deref()).and_then(|mac| mac.parse().ok())
}

fn leases(call: &Call, record: &Attachment, hands: &mut Hands) -> Result<Vec<String>> {
    let (Some(folder), Some(Ipam::HostLocal(config))) = (&record.leases, &call.config.ipam) else {
        return Ok(Vec::new());
    };
    let leases = hands.open_leases(folder, config.cooldown)?;
    let mut missing = Vec::new();
    for address in &record.addresses {
        match leases.holder(*address)? {
            Some(holder) if holder == record.owner => {}
            Some(holder) => missing.push(format!("the lease of `{address}` is held by `{holder}`")),
            None => missing.push(format!("the lease of `{address}` is gone")),
        }
    }
    Ok(missing)
}

/// What of a step is not in effect.
pub fn absent(step: &Step, hands: &mut Hands) -> Result<Vec<String>> {
    Ok(match step {
        Step::Setting { place: Place::Host, name, .. } => vec![format!("`{name}` is off")],
        Step::Setting { place: Place::Pod, name, value } => setting(name, value, hands)?,
        Step::Link { place, verb } => not_there(*place, verb, hands)?,
        Step::Filter { filters, owner } => hands.nft()?.lacks(filters, owner)?,
        Step::Sysctl { name, value } => tuned::setting(name, value, hands)?.into_iter().collect(),
        Step::SpoofCheck { owner, mac } => hands.nft()?.spoof_missing(&owner.host_ifname(), mac.0, owner)?,
        Step::ClaimPorts { ports, owner } => hands.state().claims().lacks(ports, owner)?,
        Step::OpenLoopback { link, four, six } => {
            hands.go(Place::Host)?;
            loopback::closed(hands.socket(Place::Host)?, link, *four, *six)?
        }
        _ => Vec::new(),
    })
}

/// Only what keeps others from becoming the pod's router is held to: the rest had its effect at ADD.
fn setting(name: &str, value: &str, hands: &mut Hands) -> Result<Vec<String>> {
    if !name.ends_with("accept_ra") {
        return Ok(Vec::new());
    }
    hands.go(Place::Pod)?;
    let now = sysctl::get(name)?;
    Ok(now
        .filter(|n| n != value)
        .map(|n| format!("in the pod: `{name}` is {n}, not {value}"))
        .into_iter()
        .collect())
}

fn not_there(place: Place, verb: &Verb, hands: &mut Hands) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut say = |what: String| missing.push(format!("{place}{what}"));
    match verb {
        Verb::CreateBridge { link, .. } => say(format!("the bridge `{link}` is gone")),
        Verb::Up { link } => match link::find(hands.socket(place)?, link)? {
            Some(found) if found.up => {}
            Some(_) => say(format!("`{link}` is down")),
            None => {}
        },
        Verb::CreateVeth { .. } => missing.extend(pair(verb, None, hands)?),
        // The bridge's own is fixed for its ports' sake, and is no wish of anybody.
        Verb::Mac { .. } if place == Place::Host => {}
        Verb::Port { link, hairpin, isolated, .. } => {
            if let Some(found) = link::find(hands.socket(place)?, link)?.filter(|l| l.master.is_some()) {
                let (h, i) = (found.hairpin.unwrap_or_default(), found.isolated.unwrap_or_default());
                if (h, i) != (*hairpin, *isolated) {
                    say(format!(
                        "the port `{link}` has hairpin {h} and isolated {i}, not {hairpin} and {isolated}"
                    ));
                }
            }
        }
        // The link-local address is of the MAC at ADD, which a later plugin may have changed.
        Verb::Address { net: IpNet::V6(net), .. } if net.addr().is_unicast_link_local() => {}
        Verb::Address { link, net, .. } | Verb::AddressWithoutRoute { link, net } => {
            if let Some(index) = index(place, link, hands)?
                && !address::list(hands.socket(place)?, index)?.iter().any(|a| a.net == *net)
            {
                say(format!("`{link}` lacks the address `{net}`"));
            }
        }
        Verb::Route { link, route } => {
            if let Some(index) = index(place, link, hands)?
                && !route::list(hands.socket(place)?, index)?.iter().any(|(r, _)| is(r, route))
            {
                say(format!("the route `{route}` on `{link}` is gone or different"));
            }
        }
        Verb::CreateIfb { link, .. } => {
            if index(place, link, hands)?.is_none() {
                say(format!("the ifb `{link}` is gone"));
            }
        }
        Verb::Shape { link, bucket, told, .. } => {
            missing.extend(shape::bucket(link, bucket, *told, hands)?);
        }
        Verb::Redirect { link, to } => missing.extend(shape::redirection(link, to, hands)?),
        Verb::Neighbour { link, address, mac, permanent: true } => {
            if let Some(index) = index(place, link, hands)?
                && neighbour::find(hands.socket(place)?, index, *address)? != Some((Some(*mac), true))
            {
                say(format!("the permanent neighbour `{address}` at {mac} on `{link}` is gone or different"));
            }
        }
        verb => missing.extend(tuned::different(place, verb, hands)?),
    }
    Ok(missing)
}

/// A route of the pod's that is gone. One that moved to where a rule for the pod's addresses looks it up
/// is where a plugin for routing by source put it.
fn unrouted(link: &str, route: &Route, record: &Attachment, hands: &mut Hands) -> Result<Vec<String>> {
    let step = Verb::Route { link: link.to_owned(), route: route.clone() };
    let missing = not_there(Place::Pod, &step, hands)?;
    if missing.is_empty() || route.table.unwrap_or(MAIN) != MAIN {
        return Ok(missing);
    }
    let Some(index) = index(Place::Pod, link, hands)? else { return Ok(missing) };
    let tables = seen::tables_of(&record.addresses, hands)?;
    let there = route::list(hands.socket(Place::Pod)?, index)?;
    let moved = |table: &u32| {
        let route = Route { table: Some(*table), ..route.clone() };
        there.iter().any(|(r, _)| is(r, &route))
    };
    Ok(if tables.iter().any(moved) { Vec::new() } else { missing })
}

/// A link that is gone is told once, by the pair; what hung on it is not told again.
fn index(place: Place, name: &str, hands: &mut Hands) -> Result<Option<u32>> {
    Ok(link::find(hands.socket(place)?, name)?.map(|l| l.index))
}

/// `pod_mtu` is what the result says of the pod's end, where a later plugin may have set another.
fn pair(verb: &Verb, pod_mtu: Option<u32>, hands: &mut Hands) -> Result<Vec<String>> {
    let Verb::CreateVeth { host, pod, pod_mac, mtu, bridge, .. } = verb else { return Ok(Vec::new()) };
    let outside = link::find(hands.socket(Place::Host)?, host)?;
    let inside = link::find(hands.socket(Place::Pod)?, pod)?;
    let mut missing = Vec::new();
    let ends = [(Place::Host, host, &outside, None), (Place::Pod, pod, &inside, pod_mtu)];
    for (place, name, link, asked) in ends {
        match link {
            None => missing.push(format!("{place}the interface `{name}` is gone")),
            Some(link) => missing.extend(wrong(place, link, asked.unwrap_or(*mtu))),
        }
    }
    if let Some(link) = inside.filter(|l| l.mac != Some(*pod_mac)) {
        let now = link.mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
        missing.push(format!("in the pod: `{pod}` has the MAC {now}, not {pod_mac}"));
    }
    if let (Some(bridge), Some(link)) = (bridge, outside) {
        let master = index(Place::Host, bridge, hands)?;
        if master.is_some() && link.master != master {
            missing.push(format!("`{host}` is not a port of the bridge `{bridge}`"));
        }
    }
    Ok(missing)
}

fn wrong(place: Place, link: &Link, mtu: u32) -> Vec<String> {
    let mut missing = Vec::new();
    if link.mtu != mtu {
        missing.push(format!("{place}`{}` has the MTU {}, not {mtu}", link.name, link.mtu));
    }
    if !link.up && place == Place::Host {
        missing.push(format!("`{}` is down", link.name));
    }
    missing
}

/// Whether `there` is what `wanted` asks for; what it leaves open may be anything.
fn is(there: &Route, wanted: &Route) -> bool {
    let open = |wanted: Option<u32>, there: Option<u32>| wanted.is_none() || wanted == there;
    // The kernel takes table 0 (unspecified) for main.
    let table = |route: &Route| route.table.filter(|t| *t != 0).unwrap_or(MAIN);
    there.dst.trunc() == wanted.dst.trunc()
        && there.gw == wanted.gw
        && table(there) == table(wanted)
        && open(wanted.priority, there.priority)
        && open(wanted.mtu, there.mtu)
        && open(wanted.advmss, there.advmss)
        // IPv6 routes have no scope: the kernel reports them as global.
        && (wanted.scope.is_none() || wanted.dst.addr().is_ipv6() || wanted.scope == there.scope)
}
