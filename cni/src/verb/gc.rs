//! GC: remove what belongs to no attachment (CNI spec 1.1.0, section 2, "GC"). Goes on past failures
//! and tells them all.

use std::collections::BTreeSet;
use std::path::Path;

use node::namespace::Namespace;
use node::{Error, Result};

use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::NetConf;
use crate::ipam::{COOLDOWN, Ipam};
use crate::kernel::link;
use crate::owner::Owner;
use crate::plan::step::{Place, Step};
use crate::plan::unmake;
use crate::request::Gc;
use crate::state::State;
use crate::verb::del::pod_of;
use crate::verb::strays::Strays;

/// A link group that nobody else is likely to use: links in it are deleted together.
const DOOMED: u32 = 0x6e70_6763;

/// Removes every attachment of the network that is not in the list of valid ones.
pub fn gc(call: &Gc) -> Result<()> {
    let state = State::open()?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    hands.delegates(&call.path, &call.stdin);
    let mut failures = Vec::new();
    // Looked at before the records: what an ADD makes from now on has its record by then.
    let strays = Strays::look(&mut hands).unwrap_or_else(|error| {
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
    failures.extend(strays.remove(call, &mut hands).err());
    failures.extend(leases(call, &mut hands).err());
    failures.extend(tidy(&mut hands).err());
    if let Some(Ipam::Delegate { plugin }) = &call.config.ipam {
        failures.extend(hands.delegates(&call.path, &call.stdin).gc(plugin).err());
    }
    verdict(&call.config, &failures)
}

/// Removes what pods shared and none uses any more. A node whose kernel has no nf_tables has nothing.
pub fn tidy(hands: &mut Hands) -> Result<()> {
    let Ok(nft) = hands.nft() else { return Ok(()) };
    if nft.has_table()? { nft.tidy() } else { Ok(()) }
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
