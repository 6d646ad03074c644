//! `install` and `uninstall`: the program in the runtime's folder of plugins, and there under the
//! reference's names, too.
//!
//! A runtime may exec any name at any time, so each name is a whole program at every moment: the new one is
//! made hidden beside it, asked for VERSION there, and renamed. What had the name before is kept in a hidden
//! folder first. A kill leaves some names with the one program and some with the other; the next install or
//! uninstall goes on from there.

mod originals;
pub(crate) mod probe;
mod report;

use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use node::install::{self, Folder, MODE};
use node::{Context, Error, Kind, Result, store};

use crate::role::{OWN, REFERENCE};
pub(crate) use originals::NAME as ORIGINALS;
use originals::Originals;
pub use report::{Outcome, Report, Row};

/// This program, even where its file was replaced or removed since it started (proc_pid_exe(5)).
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// By this, an installed file of any version is known as this program without running it; so it never
/// changes.
#[used]
static MARK: [u8; 37] = *b"nodeplug-cni: this file is the plugin";

/// Puts the program into the runtime's folder of plugins, or upgrades it there.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example, and back:
  nodeplug-cni validate /etc/cni/net.d/10-pods.conflist     # what would be refused
  nodeplug-cni install --as-reference /opt/cni/bin
  nodeplug-cni uninstall /opt/cni/bin

The programs that had the names are kept in DIR/.nodeplug-originals. Running pods are not touched.")]
pub struct Install {
    /// Under the reference plugins' names as well: bridge, ptp, host-local, portmap …
    #[arg(long)]
    pub as_reference: bool,
    /// Of the reference's names, only these.
    #[arg(long, value_delimiter = ',', requires = "as_reference", value_name = "NAME",
        value_parser = PossibleValuesParser::new(REFERENCE.map(|(name, _)| name)))]
    pub only: Vec<String>,
    /// The program to install.
    #[arg(long, hide = true, default_value = OURSELVES)]
    pub from: PathBuf,
    /// The folder, usually /opt/cni/bin.
    pub dir: PathBuf,
}

/// Takes the program out of the folder and brings back what had the names before.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  nodeplug-cni uninstall /opt/cni/bin
  nodeplug-cni uninstall --only bridge,host-local /opt/cni/bin")]
pub struct Uninstall {
    /// Only these names.
    #[arg(long, value_delimiter = ',', value_name = "NAME",
        value_parser = PossibleValuesParser::new(REFERENCE.map(|(name, _)| name).into_iter().chain([OWN])))]
    pub only: Vec<String>,
    /// The folder, usually /opt/cni/bin.
    pub dir: PathBuf,
}

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// This program, in any version.
    Ours,
    /// Another program.
    Theirs,
}

/// Installs under all names or, where something is wrong, under none.
///
/// Errors: [`Kind::Config`] where others may write the folder, [`Kind::Conflict`] where a name is no
/// file's, [`Kind::Mismatch`] where the program answers wrongly.
pub fn install(wish: &Install) -> Result<Report> {
    let folder = Folder::lock(&wish.dir)?;
    sweep(&folder)?;
    let names = names(&wish.only, wish.as_reference);
    let mut rows = Vec::with_capacity(names.len());
    for name in &names {
        rows.push((*name, planned(&wish.from, &folder, name)?));
    }
    let result = perform(wish, &folder, &rows);
    if result.is_err() {
        // What stays is hidden, and the next install removes it.
        let _ = sweep(&folder);
    }
    let kept = Originals::of(&folder)?;
    result.map(|()| Report {
        folder: wish.dir.clone(),
        names: rows.into_iter().map(|(name, outcome)| Row::new(name, outcome, kept.path_of(name))).collect(),
        notes: Vec::new(),
    })
}

/// Brings the originals back. Names that had no program before have none after.
pub fn uninstall(wish: &Uninstall) -> Result<Report> {
    let folder = Folder::lock(&wish.dir)?;
    sweep(&folder)?;
    let kept = Originals::of(&folder)?;
    let mut report = Report { folder: wish.dir.clone(), ..Report::default() };
    // The program's own name last: it is what a killed uninstall is begun again with.
    for name in names(&wish.only, wish.only.is_empty()).into_iter().rev() {
        if name == OWN && !wish.only.is_empty() && !wish.only.iter().any(|n| n == OWN) {
            continue;
        }
        let outcome = give_up(&folder, &kept, name, &mut report.notes)?;
        report.names.push(Row::new(name, outcome, None));
    }
    kept.remove_if_empty()?;
    folder.sync()?;
    report.names.reverse();
    Ok(report)
}

/// Removes what killed installs left of any name.
fn sweep(folder: &Folder) -> Result<()> {
    names(&[], true).into_iter().try_for_each(|name| folder.sweep(name))
}

/// The program's own name, and those of the reference that are meant.
fn names(only: &[String], reference: bool) -> Vec<&'static str> {
    let meant = |name: &str| (reference && only.is_empty()) || only.iter().any(|n| n == name);
    let theirs = REFERENCE.iter().map(|(name, _)| *name).filter(|name| meant(name));
    std::iter::once(OWN).chain(theirs).collect()
}

fn planned(from: &Path, folder: &Folder, name: &str) -> Result<Outcome> {
    let path = folder.path().join(name);
    Ok(match there(folder, name)? {
        There::Nothing => Outcome::Installed,
        There::Theirs => Outcome::Replaced,
        There::Ours if install::is_same(from, &path, MODE)? && are_one(&path, &folder.path().join(OWN))? => {
            Outcome::Unchanged
        }
        There::Ours => Outcome::Upgraded,
    })
}

/// Whether both are names of one file.
fn are_one(path: &Path, other: &Path) -> Result<bool> {
    let of = |path: &Path| fs::symlink_metadata(path).map(|a| (a.dev(), a.ino()));
    match (of(path), of(other)) {
        (Ok(one), Ok(two)) => Ok(one == two),
        (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        (Err(e), _) | (_, Err(e)) => Err(e).doing(Kind::Io, || format!("look at `{}`", path.display())),
    }
}

/// Makes and asks everything while it is hidden, keeps what has the names, and only then gives them.
fn perform(wish: &Install, folder: &Folder, rows: &[(&'static str, Outcome)]) -> Result<()> {
    let hidden = |name: &str| folder.path().join(format!(".{name}.new"));
    let mut twin = folder.path().join(OWN);
    let due = || rows.iter().filter(|(_, outcome)| *outcome != Outcome::Unchanged);
    for (name, _) in due() {
        let new = hidden(name);
        // All names are one file: the program's pages are in memory once.
        let of = Some(twin.as_path()).filter(|_| *name != OWN);
        install::write(&wish.from, of, &new, MODE)?;
        if *name == OWN {
            twin.clone_from(&new);
        }
        probe::version(&new, name)?;
    }
    let kept = Originals::of(folder)?;
    for (name, _) in due().filter(|(_, outcome)| *outcome == Outcome::Replaced) {
        kept.keep(name)?;
    }
    for (name, _) in due() {
        let path = folder.path().join(name);
        fs::rename(hidden(name), &path)
            .doing(Kind::Io, || format!("replace `{}`", path.display()))
            .map_err(|e| e.hint("every name is a whole program: run the same command again"))?;
    }
    folder.sync()
}

fn give_up(folder: &Folder, kept: &Originals, name: &str, notes: &mut Vec<String>) -> Result<Outcome> {
    let path = folder.path().join(name);
    let original = kept.path_of(name);
    Ok(match (there(folder, name)?, original) {
        (There::Theirs, Some(same)) if are_one(&same, &path)? => {
            // An install was killed before it gave the name.
            kept.drop(name)?;
            Outcome::Kept
        }
        (There::Theirs, original) => {
            let what = format!("`{}` is another program by now and stays", path.display());
            let more = if original.is_some() { "; the one that it had replaced is dropped" } else { "" };
            notes.push(format!("{what}{more}"));
            kept.drop(name)?;
            Outcome::Kept
        }
        (_, Some(_)) => {
            kept.bring_back(name)?;
            Outcome::Restored
        }
        (There::Ours, None) => {
            store::remove(&path)?;
            Outcome::Removed
        }
        (There::Nothing, None) => Outcome::Absent,
    })
}

fn there(folder: &Folder, name: &str) -> Result<There> {
    let path = folder.path().join(name);
    let about = match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        other => other.doing(Kind::Io, || format!("look at `{}`", path.display()))?,
    };
    if !about.is_file() && !about.is_symlink() {
        return Err(Error::new(
            Kind::Conflict,
            format!("use the name `{}`, which is no file's", path.display()),
        )
        .hint("move it away"));
    }
    Ok(if is_ours(&path)? { There::Ours } else { There::Theirs })
}

/// Whether a file is this program, in any version.
pub(crate) fn is_ours(path: &Path) -> Result<bool> {
    let bytes = match fs::read(path) {
        // A link to nowhere is somebody's all the same.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.doing(Kind::Io, || format!("read `{}`", path.display()))?,
    };
    let mark = black_box(&MARK);
    Ok(bytes.windows(mark.len()).any(|window| window == mark))
}

#[cfg(test)]
mod tests;
