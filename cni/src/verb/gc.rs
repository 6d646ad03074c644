//! GC: remove what belongs to no attachment (CNI spec 1.1.0, section 2, "GC"). Goes on past failures
//! and tells them all.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use node::namespace::Namespace;
use node::{Error, Result};

use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::NetConf;
use crate::ipam::{COOLDOWN, Ipam};
use crate::kernel::link;
use crate::kernel::nft::{Found, Nft, Trace, comment};
use crate::owner::Owner;
use crate::plan::step::{Place, Step};
use crate::plan::unmake;
use crate::request::Gc;
use crate::state::State;
use crate::verb::del::pod_of;

/// A link group that nobody else is likely to use: links in it are deleted together.
const DOOMED: u32 = 0x6e70_6763;

/// Removes every attachment of the network that is not in the list of valid ones.
pub fn gc(call: &Gc) -> Result<()> {
    let state = State::open()?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    hands.delegates(&call.path, &call.stdin);
    let mut failures = Vec::new();
    // Looked at before the records: what an ADD makes from now on has its record by then.
    let strays = strays(call, &mut hands).unwrap_or_else(|error| {
        failures.push(error);
        Strays::default()
    });
    let records = state.attachments.all()?;
    let ours = |r: &&Attachment| r.network == call.config.name && !call.valid.contains(&r.owner);
    let doomed: Vec<&Attachment> = records.iter().filter(ours).collect();
    failures.extend(links(&doomed, &mut hands).err());
    for record in doomed {
        // A delegate clears up by its own GC, which knows of no single owner.
        let steps = unmake(record).into_iter().filter(|s| !matches!(s, Step::Undelegate { .. }));
        failures.extend(hands.visit(pod_of(record)).and_then(|()| hands.run_all(steps.collect())).err());
    }
    failures.extend(strays.remove(call, &records, &mut hands).err());
    failures.extend(leases(call, &mut hands).err());
    if call.config.masquerade || call.config.features.firewall.is_some() {
        failures.extend(hands.nft().and_then(Nft::tidy).err());
    }
    if let Some(Ipam::Delegate { plugin }) = &call.config.ipam {
        failures.extend(hands.delegates(&call.path, &call.stdin).gc(plugin).err());
    }
    verdict(&call.config, &failures)
}

/// Links and elements of ours, whoever they belong to.
#[derive(Debug, Default)]
struct Strays {
    links: Vec<String>,
    elements: Vec<Found>,
}

fn strays(call: &Gc, hands: &mut Hands) -> Result<Strays> {
    let links = link::veths(hands.socket(Place::Host)?)?.into_iter().map(|l| l.name);
    Ok(Strays {
        links: links.filter(|name| Owner::is_host_ifname(name)).collect(),
        elements: if call.config.masquerade { hands.nft()?.found()? } else { Vec::new() },
    })
}

impl Strays {
    /// Removes those that neither a record nor the list of valid attachments answers for. Without a whole
    /// memory they may be another network's: then only elements of this network's ranges go.
    fn remove(self, call: &Gc, records: &[Attachment], hands: &mut Hands) -> Result<()> {
        let whole = hands.state().is_whole()?;
        let known: Vec<&Owner> = records.iter().map(|r| &r.owner).chain(&call.valid).collect();
        let names: BTreeSet<String> = known.iter().map(|o| o.host_ifname()).collect();
        let comments: BTreeSet<String> = known.iter().map(|o| comment(o)).collect();
        let links = self.links.into_iter().filter(|name| whole && !names.contains(name));
        let mut steps: Vec<Step> = links.map(|link| Step::DeleteLinks { links: vec![link] }).collect();
        let in_range = |address: &IpAddr| match &call.config.ipam {
            Some(Ipam::HostLocal(config)) => config.sets.iter().any(|set| set.range_of(*address).is_some()),
            _ => false,
        };
        let may_go = |found: &Found| whole || found.address().is_some_and(|a| in_range(&a));
        let elements = self.elements.into_iter().filter(|f| !comments.contains(&f.comment) && may_go(f));
        let remove = |found: Found| {
            Owner::from_key(&found.comment)
                .map(|owner| Step::Unfilter { traces: vec![Trace::Found(vec![found])], owner })
        };
        steps.extend(elements.filter_map(remove));
        hands.run_all(steps)
    }
}

/// Deletes the links of many attachments by one request: the kernel then waits for one RCU barrier and
/// not for one each. A single one goes the way of DEL.
fn links(doomed: &[&Attachment], hands: &mut Hands) -> Result<()> {
    if doomed.len() < 2 {
        return Ok(());
    }
    let socket = hands.socket(Place::Host)?;
    let steps = doomed.iter().flat_map(|record| unmake(record));
    let names = steps.flat_map(|s| if let Step::DeleteLinks { links } = s { links } else { Vec::new() });
    let mark = names.map(|name| link::set_group(&name, DOOMED)).collect();
    let marked = socket.batch(mark)?.iter().filter(|refusal| refusal.is_none()).count();
    if marked > 0 {
        socket.one(link::delete_group(DOOMED), || format!("delete {marked} links"))?;
    }
    Ok(())
}

/// Leases of owners that are not valid: another plugin's, or of a lost record. What records of addresses
/// alone hold goes with them.
pub fn leases(call: &Gc, hands: &mut Hands) -> Result<()> {
    let Some(Ipam::HostLocal(config)) = &call.config.ipam else { return Ok(()) };
    let others = &hands.state().lessees.others;
    let stale = |r: &Attachment| r.network == call.config.name && !call.valid.contains(&r.owner);
    for record in others.all()?.iter().filter(|r| stale(r)) {
        hands.run_all(unmake(record).into_iter().filter(|s| matches!(s, Step::Release { .. })).collect())?;
        others.remove(&record.owner)?;
    }
    let folder = config.folder(&call.config.name);
    sweep(&folder, &call.valid, hands)
}

fn sweep(folder: &Path, valid: &BTreeSet<Owner>, hands: &mut Hands) -> Result<()> {
    let Some(mut leases) = hands.open_existing_leases(folder, COOLDOWN)? else { return Ok(()) };
    for lease in leases.all()? {
        let Some(owner) = lease.owner else { continue };
        // An old host-local wrote no interface name: any interface of the container keeps the lease.
        let lives = valid.iter().any(|v| {
            v.container_id == owner.container_id && (owner.ifname.is_empty() || v.ifname == owner.ifname)
        });
        if !lives {
            leases.release(lease.address, &owner)?;
        }
    }
    Ok(())
}

fn verdict(config: &NetConf, failures: &[Box<Error>]) -> Result<()> {
    let Some(first) = failures.first() else { return Ok(()) };
    let all: Vec<String> = failures.iter().map(|f| f.chain()).collect();
    Err(Error::caused(first.kind(), format!("collect the garbage of `{}`", config.name), all.join("; ")))
}
