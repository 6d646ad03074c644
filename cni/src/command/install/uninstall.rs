//! `uninstall`: the network first, so that no new pod asks for it, and the program last.

use std::path::{Path, PathBuf};

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
    let mut report = Report {
        folder: place.bin_here(),
        why: place.why.clone(),
        dry_run: wish.dry_run,
        ..Report::default()
    };
    // Of another folder it is another install's.
    let is_last = whole && record.as_ref().is_none_or(|record| record.folder == place.bin);
    let mut record = record.filter(|_| is_last);
    let here = place.bin_here();
    // A folder that nobody named may be gone already.
    let folder = if here.exists() || wish.dir.is_some() { Some(Folder::lock(&here)?) } else { None };
    if let Some(folder) = folder.as_ref().filter(|_| with_own && !wish.dry_run) {
        // Whoever stays shall put nothing back.
        if stay::dismiss(folder.path(), OWN)? {
            report.notes.push(LET_GO.to_owned());
        }
    }
    let mut made = Vec::new();
    if let Some(record) = &mut record {
        made = networks(&place, record, wish.dry_run, &mut report)?;
    }
    match &folder {
        Some(folder) => programs(wish, folder, with_own, &mut report)?,
        None => report.notes.push(format!("`{}` is not there", here.display())),
    }
    drop(folder);
    if is_last && !wish.dry_run {
        Record::remove(root)?;
        for made in record.iter().flat_map(|record| record.made.iter().rev()) {
            // What is not empty is somebody's.
            let _ = std::fs::remove_dir(place.here(made));
        }
    }
    if with_own {
        report.notes.extend(orphans(&place, &made)?);
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

/// Takes the networks away that an install made; the answer is those that went, or would.
fn networks(place: &Place, record: &mut Record, dry_run: bool, report: &mut Report) -> Result<Vec<PathBuf>> {
    let mut gone = Vec::new();
    let paths: Vec<_> = record.conflists.keys().cloned().collect();
    for path in paths {
        let here = place.here(&path);
        let was_there = here.exists();
        if network::is_ours(place, &path, record)? {
            if was_there {
                report.notes.push(format!("removed `{}`", here.display()));
            }
            gone.push(path.clone());
        } else {
            report.notes.push(network::changed(&here));
        }
        if !dry_run {
            network::take_away(place, &path, record)?;
        }
    }
    if !dry_run {
        record.save(&place.root)?;
    }
    Ok(gone)
}

fn programs(wish: &Uninstall, folder: &Folder, with_own: bool, report: &mut Report) -> Result<()> {
    if !wish.dry_run {
        names::sweep(folder)?;
    }
    let kept = Originals::of(folder)?;
    // The program's own name last: it is what a killed uninstall is begun again with.
    for name in names::meant(&wish.only, wish.only.is_empty()).into_iter().rev() {
        if name == OWN && !with_own {
            continue;
        }
        // Of all names most were never taken.
        let asked = name == OWN || !wish.only.is_empty();
        let outcome = names::fate(folder, &kept, name, asked)?;
        report.notes.extend(names::remark(folder, &kept, name, outcome)?);
        if !wish.dry_run {
            names::give_up(folder, &kept, name, outcome)?;
        }
        if outcome != Outcome::Absent || asked {
            report.names.push(Row::new(name, outcome, None));
        }
    }
    report.names.reverse();
    if wish.dry_run {
        return Ok(());
    }
    kept.remove_if_empty()?;
    folder.sync()
}

/// Networks of the runtime's folder, but for the `gone` ones, that call a program which is not there any more.
fn orphans(place: &Place, gone: &[PathBuf]) -> Result<Vec<String>> {
    let networks = lists::list(&place.here(&place.conf))?;
    let orphans = networks.into_iter().filter(|network| network.types.iter().any(|kind| kind == OWN));
    let paths = orphans.map(|network| place.conf.join(&network.file)).filter(|path| !gone.contains(path));
    let line =
        |path: PathBuf| format!("`{}` still calls `{OWN}`: pods wait until it is moved away", path.display());
    Ok(paths.map(line).collect())
}
