//! The steps of a mount, in order, and those of its unmount. Pure.

mod medium;
mod overlay;
mod serve;
mod share;
mod step;

pub use medium::{Allocate, Medium};
pub use overlay::{Face, Layers, Lower, Upper};
pub use serve::{Part, Service, Words};
pub use share::{NewFolder, Protocol, Share, SubFolder, credential};
pub use step::{IdMap, Limits, Patience, Setting, Source, Step};

use crate::backend::{Common, Seen};
use crate::name::Backend;
use crate::record::Record;
use crate::target::Target;

/// A mount: the record first, the finished tree onto its folder last.
pub fn mount(target: &Target, mut record: Record, seen: &dyn Seen, common: &Common) -> Vec<Step> {
    seen.describe(&mut record);
    let mut steps = vec![Step::Remember(target.clone(), Box::new(record.clone()))];
    steps.extend(seen.steps());
    let (limits, recursive) = seen.limits(common.limits());
    steps.push(Step::Limit { limits, recursive });
    if seen.is_shared() {
        steps.push(Step::RememberMount(target.clone(), Box::new(record)));
    }
    steps.push(Step::Attach(target.clone()));
    steps
}

/// A mount in the place of one whose server or daemon is gone. The record stays all along, for the folder is
/// never without a mount that it knows of; only what it says of the source may be new.
pub fn replace(target: &Target, mut record: Record, seen: &dyn Seen, common: &Common) -> Vec<Step> {
    seen.describe(&mut record);
    let mut steps = seen.steps();
    let (limits, recursive) = seen.limits(common.limits());
    steps.push(Step::Limit { limits, recursive });
    steps.push(Step::Replace(target.clone()));
    steps.push(Step::RememberAnew(target.clone(), Box::new(record)));
    steps
}

/// What a mount that was cut off may have left beside what it was to make. Nothing is mounted: what is not
/// attached ends with its process.
pub fn leftovers(record: &Record) -> Vec<Step> {
    let target = Target::parse(&record.target, &record.root).ok().filter(|_| record.daemon);
    let daemon = target.map(|target| Step::Stop(target.id()));
    let files = record.scratch.iter().map(|path| Step::Medium(Medium::Remove(path.clone())));
    let format = record.format.iter().map(|unfinished| Step::Medium(Medium::Finish(unfinished.clone())));
    daemon.into_iter().chain(files).chain(format).collect()
}

/// Before a mount is tried again: everything of an earlier one goes but what the pod may have written.
pub fn again(target: &Target, record: Option<&Record>) -> Vec<Step> {
    let mut steps = vec![detach(target, record.map(|r| r.backend.as_str()).and_then(Backend::named))];
    steps.extend(record.map(leftovers).unwrap_or_default());
    steps.push(Step::Forget(target.clone()));
    steps
}

/// An unmount, planned from the record where there is one.
pub fn unmount(target: &Target, record: Option<&Record>) -> Vec<Step> {
    let mut steps = vec![detach(target, record.map(|r| r.backend.as_str()).and_then(Backend::named))];
    steps.extend(record.map(leftovers).unwrap_or_default());
    let delete = record.map(|r| r.delete.as_slice()).unwrap_or_default();
    steps.extend(delete.iter().map(|path| Step::Medium(Medium::Delete(path.clone()))));
    steps.push(Step::Forget(target.clone()));
    steps
}

/// How what is mounted is taken away: memory at once, what has a disk behind it with time for what is still
/// to be written, and everything else as if its server or daemon did not answer.
fn detach(target: &Target, backend: Option<Backend>) -> Step {
    let target = target.clone();
    match backend {
        Some(Backend::Tmpfs) => Step::Detach(target),
        Some(Backend::Image | Backend::Overlay | Backend::Block) => Step::DetachApart(target, Patience::Disk),
        // The folder of a bind mount may lie on a share of the node's own.
        Some(Backend::Bind | Backend::Nfs | Backend::Cifs | Backend::Fuse) | None => {
            Step::DetachApart(target, Patience::Server)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_may_hang_is_unmounted_in_a_child() {
        let root = Path::new("/var/lib/kubelet");
        let path = root.join("pods/u/volumes/v~d/data");
        let target = Target::parse(&path, root).unwrap();
        let (plain, disk) = (format!("unmount `{target}`"), format!("unmount `{target}` in a child"));
        let server = format!("{disk}, by force and then lazily where nobody answers");
        let forget = format!("forget the volume of `{target}`");
        for (backend, expect) in [
            (Some("tmpfs"), &plain),
            (Some("image"), &disk),
            (Some("overlay"), &disk),
            (Some("block"), &disk),
            (Some("bind"), &server),
            (Some("nfs"), &server),
            (Some("cifs"), &server),
            (Some("fuse"), &server),
            (Some("of another version"), &server),
            (None, &server),
        ] {
            let record = backend.map(|name| Record { backend: name.to_owned(), ..Record::default() });
            for steps in [unmount(&target, record.as_ref()), again(&target, record.as_ref())] {
                let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
                assert_eq!(lines, [expect.clone(), forget.clone()], "{backend:?}");
            }
        }
    }
}
