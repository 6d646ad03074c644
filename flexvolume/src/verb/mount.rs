//! `mount`: a volume at its folder, whole, or nothing.

use std::path::Path;
use std::time::Instant;

use node::{Error, Kind, Result, boot, times};

use super::lock;
use crate::apply::{self, Hands, Health};
use crate::backend::{self, Asked, Common, Wish};
use crate::kernel::crash;
use crate::log::Entry;
use crate::name::{Backend, Driver};
use crate::observe::{self, On};
use crate::options::{Options, Secrets, quoted};
use crate::plan;
use crate::policy::Policy;
use crate::record::Record;
use crate::render::Answer;
use crate::target::Target;

/// Makes the volume of `options` at `folder`.
pub fn mount(
    driver: Driver,
    folder: &Path,
    options: &Options,
    start: Instant,
    entry: &mut Entry,
) -> Result<Answer> {
    call(driver, folder, options, start, Way::New(entry))
}

/// Makes the volume of `record` once more where nobody sees it, and puts it in the place of its mount, whose
/// server or daemon is gone. When that fails, the old mount stays: on a bare folder the pod would write to the
/// node's own disk. Arms no alarm; the caller bounds it by a child.
pub fn replace(record: &Record, start: Instant) -> Result<Answer> {
    let Some(backend) = Backend::named(&record.backend).filter(|backend| is_replaceable(*backend)) else {
        let why = format!("a volume of the backend `{}` cannot be mounted twice", record.backend);
        let doing = format!("mount `{}` again", record.target.display());
        return Err(Error::caused(Kind::Unavailable, doing, why)
            .hint("delete the pod: its successor's volume is looked at and mounted anew"));
    };
    let json = serde_json::to_string(&record.options)
        .map_err(|e| Error::caused(Kind::Internal, "write options", e))?;
    call(Driver::Only(backend), &record.target, &Options::parse(&json)?, start, Way::InPlaceOfADeadOne)
}

/// Whether a second mount may be made while the first is there: a disk or an image has one at a time, and
/// memory does not die.
fn is_replaceable(backend: Backend) -> bool {
    match backend {
        Backend::Bind | Backend::Nfs | Backend::Cifs | Backend::Fuse => true,
        Backend::Tmpfs | Backend::Image | Backend::Overlay | Backend::Block => false,
    }
}

/// How a volume comes to its folder.
#[derive(Debug)]
enum Way<'e> {
    /// By a call, whose line it is told to.
    New(&'e mut Entry),
    InPlaceOfADeadOne,
}

/// What went wrong holds no secret: whoever had one in hand has seen to that, and this is the net below.
fn call(driver: Driver, folder: &Path, options: &Options, start: Instant, way: Way<'_>) -> Result<Answer> {
    let made = attempt(driver, folder, options, start, way);
    made.map_err(|error| match options.secrets() {
        Ok(secrets) => redacted(error, &secrets),
        // They are not decoded, so that nobody has one.
        Err(_) => error,
    })
}

/// The same error, where none of its words is a secret.
fn redacted(error: Box<Error>, secrets: &Secrets) -> Box<Error> {
    let (doing, causes) = (error.to_string(), error.causes());
    let advice = error.advice().map(str::to_owned);
    let clean = |text: &str| secrets.redact(text);
    let clean_advice = advice.as_deref().map(clean);
    if clean(&doing) == doing && clean(&causes) == causes && clean_advice == advice {
        return error;
    }
    let causes = clean(&causes);
    let new = if causes.is_empty() {
        Error::new(error.kind(), clean(&doing))
    } else {
        Error::caused(error.kind(), clean(&doing), causes)
    };
    match clean_advice {
        Some(advice) => new.hint(advice),
        None => new,
    }
}

fn attempt(
    driver: Driver,
    folder: &Path,
    options: &Options,
    start: Instant,
    mut way: Way<'_>,
) -> Result<Answer> {
    let policy = Policy::load()?;
    if let Way::New(entry) = &mut way {
        entry.log = Some(policy.log());
    }
    times::lap("policy");
    let target = Target::parse(folder, &policy.kubelet_root)?;
    let pod = options.pod();
    same_pod(&target, &pod.uid)?;
    named(&pod.namespace)?;
    policy.namespaces_allow(&pod.namespace)?;
    let mut reader = options.reader();
    let common = Common::read(options, &pod, &policy, &mut reader, start);
    let backend = match backend::choose(driver, &mut reader) {
        Ok(backend) => backend,
        Err(error) => return reader.finish_with(Err(error)),
    };
    let asked = Asked { options, pod, target: &target, policy: &policy, common };
    let wish = backend::read(backend, &asked, &mut reader);
    let wish = reader.finish_with(wish)?;
    if let Way::New(entry) = &mut way {
        entry.backend = Some(backend.name().to_owned());
        crash::alarm_at(asked.common.deadline, asked.common.deadline.saturating_duration_since(start));
    }

    let secrets = options.secrets()?;
    let mut hands = Hands::new(&secrets, asked.common.deadline);
    hands.busy = Some((policy.busy_wait.duration(), policy.busy));
    times::lap("options");
    hands.locks.push(lock(&target.id())?);
    times::lap("lock");
    let made = match way {
        Way::New(_) => make(&asked, backend, wish, &mut hands),
        Way::InPlaceOfADeadOne => make_anew(&asked, backend, wish, &mut hands),
    };
    hands.unlock(made).map(|()| Answer::success(hands.notes.join("; ")))
}

/// Makes the volume on clean ground.
fn make(asked: &Asked<'_>, backend: Backend, wish: Box<dyn Wish>, hands: &mut Hands<'_>) -> Result<()> {
    let target = asked.target;
    let (folder, on) = observe::target(target)?;
    let before = Record::find(target)?;
    if on == On::Mount && already(target, backend, before.as_ref(), hands)? {
        return Ok(());
    }
    if on != On::Nothing || before.is_some() {
        // Of a try that was cut off, or of a daemon that died: this mount starts on clean ground.
        if let Some(key) = before.as_ref().and_then(Record::source_lock) {
            hands.lock_source(key)?;
        }
        apply::all(plan::again(target, before.as_ref()), hands)?;
    }
    let (folder, _) = if on == On::Nothing { (folder, on) } else { observe::target(target)? };
    hands.target = Some(folder);
    let seen = wish.observe(hands)?;
    times::lap("observe");
    let steps = plan::mount(target, record(asked, backend)?, seen.as_ref(), &asked.common);
    apply::run(steps, hands)
}

/// Makes the volume beside its dead mount, and then exchanges the two.
fn make_anew(asked: &Asked<'_>, backend: Backend, wish: Box<dyn Wish>, hands: &mut Hands<'_>) -> Result<()> {
    let target = asked.target;
    let (_, on) = observe::target(target)?;
    if Record::find(target)?.is_none() || on == On::Nothing {
        let why = "it is not mounted any more";
        return Err(Error::caused(Kind::Mismatch, format!("mount `{target}` again"), why));
    }
    let seen = wish.observe(hands)?;
    let steps = plan::replace(target, record(asked, backend)?, seen.as_ref(), &asked.common);
    apply::run(steps, hands)
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

/// The policy asks for the pod's namespace (a DNS label, RFC 1123), and `*` would match even none.
fn named(namespace: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&namespace.len()) && namespace.bytes().all(plain) {
        return Ok(());
    }
    let why = format!("{} is not a namespace's name", quoted(namespace));
    Err(Error::caused(Kind::Usage, "read whose volume it is", why)
        .hint("the kubelet has to set `kubernetes.io/pod.namespace`, and no option may be called so"))
}

/// A kernel or kubelet that cannot tell asks again for what is there. `false` where its server or daemon is
/// gone, so that it is to be made anew.
fn already(
    target: &Target,
    backend: Backend,
    record: Option<&Record>,
    hands: &mut Hands<'_>,
) -> Result<bool> {
    if record.is_some_and(|r| r.backend == backend.name()) {
        let remote = matches!(backend, Backend::Nfs | Backend::Cifs | Backend::Fuse);
        let health = if remote { apply::health(target, hands)? } else { Health::Fine };
        match health {
            Health::Gone(_) => return Ok(false),
            Health::Silent => hands.notes.push("it is mounted already, and does not answer".to_owned()),
            Health::Fine => hands.notes.push("it is mounted already".to_owned()),
        }
        return Ok(true);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_an_error_is_not_told() {
        let json = r#"{"kubernetes.io/secret/password":"aHVudGVyMi00NzEx"}"#;
        let secrets = Options::parse(json).unwrap().secrets().unwrap();
        let error = Error::caused(Kind::Kernel, "mount `hunter2-4711`", "pass=hunter2-4711 is bad")
            .hint("do not write hunter2-4711");
        let clean = redacted(error, &secrets);
        assert_eq!(clean.kind(), Kind::Kernel);
        assert_eq!(clean.chain(), "mount `[secret password]`: pass=[secret password] is bad");
        assert_eq!(clean.advice(), Some("do not write [secret password]"));
        let plain = Error::caused(Kind::Io, "read it", std::io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(redacted(plain, &secrets).errno(), Some(libc::EIO));
    }

    #[test]
    fn a_pod_without_a_namespace_gets_nothing() {
        for good in ["default", "kube-system", "team-1", "0"] {
            assert!(named(good).is_ok(), "{good}");
        }
        for bad in ["", "Team", "a/b", "a b", "a.b", "*", &"x".repeat(64)] {
            assert_eq!(named(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
