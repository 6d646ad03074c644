//! `list`, `repair` and `gc`: the volumes of this node, those whose server or daemon died, and what no
//! volume needs any more. The kubelet calls the driver for none of these: it takes a dead mount for mounted.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use node::store::{self, Lock};
use node::{Error, Kind, Result, mountinfo};

use super::table::Report;
use crate::apply::{self, Hands};
use crate::kernel::{path, process, workshop};
use crate::observe::{self, On};
use crate::options::Secrets;
use crate::record::{self, Record, STATE};
use crate::target::Target;
use crate::{plan, verb};

/// A mount that does not say how full it is within this time hangs.
const PATIENCE: Duration = Duration::from_secs(2);
/// A child of a call that was killed keeps its lock for a moment.
const DYING: Duration = Duration::from_millis(200);
/// A volume's whole repair.
const LIMIT: Duration = Duration::from_secs(100);

/// What is done about a volume that is remembered and not mounted.
const BARE: &str = "delete the pod, which may write to the node's own disk";

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// Mounted, and answers: size and free space in bytes.
    Fine(u64, u64),
    /// Remembered and not mounted.
    Absent,
    /// Mounted, and its server or daemon is gone: the kernel's words.
    Dead(String),
    /// Mounted, and does not answer.
    Hangs,
    /// It cannot be told, and why.
    Unknown(String),
}

impl Health {
    fn word(&self) -> String {
        match self {
            Self::Fine(..) => "fine".to_owned(),
            Self::Absent => "not mounted".to_owned(),
            Self::Dead(why) => format!("dead: {why}"),
            Self::Hangs => "hangs".to_owned(),
            Self::Unknown(why) => format!("unknown: {why}"),
        }
    }

    fn bytes(&self) -> Option<(u64, u64)> {
        if let Self::Fine(size, free) = self { Some((*size, *free)) } else { None }
    }

    fn sizes(&self) -> [String; 2] {
        self.bytes().map(|(size, free)| [size, free].map(amount)).unwrap_or_default()
    }
}

/// Lists the volumes of this node.
#[derive(Debug, Clone, Args)]
pub struct List {}

/// Looks for volumes whose daemon or server is gone.
#[derive(Debug, Clone, Args)]
pub struct Repair {
    /// Mount them again. Running containers see the new mount after their next restart.
    #[arg(long)]
    pub remount: bool,
}

/// Removes records, locks and programs that no volume needs any more.
#[derive(Debug, Clone, Args)]
pub struct Gc {
    /// Say what would go, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl List {
    /// The volumes, one a row.
    pub fn run(&self) -> Result<Report> {
        let mut report =
            Report::new(&["POD", "VOLUME", "BACKEND", "SOURCE", "SIZE", "FREE", "ACCESS", "HEALTH"]);
        let mut ill = 0;
        let all = Record::all()?;
        let odd = odd(&all)?;
        for (_, record) in all {
            let (volume, health) = looked_at(&record);
            if !matches!(health, Health::Fine(..)) {
                ill += 1;
                report.problem();
            }
            let [size, free] = health.sizes();
            let access = if record.read_only { "ro" } else { "rw" };
            let pod = format!("{}/{}", record.namespace, record.pod);
            let cells =
                [pod, volume, record.backend, record.source, size, free, access.to_owned(), health.word()];
            let bytes = health.bytes().map(|(size, free)| [("size_bytes", size), ("free_bytes", free)]);
            report.row_with(cells, bytes.into_iter().flatten());
        }
        let well = report.len() - ill;
        let remedy = if ill == 0 { "" } else { "; see `nodeplug-flexvolume repair` and `gc`" };
        let volumes = if report.len() == 1 { "volume" } else { "volumes" };
        let odd = match odd {
            0 => String::new(),
            n => format!("; records that cannot be read: {n}, see `gc`"),
        };
        report.summary(format!("{} {volumes}, {well} fine{remedy}{odd}", report.len()));
        Ok(report)
    }
}

/// How many records are none of `all`.
pub(crate) fn odd(all: &[(String, Record)]) -> Result<usize> {
    let names = store::names(&Path::new(STATE).join("volumes"))?.into_iter();
    let ids = names
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
    Ok(ids.filter(|id| all.iter().all(|(known, _)| known != id)).count())
}

impl Repair {
    /// The volumes that are ill, and what was done.
    pub fn run(&self) -> Result<Report> {
        // As in a call of the kubelet: no core file of what is mounted, and no file that others may read.
        process::harden();
        let mut report = Report::new(&["POD", "VOLUME", "BACKEND", "HEALTH", "DONE"]);
        let mut left = 0;
        for (_, record) in Record::all()? {
            let (volume, health) = looked_at(&record);
            let Some(outcome) = self.treat(&record, &health) else { continue };
            let well = matches!(outcome, Ok(Treated::Mounted(_)));
            let done = match outcome {
                Ok(Treated::Mounted(done)) => done,
                Ok(Treated::Nothing(why)) => format!("nothing: {why}"),
                Err(error) => crate::render::message(&error),
            };
            if !well {
                left += 1;
                report.problem();
            }
            let pod = format!("{}/{}", record.namespace, record.pod);
            report.row([pod, volume, record.backend, health.word(), done]);
        }
        report.summary(format!("{} dead, hanging or not mounted, {left} left so", report.len()));
        Ok(report)
    }
}

/// What became of a volume that is ill.
enum Treated {
    Mounted(String),
    Nothing(&'static str),
}

impl Repair {
    /// `None` where a volume needs nothing.
    fn treat(&self, record: &Record, health: &Health) -> Option<Result<Treated>> {
        let target = match target(record) {
            Ok(target) => target,
            Err(error) => return Some(Err(error)),
        };
        match health {
            Health::Fine(..) => None,
            // A mount now would hide from the kubelet that the volume's Secret is missing in it.
            Health::Absent => is_bare(&target).then_some(Ok(Treated::Nothing(BARE))),
            Health::Dead(_) | Health::Hangs if self.remount => {
                Some(remount(&target, record).map(Treated::Mounted))
            }
            Health::Dead(_) | Health::Hangs => Some(Ok(Treated::Nothing("see --remount"))),
            Health::Unknown(_) => Some(Ok(Treated::Nothing("see what is wrong with it"))),
        }
    }
}

/// Whether the folder of a volume that is not mounted is there, and no call is at work on it.
fn is_bare(target: &Target) -> bool {
    let unused = record::lock(&format!("t-{}", target.id()), DYING).and_then(Lock::remove).is_ok();
    unused && matches!(observe::target(target), Ok((_, On::Nothing)))
}

/// Mounts a dead volume again with the options of its record, in a child of its own: one volume that hangs
/// does not keep the others waiting. Its Secret was not kept.
fn remount(target: &Target, record: &Record) -> Result<String> {
    let until = Instant::now() + LIMIT + DYING;
    let made = workshop::apart(until, &[], || {
        verb::replace(record, Instant::now()).map(|answer| answer.message.into_bytes())
    });
    let notes = made.map_err(|error| {
        let secret = "a volume's Secret is not kept on the node: where it has one, delete the pod instead";
        let hint = error.advice().unwrap_or(secret).to_owned();
        Error::caused(error.kind(), format!("mount `{target}` again; it stays as it was"), error).hint(hint)
    })?;
    let notes = String::from_utf8_lossy(&notes);
    let and = if notes.is_empty() { "" } else { "; " };
    Ok(format!("mounted again; restart the pod's containers{and}{notes}"))
}

impl Gc {
    /// What goes, or would go.
    pub fn run(&self) -> Result<Report> {
        let mut report = Report::new(&["WHAT", "WHERE", "WHY", "DONE"]);
        let verb = if self.dry_run { "nothing: --dry-run" } else { "removed" };
        for (id, record) in Record::all()? {
            let Ok(target) = target(&record) else { continue };
            match health(&target) {
                Ok(Health::Absent) if id == target.id().as_str() => {}
                Ok(_) => continue,
                Err(error) => {
                    let (path, why) = (target.to_string(), error.chain());
                    report.problem();
                    report.row(["volume".to_owned(), path, why, "nothing".to_owned()]);
                    continue;
                }
            }
            // A call at work holds the lock: what it remembers is not forgotten under it. One that has just ended
            // may have mounted the volume after all.
            let Ok(lock) = record::lock(&format!("t-{id}"), DYING) else { continue };
            if Record::find(&target)?.is_none() || health(&target)? != Health::Absent {
                lock.remove()?;
                continue;
            }
            let mut done = verb.to_owned();
            if self.dry_run {
                lock.remove()?;
            } else {
                let secrets = Secrets::default();
                let mut hands = Hands::new(&secrets, Instant::now() + LIMIT);
                match apply::all(plan::unmount(&target, Some(&record)), &mut hands) {
                    Ok(()) => lock.remove()?,
                    Err(error) => {
                        report.problem();
                        done = crate::render::message(&error);
                    }
                }
            }
            report.row(["volume".to_owned(), target.to_string(), "it is not mounted".to_owned(), done]);
        }
        self.strays(&mut report, verb)?;
        report.summary(format!("{} found", report.len()));
        Ok(report)
    }

    /// Records that nobody can read or that are of another boot, and locks that nobody holds.
    fn strays(&self, report: &mut Report, verb: &str) -> Result<()> {
        let (volumes, locks) = (Path::new(STATE).join("volumes"), Path::new(STATE).join("locks"));
        let known: Vec<String> = Record::all()?.into_iter().map(|(id, _)| format!("{id}.json")).collect();
        for name in store::names(&volumes)?.into_iter().filter(|name| !known.contains(name)) {
            // A hidden one may be about to be renamed; its volume's lock tells.
            let id = name.trim_start_matches('.').split('.').next().unwrap_or_default().to_owned();
            let Ok(lock) = record::lock(&format!("t-{id}"), Duration::ZERO) else { continue };
            let path = volumes.join(&name);
            if !self.dry_run {
                store::remove(&path)?;
            }
            lock.remove()?;
            let why = "it is of another boot, or cannot be read";
            report.row(["record".to_owned(), path.display().to_string(), why.to_owned(), verb.to_owned()]);
        }
        for name in store::names(&locks)? {
            let in_use = name.strip_prefix("t-").is_some_and(|id| known.contains(&format!("{id}.json")));
            let path = locks.join(&name);
            let Ok(lock) = Lock::within(&path, Duration::ZERO) else { continue };
            if in_use || self.dry_run {
                continue;
            }
            lock.remove()?;
        }
        Ok(())
    }
}

fn target(record: &Record) -> Result<Target> {
    Target::parse(&record.target, &record.root)
}

/// A volume's name and how it is. What is wrong with one record keeps no other from being told.
pub(crate) fn looked_at(record: &Record) -> (String, Health) {
    let unknown = |error: Box<Error>| Health::Unknown(error.chain());
    match target(record) {
        Ok(target) => (target.volume().to_owned(), health(&target).unwrap_or_else(unknown)),
        Err(error) => (record.target.display().to_string(), unknown(error)),
    }
}

/// Asks the mount itself, in a child: one whose server is gone may never answer.
fn health(target: &Target) -> Result<Health> {
    if !is_mounted(target)? {
        return Ok(Health::Absent);
    }
    let asked = workshop::apart(Instant::now() + PATIENCE, &[], || {
        let (folder, on) = observe::target(target)?;
        let words = match (on, rustix::fs::fstatvfs(folder.as_fd())) {
            (On::Dead(errno), _) => std::io::Error::from_raw_os_error(errno).to_string(),
            (_, Err(errno)) => std::io::Error::from(errno).to_string(),
            (_, Ok(seen)) => format!("{} {}", seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize),
        };
        Ok(words.into_bytes())
    });
    match asked {
        Ok(bytes) => Ok(understood(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == Kind::TryAgain => Ok(Health::Hangs),
        Err(error) => Ok(Health::Dead(error.chain())),
    }
}

/// Whether the kernel lists a mount there: by a path without symlinks, which the kubelet's root may have.
fn is_mounted(target: &Target) -> Result<bool> {
    let root = match path::open_root(target.root()) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(false),
        other => path::real_path(other?.as_fd())?,
    };
    Ok(mountinfo::top(&mountinfo::read()?, &root.join(target.relative())).is_some())
}

fn understood(words: &str) -> Health {
    let numbers =
        words.split_once(' ').and_then(|(size, free)| Some((size.parse().ok()?, free.parse().ok()?)));
    numbers.map_or_else(|| Health::Dead(words.to_owned()), |(size, free)| Health::Fine(size, free))
}

/// Bytes as Kubernetes writes them, to one decimal.
fn amount(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    for (name, unit) in UNITS {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return if tenths % 10 == 0 {
                format!("{}{name}", tenths / 10)
            } else {
                format!("{}.{}{name}", tenths / 10, tenths % 10)
            };
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_quantities() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1 << 20, "1Mi"), (3 << 29, "1.5Gi"), (1 << 41, "2Ti")]
        {
            assert_eq!(amount(bytes), text);
        }
    }

    #[test]
    fn what_is_no_pair_of_numbers_is_the_kernels_word() {
        assert_eq!(understood("10 5"), Health::Fine(10, 5));
        let words = "Transport endpoint is not connected (os error 107)";
        assert_eq!(understood(words), Health::Dead(words.to_owned()));
    }
}
