//! `unmount`: nothing at the folder and nothing left of it. What is gone already is done.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use node::{Error, Kind, Result};

use super::lock;
use crate::apply::{self, Hands};
use crate::kernel::crash;
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
pub fn unmount(folder: &Path, start: Instant) -> Result<Answer> {
    let policy = Policy::load();
    let target = target(folder, policy.as_ref().ok())?;
    let deadline = start + LIMIT;
    crash::alarm_at(deadline, LIMIT);
    let secrets = Secrets::default();
    let mut hands = Hands::new(&secrets, deadline);
    if let Ok(policy) = policy {
        hands.busy = (policy.busy_wait.duration(), policy.busy);
    }
    hands.locks.push(lock(&target.id())?);
    let gone = take_away(&target, &mut hands);
    let gone = hands.unlock(gone);
    // Of calls that were killed; what is left of them is nothing that this volume's end depends on.
    let _ = record::sweep_locks();
    gone.map(|()| Answer::success(hands.notes.join("; ")))
}

/// Takes away the mount and what belongs to it.
fn take_away(target: &Target, hands: &mut Hands<'_>) -> Result<()> {
    let record = Record::find(target)?;
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

/// The folder, beneath the root that the policy names, or the root that it was mounted beneath. A policy
/// that cannot be read must not keep a pod from ending: then the folder's own shape names the root.
fn target(folder: &Path, policy: Option<&Policy>) -> Result<Target> {
    let refused = match policy.map(|p| Target::parse(folder, &p.kubelet_root)) {
        Some(Ok(target)) => return Ok(target),
        Some(Err(error)) => Some(error),
        None => None,
    };
    let root: PathBuf = folder.ancestors().nth(5).unwrap_or(Path::new("/")).to_owned();
    let (shaped, error) = match (Target::parse(folder, &root), refused) {
        (Ok(shaped), None) => return Ok(shaped),
        (Err(_), Some(error)) | (Err(error), None) => return Err(error),
        (Ok(shaped), Some(error)) => (shaped, error),
    };
    if Record::find(&shaped)?.is_none() { Err(error) } else { Ok(shaped) }
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
