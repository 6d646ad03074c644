//! `unmount`: nothing at the folder and nothing left of it. What is gone already is done.

use std::path::Path;
use std::time::{Duration, Instant};

use node::{Error, Kind, Result, times};

use super::lock;
use crate::apply::{self, Hands};
use crate::kernel::crash;
use crate::log::Entry;
use crate::observe;
use crate::options::Secrets;
use crate::plan;
use crate::policy::Policy;
use crate::record::{self, Record};
use crate::render::Answer;
use crate::target::Target;

/// The whole call.
const LIMIT: Duration = Duration::from_secs(100);

/// Takes away what is at `folder`.
pub fn unmount(folder: &Path, start: Instant, entry: &mut Entry) -> Result<Answer> {
    let target = target(folder)?;
    let deadline = start + LIMIT;
    crash::alarm_at(deadline, LIMIT);
    let secrets = Secrets::default();
    let mut hands = Hands::new(&secrets, deadline);
    hands.locks.push(lock(&target.id())?);
    let gone = take_away(&target, &mut hands, entry);
    let gone = hands.unlock(gone);
    // Of calls that were killed; what is left of them is nothing that this volume's end depends on.
    let _ = record::sweep_locks();
    gone.map(|()| Answer::success(hands.notes.join("; ")))
}

/// Takes away the mount and what belongs to it.
fn take_away(target: &Target, hands: &mut Hands<'_>, entry: &mut Entry) -> Result<()> {
    let record = Record::find(target)?;
    if let Some(record) = &record {
        entry.remembered(record);
    }
    times::lap("observe");
    if record.is_none() {
        is_the_kubelets(target)?;
    }
    if let Some(key) = record.as_ref().and_then(Record::source_lock) {
        // Another pod's mount of the same source may be about to be copied from this one.
        hands.lock_source(key)?;
    }
    apply::all(plan::unmount(target, record.as_ref()), hands)?;
    if record.is_none() {
        // A mount that was killed before it wrote one.
        record::sweep_locks()?;
    }
    empty(target)
}

/// The folder, by its own shape: what was mounted there once is taken away, whatever the policy says now.
fn target(folder: &Path) -> Result<Target> {
    let root = folder.ancestors().nth(5).unwrap_or(Path::new("/"));
    let shaped = Target::parse(folder, root);
    if shaped.is_err()
        && let Ok(policy) = Policy::load()
    {
        return Target::parse(folder, &policy.kubelet_root);
    }
    shaped
}

/// Without a record, the folder has to lie beneath the root that the policy names. A policy that cannot be read must
/// not keep a pod from ending.
fn is_the_kubelets(target: &Target) -> Result<()> {
    match Policy::load() {
        Ok(policy) => Target::parse(&target.path(), &policy.kubelet_root).map(drop),
        Err(_) => Ok(()),
    }
}

/// The kubelet removes the folder next, and cannot where something lies in it. That is data: it stays.
fn empty(target: &Target) -> Result<()> {
    let names = observe::names(target)?;
    let Some(first) = names.first() else { return Ok(()) };
    let others = names.len() - 1;
    let and = if others == 0 { String::new() } else { format!(" and {others} more") };
    Err(Error::caused(
        Kind::Conflict,
        format!("leave the folder `{target}` empty"),
        format!("`{first}`{and} lies in the folder itself, written while nothing was mounted on it"),
    )
    .hint("move it away: it is never deleted here, and the pod cannot end before"))
}
