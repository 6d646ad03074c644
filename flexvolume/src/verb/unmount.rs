//! `unmount`: nothing at the folder and nothing left of it. What is gone already is done.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use node::{Error, Kind, Result};

use super::lock;
use crate::apply::{self, Hands};
use crate::kernel::crash;
use crate::options::Secrets;
use crate::plan;
use crate::policy::Policy;
use crate::record::Record;
use crate::render::Answer;
use crate::target::Target;

/// The whole call.
const LIMIT: Duration = Duration::from_secs(100);

/// Takes away what is at `folder`.
pub fn unmount(folder: &Path, start: Instant) -> Result<Answer> {
    let target = target(folder)?;
    let deadline = start + LIMIT;
    crash::alarm_at(deadline, LIMIT);
    let lock = lock(&target.id())?;
    let record = Record::find(&target)?;
    let secrets = Secrets::default();
    let mut hands = Hands::new(&secrets, deadline);
    if let Some(key) = record.as_ref().map(|r| r.key.as_str()).filter(|key| !key.is_empty()) {
        // Another pod's mount of the same source may be about to be copied from this one.
        hands.lock_source(key)?;
    }
    apply::all(plan::unmount(&target, record.as_ref()), &mut hands)?;
    empty(&target)?;
    lock.remove()?;
    Ok(Answer::success(hands.notes.join("; ")))
}

/// The folder, beneath the root that the policy names, or the root that it was mounted beneath. A policy
/// that cannot be read must not keep a pod from ending: then the folder's own shape names the root.
fn target(folder: &Path) -> Result<Target> {
    let policy = Policy::load();
    let refused = match policy.as_ref().map(|p| Target::parse(folder, &p.kubelet_root)) {
        Ok(Ok(target)) => return Ok(target),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
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
    let Ok(mut entries) = std::fs::read_dir(target.path()) else { return Ok(()) };
    let Some(Ok(entry)) = entries.next() else { return Ok(()) };
    let first = entry.file_name().to_string_lossy().into_owned();
    let others = entries.count();
    let and = if others == 0 { String::new() } else { format!(" and {others} more") };
    Err(Error::caused(
        Kind::Conflict,
        format!("leave the folder `{target}` empty"),
        format!("`{first}`{and} lies in the folder itself, written while nothing was mounted on it"),
    )
    .hint("move it away: it is never deleted here, and the pod cannot end before"))
}
