//! `expandfs`: a mounted volume gets larger. Growing is only for what has a file system of its own on a
//! medium; for all others there is nothing to do, and that is no failure.

use std::path::Path;
use std::time::Instant;

use node::{Error, Kind, Result};

use super::lock;
use crate::apply::{self, Hands};
use crate::backend;
use crate::kernel::crash;
use crate::kernel::mount::Tree;
use crate::log::Entry;
use crate::observe::{self, On};
use crate::options::Secrets;
use crate::policy::Policy;
use crate::record::Record;
use crate::render::Answer;
use crate::target::Target;

/// Grows the volume at `folder` to `new` bytes. One that is larger stays as it is.
pub fn expand(folder: &Path, new: u64, start: Instant, entry: &mut Entry) -> Result<Answer> {
    let policy = Policy::load()?;
    entry.log = Some(policy.log());
    let target = Target::parse(folder, &policy.kubelet_root)?;
    let limit = policy.timeout.duration();
    crash::alarm_at(start + limit, limit);
    let lock = lock(&target.id())?;
    let secrets = Secrets::default();
    let mut hands = Hands::new(&secrets, start + limit);
    hands.locks.push(lock);
    let (root, on) = observe::target(&target)?;
    let record = Record::find(&target)?;
    let Some(record) = record.filter(|_| on == On::Mount) else {
        return Err(Error::caused(
            Kind::Mismatch,
            format!("grow the volume at `{target}`"),
            "it is not mounted",
        )
        .hint("it is grown when it is mounted the next time"));
    };
    entry.remembered(&record);
    if record.medium.is_none() {
        let name = &record.backend;
        return Ok(Answer::success(format!("a volume of the backend `{name}` has nothing to grow")));
    }
    if record.read_only {
        return Ok(Answer::success("the volume is read-only, so it stays as it is"));
    }
    if let Some(key) = record.source_lock() {
        hands.lock_source(key)?;
    }
    hands.hold(Tree::placed(root));
    let grown = grow(&record, new, &policy, &mut hands);
    hands.unlock(grown).map(Answer::success)
}

fn grow(record: &Record, new: u64, policy: &Policy, hands: &mut Hands<'_>) -> Result<String> {
    let found = backend::expand::observe(record, new, policy, hands)?;
    let (steps, note) = backend::expand::plan(&found, new);
    apply::run(steps, hands)?;
    Ok(note.unwrap_or_default())
}
