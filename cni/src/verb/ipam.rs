//! Called as `host-local` or `static`: gives addresses to the plugin that asks
//! (CNI spec 1.1.0, section 4, "Plugin Delegation").
//!
//! The leases are the reference's files. Beside them each owner has a record, so that DEL reads one file
//! and not every lease. The record is made, used and removed under the lock of the network's leases: one
//! whose leases are all gone was left by a writer that died, or the reference released them.

use node::namespace::Namespace;
use node::step::Done;
use node::{Error, Kind, Result, times};

use crate::apply::Hands;
use crate::attachment::{Attachment, attached};
use crate::ipam::leases::Leases;
use crate::ipam::{HostLocal, Ipam, sync};
use crate::owner::Owner;
use crate::plan::step::Step;
use crate::plan::unmake;
use crate::plan::wish::Granted;
use crate::request::{Call, Del, Gc};
use crate::result::{CniResult, Ip};
use crate::role::Role;
use crate::state::{LESSOR, State};
use crate::verb::{add, addresses, check as checks, del as deletion, gc as collection};

/// Gives the addresses.
pub fn add(call: &Call) -> Result<CniResult> {
    match &call.config.ipam {
        Some(Ipam::HostLocal(config)) => lease(call, config).map(result),
        Some(Ipam::Static(config)) => addresses::from_config(config, call).map(result),
        Some(Ipam::Delegate { .. }) | None => {
            let what =
                format!("give addresses as `{}`, without an `ipam` of that type", call.config.role.name());
            Err(Error::new(Kind::Config, what)
                .hint("the plugin that asks hands its whole configuration on, with its `ipam`"))
        }
    }
}

/// Takes a whole ADD back, because its answer could not be given.
pub fn take_back(call: &Call) -> Result<()> {
    if call.config.role == Role::Static {
        return Ok(());
    }
    let state = State::chained(LESSOR)?;
    match state.attachments.find(&call.owner)? {
        Some(record) => Hands::new(&state, Namespace::current()?, None).run_all(unmake(&record)),
        None => Ok(()),
    }
}

/// Whether they are still given.
pub fn check(call: &Call) -> Result<()> {
    let Some(Ipam::HostLocal(config)) = &call.config.ipam else { return Ok(()) };
    let state = State::chained(LESSOR)?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    let leases = hands.open_existing_leases(&config.folder(&call.config.name), config.cooldown)?;
    let held = leases.map(|l| l.held_by(&call.owner)).transpose()?.unwrap_or_default();
    let record = state.attachments.find(&call.owner)?.map(|r| r.addresses).unwrap_or_default();
    let lost = record.iter().filter(|address| !held.contains(address));
    let mut missing: Vec<String> = lost.map(|address| format!("the lease of `{address}` is gone")).collect();
    if held.is_empty() && missing.is_empty() {
        missing.push("it holds no address".to_owned());
    }
    if missing.is_empty() { Ok(()) } else { Err(checks::mismatch(call, &missing)) }
}

/// Takes them back, whoever gave them.
pub fn del(call: &Del) -> Result<()> {
    if call.role == Role::Static {
        return Ok(());
    }
    let state = State::chained(LESSOR)?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    match state.attachments.find(&call.owner)? {
        Some(record) => hands.run_all(unmake(&record)),
        None => forgotten(call, &mut hands),
    }
}

/// Takes back those of attachments that are not valid.
pub fn gc(call: &Gc) -> Result<()> {
    let state = State::chained(LESSOR)?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    collection::leases(call, &mut hands)
}

fn lease(call: &Call, config: &HostLocal) -> Result<Granted> {
    let state = State::chained(LESSOR)?;
    let folder = config.folder(&call.config.name);
    // The kernel has nothing of ours, so only the leases tell that records of this boot were lost.
    add::begin_where(&state, || sync::is_of(&folder, &state.boot))?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    let leases = hands.open_leases(&folder, config.cooldown)?;
    refuse_a_second(&state, &leases, &call.owner)?;
    let wanted: Vec<_> = call.config.wanted.iter().map(|w| w.address).collect();
    let choices = leases.choose(config, &wanted, &call.owner)?;
    hands.leases = Some(leases);
    let granted = addresses::from_leases(config, &choices)?;
    let record = Attachment {
        chained: Some(LESSOR.to_owned()),
        leases: Some(folder.clone()),
        addresses: choices.iter().map(|c| c.address.addr()).collect(),
        ..add::basics(call, &hands)
    };
    let mut steps = vec![Step::Record(Box::new(record))];
    steps.extend(choices.into_iter().map(|choice| addresses::reserved(&folder, choice, call)));
    times::lap("addresses");
    let mut done = Done::default();
    match hands.run(steps, &mut done) {
        Ok(()) => Ok(granted),
        Err(first) => Err(done.roll_back(first, |steps| hands.run_all(steps))),
    }
}

/// One interface gets its addresses once. A record whose leases are gone stands for nothing.
fn refuse_a_second(state: &State, leases: &Leases, owner: &Owner) -> Result<()> {
    let held = leases.held_by(owner)?;
    if let Some(address) = held.first() {
        let what = format!("give `{owner}` an address, which holds `{address}` already");
        return Err(Error::new(Kind::Conflict, what)
            .hint("call DEL first; a second ADD for one interface is not part of the protocol"));
    }
    match state.attachments.find(owner)? {
        Some(record) if record.leases.as_deref() != Some(leases.folder()) => Err(attached(owner)),
        _ if state.attachments.has(owner) => state.attachments.remove(owner),
        _ => Ok(()),
    }
}

/// No record of addresses alone: the second DEL of a pod that is gone, a pod of our own main plugin, one
/// that the reference gave its addresses, or the memory was lost.
fn forgotten(call: &Del, hands: &mut Hands) -> Result<()> {
    let (state, owner) = (hands.state(), &call.owner);
    let unreadable = state.attachments.has(owner);
    let lost = unreadable || !state.is_whole()?;
    if let Some(record) = state.lessees.own.find(owner)? {
        // The rest of the record goes with its own DEL, or with GC.
        hands.run_all(unmake(&record).into_iter().filter(|s| matches!(s, Step::Release { .. })).collect())?;
    }
    if let Some(folder) = deletion::leases_of(call) {
        deletion::release(&folder, owner, lost, hands)?;
    }
    if unreadable { state.attachments.remove(owner) } else { Ok(()) }
}

fn result(granted: Granted) -> CniResult {
    let ips = granted.addresses.into_iter();
    CniResult {
        ips: ips.map(|g| Ip { interface: None, address: g.address, gateway: g.gateway }).collect(),
        routes: granted.routes.unwrap_or_default(),
        dns: granted.dns,
        ..CniResult::default()
    }
}
