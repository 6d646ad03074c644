//! `mount`: a volume at its folder, whole, or nothing.

use std::path::Path;
use std::time::Instant;

use node::{Error, Kind, Result, boot};

use super::lock;
use crate::apply::{self, Hands};
use crate::backend::{self, Asked, Common};
use crate::kernel::crash;
use crate::name::{Backend, Driver};
use crate::observe::{self, On};
use crate::options::Options;
use crate::plan;
use crate::policy::Policy;
use crate::record::Record;
use crate::render::Answer;
use crate::target::Target;

/// Makes the volume of `options` at `folder`.
pub fn mount(driver: Driver, folder: &Path, options: &Options, start: Instant) -> Result<Answer> {
    let policy = Policy::load()?;
    let target = Target::parse(folder, &policy.kubelet_root)?;
    let pod = options.pod();
    same_pod(&target, &pod.uid)?;
    policy.namespaces_allow(&pod.namespace)?;
    let mut reader = options.reader();
    let common = Common::read(options, &pod, &policy, &mut reader, start)?;
    let backend = backend::choose(driver, &mut reader)?;
    let asked = Asked { options, pod, target: &target, policy: &policy, common };
    let wish = backend::read(backend, &asked, &mut reader)?;
    reader.finish()?;
    crash::alarm_at(asked.common.deadline, asked.common.deadline.saturating_duration_since(start));

    let _lock = lock(&target.id())?;
    let secrets = options.secrets()?;
    let mut hands = Hands::new(&secrets, asked.common.deadline);
    let (folder, on) = observe::target(&target)?;
    let before = Record::find(&target)?;
    if on == On::Mount {
        return already(&target, backend, before.as_ref());
    }
    if on != On::Nothing || before.is_some() {
        // Of a try that was cut off, or of a daemon that died: this mount starts on clean ground.
        apply::all(plan::unmount(&target, before.as_ref()), &mut hands)?;
    }
    let (folder, _) = if on == On::Nothing { (folder, on) } else { observe::target(&target)? };
    hands.target = Some(folder);
    let seen = wish.observe(&mut hands)?;
    let steps = plan::mount(&target, record(&asked, backend)?, seen.as_ref(), &asked.common);
    apply::run(steps, &mut hands)?;
    Ok(Answer::success(hands.notes.join("; ")))
}

/// The options of another pod must not reach this pod's folder.
fn same_pod(target: &Target, uid: &str) -> Result<()> {
    if target.uid() == uid {
        return Ok(());
    }
    Err(Error::caused(
        Kind::Usage,
        format!("mount at `{target}`"),
        format!("the folder is of the pod `{}` and the options are of the pod `{uid}`", target.uid()),
    )
    .hint("no option may be called `kubernetes.io/pod.uid`: the kubelet sets it"))
}

/// A kernel or kubelet that cannot tell asks again for what is there.
fn already(target: &Target, backend: Backend, record: Option<&Record>) -> Result<Answer> {
    if record.is_some_and(|r| r.backend == backend.name()) {
        return Ok(Answer::success("it is mounted already"));
    }
    let why = match record {
        Some(record) => format!("a volume of the backend `{}` is mounted there", record.backend),
        None => "something is mounted there that this driver knows nothing of".to_owned(),
    };
    Err(Error::caused(Kind::Conflict, format!("mount a `{}` at `{target}`", backend.name()), why)
        .hint(format!("look at it with `findmnt {target}` and unmount it")))
}

fn record(asked: &Asked<'_>, backend: Backend) -> Result<Record> {
    Ok(Record {
        boot: boot::id()?,
        target: asked.target.path(),
        root: asked.target.root().to_owned(),
        namespace: asked.pod.namespace.clone(),
        pod: asked.pod.name.clone(),
        backend: backend.name().to_owned(),
        read_only: asked.common.read_only,
        options: asked.options.plain(),
        ..Record::default()
    })
}
