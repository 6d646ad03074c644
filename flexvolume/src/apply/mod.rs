//! Does the steps of a plan, and takes them back when one fails.

mod files;
mod hands;
mod medium;
mod overlay;
mod serve;
mod share;
mod target;

pub use hands::{Device, Handle, Hands};
pub use medium::{wait_until_free, wait_until_read_only};
pub use target::{Health, health};

use node::step::Done;
use std::os::fd::AsFd;

use node::{Result, times};

use crate::kernel::{crash, mount, own, path};
use crate::plan::{Source, Step};
use crate::record::Record;

/// Does `steps` in order. When one fails, those before it are taken back, last first.
pub fn run(steps: Vec<Step>, hands: &mut Hands<'_>) -> Result<()> {
    let attach = steps.iter().find_map(|step| match step {
        Step::Attach(target) => Some(target.clone()),
        _ => None,
    });
    let mut done = Done::default();
    for step in steps {
        let taken = take(&step, hands);
        times::lap(step.name());
        if let Err(error) = taken {
            let error = error.in_step(step.to_string());
            // On an old kernel it is on its folder already.
            if let Some(target) = attach {
                done.extend(hands.is_placed().then_some(Step::Attach(target)));
                hands.drop_tree();
            }
            return Err(done.roll_back(error, |undo| all(undo, hands)));
        }
        done.push(step);
    }
    Ok(())
}

/// Does every one of `steps`, whatever the others meet; the first error is the answer.
pub fn all(steps: Vec<Step>, hands: &mut Hands<'_>) -> Result<()> {
    let mut first = Ok(());
    for step in steps {
        // What still has to be cleaned up is remembered: the next try goes by the record. And what could not be
        // unmounted is still in use: its program goes on serving it.
        if first.is_err() && matches!(step, Step::Forget(_) | Step::Stop(_)) {
            continue;
        }
        let outcome = take(&step, hands).map_err(|e| e.in_step(step.to_string()));
        times::lap(step.name());
        first = first.and(outcome);
    }
    first
}

fn take(step: &Step, hands: &mut Hands<'_>) -> Result<()> {
    match step {
        Step::Remember(target, record) | Step::RememberAnew(target, record) => {
            hands.remembered = Some((target.id(), record.as_ref().clone()));
            record.write(&target.id())
        }
        Step::RememberMount(target, record) => {
            let mount = Some(mount::unique_id(hands.tree()?.as_fd())?);
            Record { mount, ..record.as_ref().clone() }.write(&target.id())
        }
        // The next try goes on from there.
        Step::Forget(_) if hands.unfinished => Ok(()),
        Step::Forget(target) => Record::remove(&target.id()),
        Step::Make { kind, source: Source::Image, settings, read_only } => {
            medium::make_of_image(hands, kind, settings, *read_only)
        }
        Step::Make { kind, source, settings, read_only } => {
            let source = medium::source(source, hands)?;
            hands.make(kind, source.as_deref(), settings, *read_only)
        }
        Step::Medium(step) => medium::take(step, hands),
        Step::Folder { path, mode, owner } => {
            let made = path::make_folders(hands.opened(Handle::Root)?, path, *mode, Some(*owner))?;
            hands.open.insert(Handle::Source, made);
            Ok(())
        }
        Step::Lower(lower) => overlay::lower(hands, lower),
        Step::Upper(upper) => overlay::upper(hands, upper),
        Step::Layer(layers) => overlay::layer(hands, layers),
        Step::Stop(volume) => serve::stop(hands, volume),
        Step::Serve(service) => serve::serve(hands, service),
        Step::Clone { recursive, .. } => hands.copy(Handle::Source, *recursive),
        Step::Populate { keys, mode, owner } => files::populate(hands, keys, *mode, *owner),
        Step::Give { gid, scope } => own::give(hands.tree()?.as_fd(), *gid, *scope, false, hands.patience()),
        Step::Share(share) => share::mount(hands, share),
        Step::GiveApart { gid, scope } => share::give(hands, *gid, *scope),
        Step::Limit { limits, recursive } => hands.limit(limits, *recursive),
        // The last step of a mount: what comes now finds it done.
        Step::Attach(_) => crash::finally(|| hands.attach()),
        Step::Replace(target) => target::replace(target, hands),
        Step::Detach(target) => target::detach(target, None, hands),
        Step::DetachApart(target, patience) => target::detach(target, Some(*patience), hands),
    }
}
