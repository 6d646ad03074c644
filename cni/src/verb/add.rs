//! ADD: attach a pod to the network (CNI spec 1.1.0, section 2, "ADD").

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use node::namespace::Namespace;
use node::step::Done;
use node::{Error, Kind, Result};

use crate::apply::Hands;
use crate::attachment::{Attachment, attached};
use crate::config::Attach;
use crate::kernel::link;
use crate::kernel::nft::Nft;
use crate::observe;
use crate::plan::step::{Place, Step};
use crate::plan::wish::{Granted, mtu, wish};
use crate::plan::{Wish, unmake};
use crate::request::Call;
use crate::result::{CniResult, Dns, Interface, Ip, Route};
use crate::state::State;
use crate::verb::addresses;

/// Attaches the pod. On a failure everything that was done is taken back.
pub fn add(call: &Call) -> Result<CniResult> {
    let (home, pod) = namespaces(&call.netns, call.netns_override)?;
    let state = State::open()?;
    begin(&state)?;
    if state.attachments.has(&call.owner) {
        return Err(attached(&call.owner));
    }
    let mut hands = Hands::new(&state, home, Some(pod));
    let mut done = Done::default();
    match attach(call, &mut hands, &mut done) {
        Ok(result) => Ok(result),
        Err(first) => Err(done.roll_back(first, |step| hands.run_all(vec![step]))),
    }
}

/// Takes an ADD back whose answer nobody heard.
pub fn take_back(call: &Call) -> Result<()> {
    let state = State::open()?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    hands.delegates(&call.path, &call.stdin);
    match state.attachments.find(&call.owner)? {
        Some(record) => hands.run_all(unmake(&record)),
        None => Ok(()),
    }
}

/// What an ADD would do, and nothing of it but the network's lock. The pod's namespace is not needed.
pub fn dry_run(call: &Call) -> Result<Vec<Step>> {
    let state = State::open()?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    let mut record = record(call, &mut hands)?;
    let (mut steps, granted) = addresses::planned(call, &mut hands, &mut record)?;
    let wish = decide(call, &record, &granted, &mut hands)?;
    steps.extend(wish.steps());
    Ok(steps)
}

fn attach<'a>(call: &'a Call, hands: &mut Hands<'a>, done: &mut Done<Step>) -> Result<CniResult> {
    let mut record = record(call, hands)?;
    let granted = addresses::obtain(call, hands, &mut record, done)?;
    let wish = decide(call, &record, &granted, hands)?;
    hands.run(wish.steps(), done)?;
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
        .hint("a pod on the host network needs no CNI call; set CNI_NETNS_OVERRIDE=1 if this is meant"));
    }
    Ok((home, pod))
}

/// Makes the memory this boot's own. What an earlier boot's records hold on disk goes back.
fn begin(state: &State) -> Result<()> {
    let give_back = |old: &Attachment| {
        let mut hands = Hands::new(state, Namespace::current()?, None);
        let on_disk = unmake(old).into_iter().filter(|s| matches!(s, Step::Release { .. }));
        hands.run_all(on_disk.collect())
    };
    state.begin(give_back, || Ok(Nft::open().and_then(|mut nft| nft.has_table()).unwrap_or(false)))
}

fn record(call: &Call, hands: &mut Hands) -> Result<Attachment> {
    let default_mtu = match call.config.mtu {
        Some(_) => None,
        None => observe::default_mtu(hands.socket(Place::Host)?)?,
    };
    let bridge = match &call.config.attach {
        Attach::Bridge(bridge) => Some(bridge),
        _ => None,
    };
    Ok(Attachment {
        boot: hands.state().boot.clone(),
        since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        network: call.config.name.clone(),
        owner: call.owner.clone(),
        netns: call.netns.clone(),
        pod: call.args.pod(),
        addresses: Vec::new(),
        networks: Vec::new(),
        mtu: mtu(&call.config, default_mtu),
        leases: None,
        delegate: None,
        masquerade: call.config.masquerade,
        only_mac: None,
        bridge: bridge.filter(|b| b.is_gateway).map(|b| b.name.clone()),
    })
}

/// Looks at the node and decides.
pub fn decide(call: &Call, record: &Attachment, granted: &Granted, hands: &mut Hands) -> Result<Wish> {
    let addresses: Vec<_> = granted.addresses.iter().map(|g| g.address.addr()).collect();
    let seen = observe::node(hands.socket(Place::Host)?, &call.config, &addresses)?;
    if let Some(bridge) = &seen.bridge {
        hands.know(Place::Host, &bridge.name, bridge.index);
    }
    wish(&call.config, &call.owner, record.pod.as_deref(), record.mtu, granted, &seen)
}

/// The bridge as the result names it. Where this call meant to make it, another may have been quicker:
/// its MAC is the kernel's to tell.
fn bridge_of(wish: &Wish, hands: &mut Hands) -> Result<Option<Interface>> {
    let Some(bridge) = &wish.bridge else { return Ok(None) };
    let mut mac = bridge.mac;
    if !bridge.exists {
        let found = link::find(hands.socket(Place::Host)?, &bridge.name)?;
        mac = found.and_then(|l| l.mac).unwrap_or(mac);
    }
    Ok(Some(Interface { name: bridge.name.clone(), mac: Some(mac.to_string()), ..Interface::default() }))
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
    let routed = wish.bridge.is_none();
    let ips = wish.addresses.iter().map(|g| Ip {
        interface: Some(inside),
        address: if routed { crate::plan::alone(g.address.addr()) } else { g.address },
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
