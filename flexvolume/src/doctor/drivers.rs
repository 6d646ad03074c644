//! The kubelet's folder of volume plugins, and the drivers in it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use node::finding::{Finding, counted, listed, typed, unread};
use node::{Result, root, store};
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::command::install::find::{self, Choice};
use crate::command::install::plan::{self, Driver, There};
use crate::command::install::{NAMES, OURSELVES, VENDOR, probe};

const FOLDER: &str = "plugin folder";
const DRIVERS: &str = "drivers";
const LEFT: &str = "killed installs";

/// Others than the owner may write.
const ANYBODY: u32 = 0o022;
const INSTALL: &str = "nodeplug-flexvolume install";

/// Which folder the kubelet of the node below `root` uses, as the node names it.
pub(super) fn chosen(root: &Path) -> Result<Choice> {
    find::folder(None, root, VENDOR)
}

/// The folder, and what is in it.
pub(super) fn all(chosen: Result<Choice>) -> Vec<Finding> {
    let choice = match chosen {
        Ok(choice) => choice,
        Err(error) => return vec![unread(FOLDER, &error)],
    };
    let mut found = folder(&choice);
    if choice.folder.is_dir() {
        found.extend(drivers(&choice.folder));
    }
    found
}

fn folder(choice: &Choice) -> Vec<Finding> {
    let (folder, shown, why) = (&choice.folder, choice.folder.display(), &choice.why);
    let word = typed(folder);
    let about = match fs::metadata(folder) {
        Ok(about) if about.is_dir() => about,
        Ok(_) => {
            let why = format!("`{shown}` is no folder");
            return vec![Finding::problem(FOLDER, why, format!("mv {word} {word}.old; {INSTALL}"))];
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::problem(FOLDER, format!("`{shown}` ({why}) is not there"), INSTALL)];
        }
        Err(e) => return vec![Finding::problem(FOLDER, format!("`{shown}`: {e}"), "run as root")],
    };
    let mut found: Vec<Finding> = writers(FOLDER, folder, &about).into_iter().collect();
    let flags = statvfs(folder).map_or(StatVfsMountFlags::empty(), |system| system.f_flag);
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        let why = format!("`{shown}` is mounted noexec: no driver can be started");
        let remedy = format!("mount -o remount,exec \"$(findmnt -no TARGET -T {word})\"");
        found.push(Finding::problem(FOLDER, why, remedy));
    }
    if flags.contains(StatVfsMountFlags::RDONLY) {
        let why = format!("`{shown}` is read-only: what is there works, and can't be upgraded");
        let remedy = "set volumePluginDir in the kubelet's configuration to a folder that may be written";
        found.push(Finding::warning(FOLDER, why, remedy));
    }
    found.extend(choice.notes.iter().map(|note| {
        let remedy = "start the kubelet and ask again, or compare with its --volume-plugin-dir";
        Finding::warning(FOLDER, format!("`{shown}` ({why}): {note}"), remedy)
    }));
    if found.is_empty() {
        found.push(Finding::fine(FOLDER, format!("`{shown}`: {why}")));
    }
    found
}

/// What lets somebody else than root replace what the kubelet executes.
fn writers(what: &'static str, path: &Path, about: &Metadata) -> Option<Finding> {
    let (shown, word) = (path.display(), typed(path));
    if about.uid() != 0 {
        let why = format!("`{shown}` belongs to uid {}, who can replace what root runs", about.uid());
        return Some(Finding::problem(what, why, format!("chown root:root {word}")));
    }
    (about.mode() & ANYBODY != 0).then(|| {
        let mode = about.mode() & 0o7777;
        let why = format!("`{shown}` may be written by others than root (mode {mode:04o})");
        Finding::problem(what, why, format!("chmod go-w {word}"))
    })
}

fn drivers(plugins: &Path) -> Vec<Finding> {
    let names = NAMES.iter().map(|name| plan::driver(plugins, VENDOR, name));
    let mut found = Vec::new();
    let mut good: Vec<String> = Vec::new();
    // One file has many names: it is asked once.
    let mut asked: Vec<(u64, u64)> = Vec::new();
    for driver in names {
        match of(&driver, &mut asked) {
            Ok(None) => {}
            Ok(Some(found_there)) if found_there.is_empty() => good.push(driver.title.clone()),
            Ok(Some(found_there)) => found.extend(found_there),
            Err(error) => found.push(unread(DRIVERS, &error)),
        }
    }
    found.extend(left(plugins));
    if good.is_empty() && found.is_empty() {
        let why = format!("`{}` has no driver of this program", plugins.display());
        return vec![Finding::problem(DRIVERS, why, INSTALL)];
    }
    if !good.is_empty() {
        let version = env!("CARGO_PKG_VERSION");
        let why = format!("{} of version {version} answer: {}", counted(good.len(), "driver"), listed(&good));
        found.push(Finding::fine(DRIVERS, why));
    }
    found
}

/// What is wrong with one; nothing where it is right, `None` where it is not there.
fn of(driver: &Driver, asked: &mut Vec<(u64, u64)>) -> Result<Option<Vec<Finding>>> {
    let (title, shown) = (&driver.title, driver.program.display());
    let problem = |why: String, remedy: &str| Ok(Some(vec![Finding::problem(DRIVERS, why, remedy)]));
    let there = plan::look(driver, Path::new(OURSELVES))?;
    match there {
        There::Nothing => return Ok(None),
        There::Folder => {
            let why = format!("`{}` is without its driver: the kubelet refuses it", driver.folder.display());
            return problem(why, INSTALL);
        }
        There::Stranger => {
            let why = format!("`{shown}` is another program");
            return problem(why, &format!("where {title} is meant to be this one: {INSTALL} --force"));
        }
        There::Ours { .. } => {}
    }
    let Ok(about) = fs::metadata(&driver.program) else { return Ok(None) };
    if about.permissions().mode() & 0o111 == 0 {
        let why = format!("`{shown}` is not executable: volumes of {title} fail");
        return problem(why, &format!("chmod 0755 {}", typed(&driver.program)));
    }
    // What others may have written is not run from here.
    if let Some(writers) = writers(DRIVERS, &driver.program, &about) {
        return Ok(Some(vec![writers]));
    }
    let mut found = Vec::new();
    let identity = (about.dev(), about.ino());
    if !asked.contains(&identity) {
        asked.push(identity);
        if let Err(error) = probe::init(&driver.program) {
            return problem(error.chain(), error.advice().unwrap_or(INSTALL));
        }
        found.extend(compared(driver, there));
    }
    Ok(Some(found))
}

/// The one that is installed beside this one.
fn compared(driver: &Driver, there: There) -> Option<Finding> {
    if there == (There::Ours { same: true }) {
        return None;
    }
    let (shown, this) = (driver.program.display(), env!("CARGO_PKG_VERSION"));
    let other = version(&driver.program).unwrap_or_else(|| "unknown".to_owned());
    let why = if other == this {
        format!("`{shown}` is another build of version {this} than this program")
    } else {
        format!("`{shown}` is version {other}, and this program is {this}")
    };
    Some(Finding::warning(DRIVERS, why, format!("where this one is meant: {INSTALL}")))
}

/// What `--version` says behind the name. It has answered `init` in time a moment ago.
fn version(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().stdin(root::nothing()).stderr(root::nothing());
    let said = command.output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Some(said.split_whitespace().nth(1)?.chars().take(32).collect())
}

/// What installs leave that were killed: hidden, so that the kubelet never looks at it.
fn left(plugins: &Path) -> Option<Finding> {
    let ours = |name: &str| NAMES.iter().any(|n| name == format!(".{VENDOR}~{n}.new"));
    let beside = |folder: &Path, name: &str| {
        let names = store::names(folder).unwrap_or_default();
        let own = [format!(".{name}.new"), format!(".{name}.old")];
        names.into_iter().filter(move |n| own.contains(n)).collect::<Vec<_>>()
    };
    let mut all: Vec<String> = store::names(plugins).unwrap_or_default();
    all.retain(|name| ours(name));
    for name in NAMES {
        all.extend(beside(&plan::driver(plugins, VENDOR, name).folder, name));
    }
    (!all.is_empty()).then(|| {
        let why = format!("an install that was killed left {}", listed(&all));
        Finding::warning(LEFT, why, format!("{INSTALL} takes it away"))
    })
}
