//! ADD: attach a pod to the network (CNI spec 1.1.0, section 2, "ADD").

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use node::namespace::Namespace;
use node::step::Done;
use node::{Error, Kind, Result, times};

use crate::apply::Hands;
use crate::attachment::{Attachment, attached};
use crate::config::Attach;
use crate::kernel::link;
use crate::kernel::nft::Nft;
use crate::kernel::socket::RouteSocket;
use crate::observe::{self, Links};
use crate::owner::Owner;
use crate::plan::feature;
use crate::plan::step::{Place, Step};
use crate::plan::wish::{Granted, mtu, wish};
use crate::plan::{Given, Wish, alone, unmake};
use crate::request::Call;
use crate::result::{CniResult, Dns, Interface, Ip, Route};
use crate::state::State;
use crate::verb::{addresses, chained, del, ipam, repair, seen};

/// Attaches the pod. On a failure everything that was done is taken back.
pub fn add(call: &Call) -> Result<CniResult> {
    let state = State::open()?;
    begin(&state)?;
    // Before the namespace is looked at: code 3 for one that is gone says that nothing has to be deleted.
    if state.attachments.has(&call.owner) {
        return Err(attached(&call.owner));
    }
    let (home, pod) = namespaces(&call.netns, call.netns_override)?;
    let mut hands = Hands::new(&state, home, Some(pod));
    times::lap("open");
    let mut done = Done::default();
    match attach(call, &mut hands, &mut done) {
        Ok(result) => {
            repair::where_flushed(call, &mut hands);
            times::lap("after a flush");
            Ok(result)
        }
        Err(first) => Err(done.roll_back(first, |steps| hands.run_all(steps))),
    }
}

/// Takes a whole ADD back, because its answer could not be given; `first` leads.
pub fn undone(call: &Call, first: Box<Error>) -> Box<Error> {
    let back = match call.config.attach {
        Attach::Chained => chained::take_back(call),
        Attach::Addresses => ipam::take_back(call),
        _ => take_back(call),
    };
    match back {
        Ok(()) => first,
        Err(left) => first.hint(format!("the clean-up met: {}; DEL will try again", left.chain())),
    }
}

fn take_back(call: &Call) -> Result<()> {
    let state = State::open()?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    hands.delegates(&call.path, &call.stdin);
    match state.attachments.find(&call.owner)? {
        Some(record) => del::remembered(&record, &mut hands),
        None => Ok(()),
    }
}

/// What an ADD would do, and nothing of it but the network's lock. The pod's namespace is not needed.
pub fn dry_run(call: &Call) -> Result<Vec<Step>> {
    let state = State::open()?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    call.config.features.tuning.iter().try_for_each(seen::permit)?;
    let links = observe::links(hands.socket(Place::Host)?, &call.config)?;
    let mut record = record(call, &hands, &links);
    let (mut steps, granted) = addresses::planned(call, &mut hands, &mut record)?;
    let wish = decide(call, &record, links, &granted, &mut hands)?;
    steps.extend(wish.steps());
    Ok(steps)
}

fn attach<'a>(call: &'a Call, hands: &mut Hands<'a>, done: &mut Done<Step>) -> Result<CniResult> {
    call.config.features.tuning.iter().try_for_each(seen::permit)?;
    let links = observe::links(hands.socket(Place::Host)?, &call.config)?;
    times::lap("observe");
    let mut record = record(call, hands, &links);
    let granted = addresses::obtain(call, hands, &mut record, done)?;
    let wish = decide(call, &record, links, &granted, hands)?;
    hands.run(wish.steps(), done)?;
    if let Some(source_routing) = call.config.features.source_routing {
        // The routes that move are the kernel's own, too: they are known when they are made.
        let steps = seen::rerouting(source_routing, &call.owner.ifname, inside_of(&wish), hands)?;
        hands.run(steps, done)?;
    }
    let bridge = bridge_of(&wish, hands)?;
    Ok(result(call, &wish, &granted, bridge))
}

/// The pod's namespace, opened and told apart from the node's before anything is made.
pub fn namespaces(path: &str, may_be_host: bool) -> Result<(Namespace, Namespace)> {
    let home = Namespace::current()?;
    let pod = Namespace::open(Path::new(path))?;
    if pod.is(&home) && !may_be_host {
        return Err(Error::new(
            Kind::Namespace,
            format!("use `{path}` as the pod's network namespace, which is the node's own"),
        )
        .hint("a pod on the host network needs no CNI call"));
    }
    Ok((home, pod))
}

/// Makes the memory this boot's own. What an earlier boot's records hold on disk goes back.
pub fn begin(state: &State) -> Result<()> {
    begin_where(state, || Ok(false))
}

/// [`begin`], where `more` tells of traces of this boot beside those in the kernel.
pub fn begin_where(state: &State, more: impl FnOnce() -> Result<bool>) -> Result<()> {
    let give_back = |old: &Attachment| {
        let mut hands = Hands::new(state, Namespace::current()?, None);
        let on_disk =
            unmake(old).into_iter().filter(|s| matches!(s, Step::Release { .. } | Step::ReleasePorts { .. }));
        hands.run_all(on_disk.collect())
    };
    state.begin(give_back, || Ok(traces()? || more()?))
}

/// Whether the kernel holds anything that an attachment of this boot made.
fn traces() -> Result<bool> {
    let links = link::veths(&mut RouteSocket::open()?)?;
    let table = || Nft::open().and_then(|mut nft| nft.has_table()).unwrap_or(false);
    Ok(links.iter().any(|l| Owner::is_host_ifname(&l.name)) || table())
}

fn record(call: &Call, hands: &Hands, links: &Links) -> Attachment {
    let bridge = match &call.config.attach {
        Attach::Bridge(bridge) => Some(bridge),
        _ => None,
    };
    let mut record = Attachment {
        mtu: mtu(&call.config, links),
        masquerade: call.config.masquerade,
        port_of: bridge.map(|b| b.name.clone()),
        bridge: bridge.filter(|b| b.is_gateway).map(|b| b.name.clone()),
        ..basics(call, hands)
    };
    feature::note(&call.config.features, &mut record);
    record
}

/// What a record says of every call.
pub fn basics(call: &Call, hands: &Hands) -> Attachment {
    Attachment {
        boot: hands.state().boot.clone(),
        since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        network: call.config.name.clone(),
        owner: call.owner.clone(),
        netns: call.netns.clone(),
        netns_identity: hands.pod_identity(),
        pod: call.args.pod(),
        version: call.config.version.as_str().to_owned(),
        ..Attachment::default()
    }
}

/// Looks at the node and decides.
pub fn decide(
    call: &Call,
    record: &Attachment,
    links: Links,
    granted: &Granted,
    hands: &mut Hands,
) -> Result<Wish> {
    let addresses: Vec<_> = granted.addresses.iter().map(|g| g.address.addr()).collect();
    let seen = observe::node(hands.socket(Place::Host)?, &call.config, links, &addresses)?;
    times::lap("observe");
    if let Some(bridge) = &seen.bridge {
        hands.know(Place::Host, &bridge.name, bridge.index);
    }
    let wish = wish(&call.config, &call.owner, record.pod.as_deref(), record.mtu, granted, &seen)?;
    feature::judge(&wish.features, &wish.target())?;
    times::lap("plan");
    Ok(wish)
}

/// The bridge as the result names it. Where this call meant to make it, another may have been quicker:
/// its MAC is the kernel's to tell.
fn bridge_of(wish: &Wish, hands: &mut Hands) -> Result<Option<Interface>> {
    let Some(bridge) = &wish.bridge else { return Ok(None) };
    let (mut mac, mut mtu) = (bridge.mac, bridge.mtu);
    if !bridge.exists
        && let Some(found) = link::find(hands.socket(Place::Host)?, &bridge.name)?
    {
        (mac, mtu) = (found.mac.unwrap_or(mac), found.mtu);
    }
    let (name, mac) = (bridge.name.clone(), Some(mac.to_string()));
    Ok(Some(Interface { name, mac, mtu: Some(mtu), ..Interface::default() }))
}

/// The addresses as the pod's interface has them.
fn inside_of(wish: &Wish) -> Vec<Given> {
    let routed = wish.bridge.is_none() && !wish.by_gateway;
    let net = |g: &Given| if routed { alone(g.address.addr()) } else { g.address };
    wish.addresses.iter().map(|g| Given { address: net(g), gateway: g.gateway }).collect()
}

fn result(call: &Call, wish: &Wish, granted: &Granted, bridge: Option<Interface>) -> CniResult {
    let end = |name: String, mac: crate::mac::Mac, sandbox: Option<String>| Interface {
        name,
        mac: Some(mac.to_string()),
        mtu: Some(wish.mtu),
        sandbox,
        ..Interface::default()
    };
    let mut interfaces: Vec<Interface> = bridge.into_iter().collect();
    interfaces.push(end(wish.owner.host_ifname(), wish.host_mac, None));
    let inside = interfaces.len();
    interfaces.push(end(wish.owner.ifname.clone(), wish.pod_mac, Some(call.netns.clone())));
    interfaces.extend(feature::links(&wish.features, &wish.target()));
    let ips = inside_of(wish).into_iter().map(|g| Ip {
        interface: Some(inside),
        address: g.address,
        gateway: g.gateway,
    });
    CniResult { ips: ips.collect(), interfaces, routes: routes(wish, granted), dns: dns(call, granted) }
}

/// The routes as they are in the pod. The older result form has no word for "on the link".
fn routes(wish: &Wish, granted: &Granted) -> Vec<Route> {
    let configured = granted.routes.clone().unwrap_or_default();
    let defaults = wish.routes.iter().filter(|r| !configured.iter().any(|c| c.dst.trunc() == r.dst.trunc()));
    let added = defaults.map(|r| Route {
        dst: r.dst,
        gw: r.gw,
        mtu: r.mtu,
        advmss: r.advmss,
        priority: r.priority,
        table: r.table,
        scope: r.scope,
    });
    let added: Vec<Route> = added.collect();
    configured.into_iter().chain(added).collect()
}

fn dns(call: &Call, granted: &Granted) -> Dns {
    if call.config.dns == Dns::default() { granted.dns.clone() } else { call.config.dns.clone() }
}
