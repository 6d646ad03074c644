//! Knowing whether somebody else changed a folder of leases, and what to keep of what they left.
//!
//! After each change of ours the folder's own modification time is set to a whole second of the past,
//! the seal, and `.nodeplug/state` remembers it with the boot. Any program that adds or removes a
//! lease moves the time to now, which is never that second. So one stat and one small read answer
//! "was it us, in this boot?", and a kill before the seal is set answers no. A time that the kernel
//! gave would not do: its clock ticks every few milliseconds, and two changes can fall into one tick.
//!
//! Where the answer is no, every lease is read, under the lock:
//!
//! | the lease names            | it is                                                             |
//! |----------------------------|-------------------------------------------------------------------|
//! | nobody, or garbage         | removed: a writer died in the middle (the reference creates, then writes) |
//! | a record of this boot      | live                                                              |
//! | a record of an older boot  | removed with the record: that pod ended with its boot             |
//! | no record of ours          | foreign: the reference's. Removed where this is the first look in this boot and no pod can be alive, else kept and counted |
//!
//! Killed in the middle, the folder is not sealed and the next call reads it all again: records go
//! only after every lease that they name. A record of addresses alone (see [`Lessees::others`]) whose
//! leases are all gone goes, too: it is made, used and removed under this lock, so either its writer
//! died or the reference released the leases.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use node::{Context, Kind, Result, store};

use super::cooling::Cooling;
use super::lease::{Lease, lease_path, list};
use crate::attachment::{Attachment, Attachments};
use crate::owner::Owner;
use crate::state::Lessees;

/// What the store needs to know about the node.
pub struct Facts<'a> {
    /// This boot's id.
    pub boot: &'a str,
    /// The time.
    pub now: SystemTime,
    /// For how long a freed address rests; zero is not at all.
    pub cooldown: Duration,
    /// The records that name leases.
    pub lessees: &'a Lessees,
    /// Whether a pod of any plugin may be alive: is there a veth link on the host? Asked only when
    /// leases of nobody's record outlived a boot.
    pub pods_on_node: &'a dyn Fn() -> Result<bool>,
}

/// The folder of what is ours in a network's folder.
pub(crate) const OURS: &str = ".nodeplug";

/// What the last scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// The second that the folder's time is set to, since the epoch.
    pub(crate) seal: u64,
    /// How many leases have no record of ours.
    pub(crate) foreign: usize,
}

/// What a lease is to us.
enum Standing<'a> {
    Live(Owner),
    Stale(&'a Attachments, Owner),
    Foreign,
    Nobody,
}

/// The state of a folder that only we changed, in this boot; `None` calls for a [`scan`].
pub(crate) fn fresh(folder: &Path, boot: &str) -> Result<Option<State>> {
    let Some((of, state)) = read(folder)? else { return Ok(None) };
    let doing = || format!("look at `{}`", folder.display());
    let time = fs::metadata(folder).and_then(|m| m.modified()).doing(Kind::Io, doing)?;
    let sealed = time == UNIX_EPOCH + Duration::from_secs(state.seal);
    Ok((of == boot && sealed).then_some(state))
}

/// Reads every lease and drops what is over. The caller holds the lock and seals afterwards.
pub(crate) fn scan(folder: &Path, cooling: &Cooling, facts: &Facts<'_>) -> Result<State> {
    store::make_folder(&cooling.folder)?;
    let first_look = read(folder)?.is_none_or(|(boot, _)| boot != facts.boot);
    cooling.sweep(first_look)?;
    store::remove(&folder.join(OURS).join("lease.new"))?;
    let mut foreign = Vec::new();
    let mut live = HashSet::new();
    let mut ended: Vec<(&Attachments, Owner)> = Vec::new();
    for lease in list(folder)? {
        match standing(&lease, folder, facts)? {
            Standing::Live(owner) => drop(live.insert(owner)),
            Standing::Foreign => foreign.push(lease.address),
            Standing::Nobody => store::remove(&lease_path(folder, lease.address))?,
            Standing::Stale(records, owner) => {
                store::remove(&lease_path(folder, lease.address))?;
                ended.push((records, owner));
            }
        }
    }
    if first_look {
        // Also the records whose leases went in a scan that was killed.
        ended.extend(records(&facts.lessees.own, folder, |a| a.boot != facts.boot)?);
    }
    ended.extend(records(&facts.lessees.others, folder, |a| !live.contains(&a.owner))?);
    for (records, owner) in ended {
        records.remove(&owner)?;
    }
    if first_look && !foreign.is_empty() && !(facts.pods_on_node)()? {
        for address in foreign.drain(..) {
            store::remove(&lease_path(folder, address))?;
        }
    }
    let state = State { seal: second_before(facts.now), foreign: foreign.len() };
    write(folder, facts.boot, state);
    Ok(state)
}

/// Sets the folder's time to the seal.
pub(crate) fn seal(folder: &Path, state: State) -> Result<()> {
    let time = TimeSpec::from_duration(Duration::from_secs(state.seal));
    utimensat(AT_FDCWD, folder, &time, &time, UtimensatFlags::FollowSymlink)
        .map_err(io::Error::from)
        .doing(Kind::Io, || format!("set the time of `{}`", folder.display()))
}

/// Remembers `state` of `boot`. One write; the line end tells a torn file from a whole one. One that
/// cannot be written, on a full disk, costs a scan and must not keep a pod from ending.
fn write(folder: &Path, boot: &str, state: State) {
    let line = format!("1 {boot} {} {}\n", state.seal, state.foreign);
    let _ = fs::write(folder.join(OURS).join("state"), line);
}

fn read(folder: &Path) -> Result<Option<(String, State)>> {
    let content = store::read(&folder.join(OURS).join("state"))?.unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(&content)))
}

fn parse(text: &str) -> Option<(String, State)> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    let (version, boot) = (words.next()?, words.next()?);
    let state = State { seal: words.next()?.parse().ok()?, foreign: words.next()?.parse().ok()? };
    (version == "1" && words.next().is_none()).then(|| (boot.to_owned(), state))
}

fn standing<'a>(lease: &Lease, folder: &Path, facts: &Facts<'a>) -> Result<Standing<'a>> {
    let Some(owner) = &lease.owner else { return Ok(Standing::Nobody) };
    for records in facts.lessees.each() {
        let Some(record) = records.find(owner)? else { continue };
        if record.leases.as_deref() == Some(folder) && record.addresses.contains(&lease.address) {
            let owner = owner.clone();
            return Ok(if record.boot == facts.boot {
                Standing::Live(owner)
            } else {
                Standing::Stale(records, owner)
            });
        }
    }
    // No record will lead DEL to this lease: only a scan finds it.
    Ok(Standing::Foreign)
}

/// Those records of `all` that name leases in `folder` and are `over`.
fn records<'a>(
    all: &'a Attachments,
    folder: &Path,
    over: impl Fn(&Attachment) -> bool,
) -> Result<Vec<(&'a Attachments, Owner)>> {
    let found = all.all()?.into_iter().filter(|a| a.leases.as_deref() == Some(folder) && over(a));
    Ok(found.map(|a| (all, a.owner)).collect())
}

/// Whether this folder was worked on in the boot `boot`.
pub(crate) fn is_of(folder: &Path, boot: &str) -> Result<bool> {
    Ok(read(folder)?.is_some_and(|(of, _)| of == boot))
}

/// A whole second that is over, and even: some file systems count in two seconds.
fn second_before(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs().saturating_sub(4) & !1)
}
