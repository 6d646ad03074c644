//! The steps of a mount, in order, and those of its unmount. Pure.

mod overlay;
mod serve;
mod step;

pub use overlay::{Face, Layers, Lower, Upper};
pub use serve::{Part, Service, Words};
pub use step::{IdMap, Limits, Setting, Source, Step};

use crate::backend::{Common, Seen};
use crate::record::Record;
use crate::target::Target;

/// A mount: the record first, the finished tree onto its folder last.
pub fn mount(target: &Target, mut record: Record, seen: &dyn Seen, common: &Common) -> Vec<Step> {
    seen.describe(&mut record);
    let mut steps = vec![Step::Remember(target.clone(), Box::new(record))];
    steps.extend(seen.steps());
    let (limits, recursive) = seen.limits(common.limits());
    steps.push(Step::Limit { limits, recursive });
    steps.push(Step::Attach(target.clone()));
    steps
}

/// What a mount that was cut off may have left beside what it was to make. Nothing is mounted: what is not
/// attached ends with its process.
pub fn leftovers(record: &Record) -> Vec<Step> {
    let target = Target::parse(&record.target, &record.root).ok().filter(|_| record.daemon);
    target.map(|target| Step::Stop(target.id())).into_iter().collect()
}

/// An unmount, planned from the record where there is one.
pub fn unmount(target: &Target, record: Option<&Record>) -> Vec<Step> {
    let mut steps = vec![Step::Detach(target.clone())];
    steps.extend(record.map(leftovers).unwrap_or_default());
    steps.push(Step::Forget(target.clone()));
    steps
}
