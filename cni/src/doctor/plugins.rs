//! The folder of plugins, and the programs in it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::statvfs::{FsFlags, statvfs};
use node::finding::{Finding, counted, listed, typed, unread};
use node::install::{self as files, MODE};
use node::store;

use crate::command::bounded;
use crate::command::install::{self, ORIGINALS, OURSELVES};
use crate::role::{OWN, REFERENCE, Role};
use crate::runtime::Runtime;

const FOLDER: &str = "plugin folder";
const PROGRAM: &str = "program";
const NAMES: &str = "other names";
const LOOPBACK: &str = "loopback";

/// Others than the owner may write.
const ANYBODY: u32 = 0o022;
/// An upgrade has the new program beside the old one for a moment.
const ROOM: u64 = 16 << 20;
/// A version takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// The folder itself: there, the owner's alone, on a file system that may be written and executed from.
pub(super) fn folder(runtime: &Runtime) -> Vec<Finding> {
    let Some(folder) = runtime.bin_dirs.first() else { return Vec::new() };
    let (shown, word) = (folder.display(), typed(folder));
    let about = match fs::metadata(folder) {
        Ok(about) if about.is_dir() => about,
        Ok(_) => {
            let why = format!("`{shown}` is no folder");
            return vec![Finding::problem(FOLDER, why, format!("move it away: mv {word} {word}.old"))];
        }
        Err(e) => {
            let remedy = format!("mkdir -p {word} && nodeplug-cni install {word}");
            return vec![Finding::problem(FOLDER, format!("`{shown}`: {e}"), remedy)];
        }
    };
    let mut found: Vec<Finding> = writers(folder, &about).into_iter().collect();
    let Ok(system) = statvfs(folder) else { return found };
    if system.flags().contains(FsFlags::ST_NOEXEC) {
        let why = format!("`{shown}` is mounted noexec: no plugin can be started");
        let remedy = format!("mount -o remount,exec \"$(findmnt -no TARGET -T {word})\"");
        found.push(Finding::problem(FOLDER, why, remedy));
    }
    if system.flags().contains(FsFlags::ST_RDONLY) {
        let why = format!("`{shown}` is read-only: what is there works, and can't be upgraded");
        let remedy = "let the runtime use a folder that may be written (containerd: `bin_dir`)";
        found.push(Finding::warning(FOLDER, why, remedy));
    } else if system.blocks_available().saturating_mul(system.fragment_size()) < ROOM {
        let why = format!("`{shown}` has less than 16 MiB left: an upgrade may not fit");
        found.push(Finding::warning(FOLDER, why, format!("make room: df -h {word}")));
    }
    if found.is_empty() {
        found.push(Finding::fine(FOLDER, format!("`{shown}` is root's alone")));
    }
    found
}

/// What lets somebody else than root replace what root executes.
fn writers(path: &Path, about: &Metadata) -> Option<Finding> {
    let (shown, word) = (path.display(), typed(path));
    if about.uid() != 0 {
        let why = format!("`{shown}` belongs to uid {}, who can replace what root runs", about.uid());
        return Some(Finding::problem(FOLDER, why, format!("chown root:root {word}")));
    }
    (about.mode() & ANYBODY != 0).then(|| {
        let mode = about.mode() & 0o7777;
        let why = format!("`{shown}` may be written by others than root (mode {mode:04o})");
        Finding::problem(FOLDER, why, format!("chmod go-w {word}"))
    })
}

/// The program under its own name and under others.
pub(super) fn programs(runtime: &Runtime) -> Vec<Finding> {
    let Some(folder) = runtime.bin_dirs.first() else { return Vec::new() };
    let mut found = own(folder);
    found.extend(references(folder));
    if !runtime.own_loopback {
        found.extend(loopback(folder));
    }
    found.extend(half_made(folder));
    let copies = runtime.bin_dirs.iter().skip(1).map(|other| other.join(OWN)).filter(|path| path.exists());
    found.extend(copies.map(|path| {
        let why = format!("there is another copy at `{}`, which is not the one that is run", path.display());
        Finding::warning(PROGRAM, why, format!("rm {}", typed(&path)))
    }));
    found
}

fn own(folder: &Path) -> Vec<Finding> {
    let path = folder.join(OWN);
    let (shown, word) = (path.display(), typed(&path));
    let again = format!("nodeplug-cni install {}", typed(folder));
    let about = match fs::metadata(&path) {
        Ok(about) if about.is_file() => about,
        Ok(_) => {
            let why = format!("`{shown}` is no file");
            return vec![Finding::problem(PROGRAM, why, format!("mv {word} {word}.old; {again}"))];
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::problem(PROGRAM, format!("`{shown}` is not there"), again)];
        }
        Err(e) => return vec![Finding::problem(PROGRAM, format!("`{shown}`: {e}"), "run as root")],
    };
    if about.permissions().mode() & 0o111 == 0 {
        let why = format!("`{shown}` is not executable: every pod fails with \"permission denied\"");
        return vec![Finding::problem(PROGRAM, why, format!("chmod 0755 {word}"))];
    }
    match install::is_ours(&path) {
        Ok(true) => {}
        Ok(false) => {
            return vec![Finding::problem(PROGRAM, format!("`{shown}` is another program"), again)];
        }
        Err(error) => return vec![unread(PROGRAM, &error)],
    }
    // What others may have written is not run from here.
    if let Some(writers) = writers(&path, &about) {
        return vec![writers];
    }
    if let Err(error) = install::probe::version(&path, OWN) {
        let remedy = error.advice().map_or(again, str::to_owned);
        return vec![Finding::problem(PROGRAM, error.chain(), remedy)];
    }
    vec![compared(&path, &again)]
}

/// The one that is installed beside this one.
fn compared(path: &Path, again: &str) -> Finding {
    let shown = path.display();
    let this = env!("CARGO_PKG_VERSION");
    if files::is_same(Path::new(OURSELVES), path, MODE).unwrap_or(false) {
        return Finding::fine(PROGRAM, format!("`{shown}` is version {this}, as this program"));
    }
    match version(path) {
        Some(other) if other == this => {
            let why = format!("`{shown}` is another build of version {this} than this program");
            Finding::warning(PROGRAM, why, format!("where this one is meant: {again}"))
        }
        other => {
            let other = other.unwrap_or_else(|| "unknown".to_owned());
            let why = format!("`{shown}` is version {other}, and this program is {this}");
            Finding::warning(PROGRAM, why, format!("where this one is meant: {again}"))
        }
    }
}

/// What `--version` says behind the name.
fn version(path: &Path) -> Option<String> {
    let mut command = Command::new(path);
    let said = bounded::output(command.arg("--version").env_clear(), b"", DEADLINE).ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = said.split_whitespace().nth(1)?;
    Some(version.chars().take(32).collect())
}

/// Whether `path` is this program.
pub(super) fn is_ours(path: &Path) -> bool {
    install::is_ours(path).unwrap_or(false)
}

/// Whether both are names of one file.
fn are_one(path: &Path, other: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).map(|a| (a.dev(), a.ino())).ok();
    of(path).is_some() && of(path) == of(other)
}

/// The reference's names: which are this program, which were and are no more, which are an older one.
fn references(folder: &Path) -> Vec<Finding> {
    let (own, kept) = (folder.join(OWN), folder.join(ORIGINALS));
    let (mut ours, mut found) = (Vec::new(), Vec::new());
    for (name, _) in REFERENCE.iter().filter(|(_, role)| *role != Role::Loopback) {
        let path = folder.join(name);
        let is_kept = fs::symlink_metadata(kept.join(name)).is_ok();
        let again = format!("nodeplug-cni install --as-reference --only {name} {}", typed(folder));
        if is_ours(&path) {
            ours.push((*name).to_owned());
            if !are_one(&path, &own) && !files::is_same(&own, &path, MODE).unwrap_or(true) {
                let why = format!("`{}` is another version of this program", path.display());
                found.push(Finding::warning(NAMES, why, again));
            }
        } else if is_kept && path.exists() {
            let why =
                format!("`{}` was this program, and is another one by now: a package came", path.display());
            found.push(Finding::warning(NAMES, why, again));
        } else if is_kept {
            let back = format!("nodeplug-cni uninstall --only {name} {}", typed(folder));
            let why = format!("`{}` is gone, and the program that had the name is kept", path.display());
            found.push(Finding::problem(NAMES, why, format!("{again}; or the old one back: {back}")));
        }
    }
    if found.is_empty() && !ours.is_empty() {
        let originals =
            store::names(&kept).unwrap_or_default().iter().filter(|n| !n.starts_with('.')).count();
        let why = format!("it is {} as well; {} kept", listed(&ours), counted(originals, "original"));
        found.push(Finding::fine(NAMES, why));
    }
    found
}

/// containerd calls it for every pod, whatever the network is.
fn loopback(folder: &Path) -> Vec<Finding> {
    let path = folder.join("loopback");
    let (shown, word) = (path.display(), typed(&path));
    let again = format!("nodeplug-cni install --as-reference --only loopback {}", typed(folder));
    match fs::metadata(&path) {
        Ok(about) if about.permissions().mode() & 0o111 != 0 => {
            let whose = if is_ours(&path) { "this program" } else { "another program" };
            vec![Finding::fine(LOOPBACK, format!("`{shown}` is {whose}"))]
        }
        Ok(_) => {
            let why = format!("`{shown}` is not executable");
            vec![Finding::problem(LOOPBACK, why, format!("chmod 0755 {word}"))]
        }
        Err(_) => {
            let why = format!("`{shown}` is not there, and containerd calls it for every pod");
            vec![Finding::problem(LOOPBACK, why, again)]
        }
    }
}

/// What installs leave that were killed.
fn half_made(folder: &Path) -> Option<Finding> {
    let names = store::names(folder).unwrap_or_default();
    let known = |name: &str| name == OWN || REFERENCE.iter().any(|(known, _)| *known == name);
    let left =
        |name: &&String| name.strip_prefix('.').and_then(|n| n.strip_suffix(".new")).is_some_and(known);
    let left: Vec<String> = names.iter().filter(left).cloned().collect();
    (!left.is_empty()).then(|| {
        let paths: Vec<String> = left.iter().map(|name| typed(&folder.join(name))).collect();
        let remedy = format!("nothing reads them: rm {}", paths.join(" "));
        Finding::warning(PROGRAM, format!("an install that was killed left {}", listed(&left)), remedy)
    })
}
