//! Programs that serve a file system: their mount, their secrets, their start and their end.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result, mountinfo, store};

use super::Hands;
use crate::kernel::daemon::{self, Daemon, Spec};
use crate::kernel::mount::{self, Tree};
use crate::kernel::{fuse, helper, path, workshop};
use crate::plan::{Service, Setting};
use crate::policy::Handover;
use crate::record::STATE;
use crate::target::Id;

/// How long a program may take to end when it is asked: it may still have something to write to its server.
const GRACE: Duration = Duration::from_secs(20);
/// The kernel takes no longer name of what is mounted (fsconfig(2)).
const LONGEST_SOURCE: usize = 255;

/// Starts the program, and takes in hand what it serves as soon as it answers.
pub fn serve(hands: &mut Hands<'_>, service: &Service) -> Result<()> {
    let files = service.secrets.iter().map(|key| {
        let content = hands.secrets.get(key).unwrap_or_default();
        helper::memory_file("secret", content).map(|file| (key.as_str(), file))
    });
    let files: Vec<(&str, OwnedFd)> = files.collect::<Result<_>>()?;
    match service.handover {
        Handover::Descriptor => by_descriptor(hands, service, &files),
        Handover::Folder => in_a_folder(hands, service, &files),
    }
}

/// Ends what serves the volume. Without anything it is done.
pub fn stop(hands: &Hands<'_>, volume: &Id) -> Result<()> {
    let left = hands.deadline.saturating_duration_since(Instant::now());
    daemon::stop(volume.as_str(), GRACE.min(left / 4))
}

/// The mount is made here, and the program gets its other end. It lives in a mount namespace of its own all the
/// same: whatever it does there, the node's mounts stay as they are.
fn by_descriptor(hands: &mut Hands<'_>, service: &Service, files: &[(&str, OwnedFd)]) -> Result<()> {
    let device = fuse::device()?;
    let number = device.as_raw_fd();
    let own = [Setting::text("fd", number.to_string())];
    let settings: Vec<Setting> = own.into_iter().chain(service.settings.iter().cloned()).collect();
    hands.make("fuse", Some(shortened(&service.source)), &settings, false)?;
    let stage = stage()?;
    let note = {
        let (secrets, root, until) = (hands.secrets, hands.tree()?.as_fd(), hands.patience());
        let mut keep = hands.locked();
        keep.extend([device.as_fd(), root].into_iter().chain(files.iter().map(|(_, file)| file.as_fd())));
        workshop::settle(&stage, until, &keep, |_, until| {
            mount::detach_all_below(&service.others)?;
            let daemon = start(service, &format!("/dev/fd/{number}"), files, &[device.as_fd()])?;
            daemon.until_ready(until, &|text| secrets.redact(text), || {
                took_the_descriptor()?;
                fuse::answers(root, until)
            })?;
            Ok(tied(&daemon))
        })?
    };
    hands.notes.extend(text(&note));
    Ok(())
}

/// A program that is built with an older libfuse takes the descriptor's name for a path, and mounts there: over
/// the device itself, in the namespace that it has for the sake of this.
fn took_the_descriptor() -> Result<()> {
    let mounts = mountinfo::read()?;
    if mountinfo::at(&mounts, Path::new(fuse::DEVICE)).all(|mount| !mount.kind.starts_with("fuse")) {
        return Ok(());
    }
    let why = "it mounted itself, so it does not know `/dev/fd/N` for a mountpoint (libfuse before 3.3)";
    Err(Error::caused(Kind::Config, "hand the program its mount", why)
        .hint("an administrator can set `handover: folder` in the profile"))
}

/// The program mounts a folder that nobody else sees, and lives on in that mount namespace.
fn in_a_folder(hands: &mut Hands<'_>, service: &Service, files: &[(&str, OwnedFd)]) -> Result<()> {
    let stage = stage()?;
    let secrets = hands.secrets;
    let mut keep = hands.locked();
    keep.extend(files.iter().map(|(_, file)| file.as_fd()));
    let (root, note) = workshop::build(&stage, hands.patience(), &keep, |bench, until| {
        mount::detach_all_below(&service.others)?;
        let daemon = start(service, &bench.display().to_string(), files, &[])?;
        daemon.until_ready(until, &|text| secrets.redact(text), || is_served(bench, until))?;
        let tree = mount::clone_tree(path::open_root(bench)?.as_fd(), false)?;
        Ok((tree.into_fd(), tied(&daemon)))
    })?;
    hands.hold(Tree::detached(root));
    hands.notes.extend(text(&note));
    Ok(())
}

fn start(
    service: &Service,
    mountpoint: &str,
    files: &[(&str, OwnedFd)],
    keep: &[BorrowedFd<'_>],
) -> Result<Daemon> {
    // By the program's own number: one that it starts finds the file there, too.
    let file = |pid: i32, key: &str| {
        let number = files.iter().find(|(known, _)| *known == key).map_or(-1, |(_, file)| file.as_raw_fd());
        format!("/proc/{pid}/fd/{number}")
    };
    let arguments = |pid: i32| {
        let words = service.arguments.iter().map(|words| words.with(mountpoint, |key| file(pid, key)));
        words.map(OsString::from).collect()
    };
    let environment = |pid: i32| {
        let all = service.environment.iter();
        all.map(|(name, words)| (name.clone(), words.with(mountpoint, |key| file(pid, key)))).collect()
    };
    let keep: Vec<BorrowedFd<'_>> =
        keep.iter().copied().chain(files.iter().map(|(_, f)| f.as_fd())).collect();
    daemon::start(&Spec {
        volume: service.volume.as_str(),
        program: &service.program,
        arguments: &arguments,
        environment: &environment,
        keep: &keep,
    })
}

fn is_served(bench: &Path, until: Instant) -> Result<bool> {
    let root = path::open_root(bench)?;
    let mounted = mount::is_root(root.as_fd());
    if !mounted.doing(Kind::Kernel, || "look at what was mounted".to_owned())? {
        return Ok(false);
    }
    fuse::answers(root.as_fd(), until)
}

/// What the pod's author may want to know of a program that was not placed; nothing where it was.
fn tied(daemon: &Daemon) -> Vec<u8> {
    let why = daemon.tied_to_kubelet.as_ref();
    let note =
        why.map(|why| format!("a restart of the kubelet may end the program that serves this volume: {why}"));
    note.unwrap_or_default().into_bytes()
}

fn text(note: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(note).into_owned()).filter(|note| !note.is_empty())
}

fn stage() -> Result<PathBuf> {
    let stage = Path::new(STATE).join("stage");
    store::make_folder(&stage)?;
    Ok(stage)
}

fn shortened(source: &str) -> &str {
    source.get(..source.floor_char_boundary(LONGEST_SOURCE)).unwrap_or(source)
}
