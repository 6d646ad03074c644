//! `uninstall`: the network first, so that no new pod asks for it, and the program last.

use std::path::Path;

use node::install::Folder;
use node::{Result, stay};

use super::originals::Originals;
use super::place::{self, Place, Told};
use super::record::Record;
use super::report::{Outcome, Report, Row};
use super::{Uninstall, living, names, network};
use crate::role::OWN;
use crate::runtime::lists;

const LET_GO: &str = "a process that keeps it installed (`--stay`) was told to let go; it installs again when it is \
     started anew: delete its DaemonSet";

/// Takes away what an install made and brings the originals back. Names that had no program before have none after.
///
/// Errors: [`node::Kind::Conflict`] while pods need the program, but for `force`.
pub fn uninstall(wish: &Uninstall) -> Result<Report> {
    let root = wish.root.as_deref().unwrap_or(Path::new("/"));
    let record = Record::load(root)?;
    let place = place_of(wish, root, record.as_ref())?;
    let whole = wish.only.is_empty();
    let with_own = whole || wish.only.iter().any(|name| name == OWN);
    if with_own && !wish.force {
        living::none_left(root)?;
    }
    let mut report = Report { folder: place.bin_here(), why: place.why.clone(), ..Report::default() };
    // Of another folder it is another install's.
    let is_last = whole && record.as_ref().is_none_or(|record| record.folder == place.bin);
    let mut record = record.filter(|_| is_last);
    let here = place.bin_here();
    // A folder that nobody named may be gone already.
    let folder = if here.exists() || wish.dir.is_some() { Some(Folder::lock(&here)?) } else { None };
    if let Some(folder) = folder.as_ref().filter(|_| with_own) {
        // Whoever stays shall put nothing back.
        if stay::dismiss(folder.path(), OWN)? {
            report.notes.push(LET_GO.to_owned());
        }
    }
    if let Some(record) = &mut record {
        networks(&place, record, &mut report)?;
    }
    match &folder {
        Some(folder) => programs(wish, folder, with_own, &mut report)?,
        None => report.notes.push(format!("`{}` is not there", here.display())),
    }
    drop(folder);
    if is_last {
        Record::remove(root)?;
    }
    for made in record.iter().flat_map(|record| record.made.iter().rev()) {
        // What is not empty is somebody's.
        let _ = std::fs::remove_dir(place.here(made));
    }
    if with_own {
        report.notes.extend(orphans(&place)?);
    }
    Ok(report)
}

/// A folder that is told, or the one that an install took, or the runtime's.
fn place_of(wish: &Uninstall, root: &Path, record: Option<&Record>) -> Result<Place> {
    let recorded = record.map(|record| record.folder.as_path());
    // Whatever the runtime uses by now: what was made is to go.
    let bin = wish.dir.as_deref().or(recorded);
    let told = Told { bin, conf: wish.conf_dir.as_deref(), unseen: false, force: true };
    let mut place = place::choose(root, told)?;
    if wish.dir.is_none() && recorded.is_some() {
        "where it was installed".clone_into(&mut place.why);
    }
    place.notes.clear();
    Ok(place)
}

fn networks(place: &Place, record: &mut Record, report: &mut Report) -> Result<()> {
    let paths: Vec<_> = record.conflists.keys().cloned().collect();
    for path in paths {
        let here = place.here(&path);
        let was_there = here.exists();
        let note = network::take_away(place, &path, record)?;
        if was_there && note.is_none() {
            report.notes.push(format!("removed `{}`", here.display()));
        }
        report.notes.extend(note);
    }
    record.save(&place.root)
}

fn programs(wish: &Uninstall, folder: &Folder, with_own: bool, report: &mut Report) -> Result<()> {
    names::sweep(folder)?;
    let kept = Originals::of(folder)?;
    // The program's own name last: it is what a killed uninstall is begun again with.
    for name in names::meant(&wish.only, wish.only.is_empty()).into_iter().rev() {
        if name == OWN && !with_own {
            continue;
        }
        let outcome = names::give_up(folder, &kept, name, &mut report.notes)?;
        // Of all names most were never taken.
        if outcome != Outcome::Absent || name == OWN || !wish.only.is_empty() {
            report.names.push(Row::new(name, outcome, None));
        }
    }
    kept.remove_if_empty()?;
    folder.sync()?;
    report.names.reverse();
    Ok(())
}

/// Networks of the runtime's folder that call a program which is not there any more.
fn orphans(place: &Place) -> Result<Vec<String>> {
    let networks = lists::list(&place.here(&place.conf))?;
    let orphans = networks.into_iter().filter(|network| network.types.iter().any(|kind| kind == OWN));
    let path = |network: &lists::Network| place.conf.join(&network.file).display().to_string();
    let line =
        |network| format!("`{}` still calls `{OWN}`: pods wait until it is moved away", path(&network));
    Ok(orphans.map(line).collect())
}
