//! The program under its names: what each name has, and what is done to it.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use node::install::{self, Folder, MODE};
use node::{Context, Error, Kind, Result, store};

use super::originals::Originals;
use super::probe;
use super::report::Outcome;
use crate::role::{OWN, REFERENCE};

/// By this, an installed file of any version is known as this program without running it; so it never
/// changes.
#[used]
static MARK: [u8; 37] = *b"nodeplug-cni: this file is the plugin";
/// Larger than the mark.
const PIECE: usize = 64 << 10;

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// This program, in any version.
    Ours,
    /// Another program.
    Theirs,
}

/// Removes what killed installs left of any name.
pub(super) fn sweep(folder: &Folder) -> Result<()> {
    meant(&[], true).into_iter().try_for_each(|name| folder.sweep(name))
}

/// The program's own name, and those of the reference that are meant.
pub(super) fn meant(only: &[String], reference: bool) -> Vec<&'static str> {
    let meant = |name: &str| (reference && only.is_empty()) || only.iter().any(|n| n == name);
    let theirs = REFERENCE.iter().map(|(name, _)| *name).filter(|name| meant(name));
    std::iter::once(OWN).chain(theirs).collect()
}

/// The reference's names that are this program's already: an upgrade is one of all of them.
pub(super) fn taken(folder: &Path) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for (name, _) in REFERENCE {
        if there(folder, name)? == There::Ours {
            found.push(name);
        }
    }
    Ok(found)
}

/// What an install does to each of the names.
pub(super) fn plan(
    from: &Path,
    folder: &Path,
    names: &[&'static str],
) -> Result<Vec<(&'static str, Outcome)>> {
    let own = folder.join(OWN);
    let same = install::is_same(from, &own, MODE)?;
    let outcome = |name: &&'static str| {
        let path = folder.join(name);
        let outcome = match there(folder, name)? {
            There::Nothing => Outcome::Installed,
            There::Theirs => Outcome::Replaced,
            There::Ours if same && are_one(&path, &own)? => Outcome::Unchanged,
            There::Ours => Outcome::Upgraded,
        };
        Ok((*name, outcome))
    };
    names.iter().map(outcome).collect()
}

/// Whether both are names of one file.
pub(super) fn are_one(path: &Path, other: &Path) -> Result<bool> {
    let of = |path: &Path| fs::symlink_metadata(path).map(|a| (a.dev(), a.ino()));
    match (of(path), of(other)) {
        (Ok(one), Ok(two)) => Ok(one == two),
        (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        (Err(e), _) | (_, Err(e)) => Err(e).doing(Kind::Io, || format!("look at `{}`", path.display())),
    }
}

/// Makes and asks everything while it is hidden, keeps what has the names, gives them, and asks once more where a
/// runtime will.
pub(super) fn perform(from: &Path, folder: &Folder, rows: &[(&'static str, Outcome)]) -> Result<()> {
    let hidden = |name: &str| folder.path().join(format!(".{name}.new"));
    let mut twin = folder.path().join(OWN);
    let due = || rows.iter().filter(|(_, outcome)| *outcome != Outcome::Unchanged);
    for (name, _) in due() {
        let new = hidden(name);
        // All names are one file: the program's pages are in memory once.
        let of = Some(twin.as_path()).filter(|_| *name != OWN);
        install::write(from, of, &new, MODE)?;
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
    folder.sync()?;
    due().try_for_each(|(name, _)| probe::version(&folder.path().join(name), name))
}

/// What an uninstall does to a name. What was never this program's is none of its affair, unless `asked` for by name.
pub(super) fn fate(folder: &Folder, kept: &Originals, name: &str, asked: bool) -> Result<Outcome> {
    Ok(match (there(folder.path(), name)?, kept.path_of(name)) {
        (There::Theirs, None) if !asked => Outcome::Absent,
        (There::Theirs, _) => Outcome::Kept,
        (_, Some(_)) => Outcome::Restored,
        (There::Ours, None) => Outcome::Removed,
        (There::Nothing, None) => Outcome::Absent,
    })
}

/// What a person should know of it, before it is done.
pub(super) fn remark(
    folder: &Folder,
    kept: &Originals,
    name: &str,
    outcome: Outcome,
) -> Result<Option<String>> {
    let path = folder.path().join(name);
    let more = match kept.path_of(name) {
        _ if outcome != Outcome::Kept => return Ok(None),
        // An install was killed before it gave the name.
        Some(same) if are_one(&same, &path)? => return Ok(None),
        Some(_) => "; the one that it had replaced is dropped",
        None => "",
    };
    Ok(Some(format!("`{}` is another program by now and stays{more}", path.display())))
}

/// Takes the program from a name and brings back what had it before.
pub(super) fn give_up(folder: &Folder, kept: &Originals, name: &str, outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Kept => kept.drop(name),
        Outcome::Restored => kept.bring_back(name),
        Outcome::Removed => store::remove(&folder.path().join(name)),
        _ => Ok(()),
    }
}

fn there(folder: &Path, name: &str) -> Result<There> {
    let path = folder.join(name);
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
    let doing = || format!("read `{}`", path.display());
    let mut file = match File::open(path) {
        // A link to nowhere is somebody's all the same.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.doing(Kind::Io, doing)?,
    };
    let mark = black_box(&MARK);
    let mut window = Vec::with_capacity(2 * PIECE);
    loop {
        // The mark may stand across two pieces.
        let kept = window.len().saturating_sub(mark.len());
        window.drain(..kept);
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut window).doing(Kind::Io, doing)?;
        if window.windows(mark.len()).any(|bytes| bytes == mark) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
    }
}
