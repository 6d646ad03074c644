//! `uninstall`: the drivers go, and their folders after them.

use std::path::{Path, PathBuf};

use clap::Args;
use node::install::Folder;
use node::{Error, Kind, Result, stay, store};

use super::plan::{self, Driver, There};
use super::{OURSELVES, Outcome, Place, Report, Row, change, find, kubelet, mounted, open, staying};

/// How many volumes an error names.
const SHOWN: usize = 5;
const LET_GO: &str = "a process that keeps them installed (`--stay`) was told to let go; it installs again when it is \
     started anew: delete its DaemonSet";

/// Takes the driver out of the kubelet's plugin folder.
#[derive(Debug, Clone, Args)]
pub struct Uninstall {
    /// Where, and which.
    #[command(flatten)]
    pub place: Place,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Although volumes are mounted, which the kubelet cannot unmount without the driver.
    #[arg(long)]
    pub force: bool,
    /// A program that counts as this one.
    #[arg(long, hide = true, default_value = OURSELVES)]
    pub from: PathBuf,
}

/// Removes the drivers that are this program, and nothing else. What is not there is removed already.
///
/// Errors, all before anything is removed: [`Kind::Conflict`] where another program has a driver's name or
/// a volume is mounted, else as [`install`](super::install).
pub fn uninstall(wish: &Uninstall) -> Result<Report> {
    let (plugins, mut report) = open(&wish.place, wish.dry_run)?;
    let drivers = plan::drivers(&wish.place, &plugins)?;
    let lock = if wish.dry_run || !plugins.is_dir() { None } else { Some(Folder::lock(&plugins)?) };
    let there = drivers.iter().map(|driver| plan::look(driver, &wish.from)).collect::<Result<Vec<_>>>()?;
    refuse_strangers(&drivers, &there)?;
    if !wish.force {
        refuse_mounted(&wish.place, &drivers)?;
    }
    if let Some(folder) = &lock {
        // Whoever stays shall put nothing back.
        if stay::dismiss(folder.path(), staying::PROGRAM)? {
            report.notes.push(LET_GO.to_owned());
        }
    }
    for (driver, there) in drivers.iter().zip(there) {
        if !wish.dry_run {
            change::sweep(driver)?;
            report.notes.extend(remove(driver, there)?);
        }
        let outcome = if there == There::Nothing { Outcome::Absent } else { Outcome::Removed };
        let row = Row { driver: driver.title.clone(), outcome, answers: false, path: driver.program.clone() };
        report.drivers.push(row);
    }
    Ok(report)
}

/// A note where something stays. A folder without its driver is one that the kubelet complains about.
fn remove(driver: &Driver, there: There) -> Result<Option<String>> {
    if there == There::Nothing {
        return Ok(None);
    }
    let others = plan::others(driver)?;
    if others.is_empty() {
        match change::hide(driver) {
            Ok(()) => return Ok(None),
            // Mounted into this container by itself: only its content can go.
            Err(e) if matches!(e.errno(), Some(libc::EBUSY | libc::EXDEV)) => {}
            Err(e) => return Err(e),
        }
    }
    store::remove(&driver.program)?;
    let why =
        if others.is_empty() { "is a mount".to_owned() } else { format!("holds {}", others.join(", ")) };
    Ok(Some(format!(
        "`{}` stays, for it {why}; the kubelet complains until it is removed",
        driver.folder.display()
    )))
}

fn refuse_strangers(drivers: &[Driver], there: &[There]) -> Result<()> {
    match drivers.iter().zip(there).find(|(_, there)| **there == There::Stranger) {
        Some((driver, _)) => Err(plan::stranger(driver, "uninstall")
            .hint("it is not removed: choose the right --vendor, or leave it out of --backends")),
        None => Ok(()),
    }
}

fn refuse_mounted(place: &Place, drivers: &[Driver]) -> Result<()> {
    let root = place.root.as_deref().unwrap_or(Path::new("/"));
    let proc = find::below(root, Path::new("/proc"));
    let kubelets: Vec<u32> = kubelet::running(root, &proc)?.iter().map(|kubelet| kubelet.pid).collect();
    let mut volumes = Vec::new();
    for driver in drivers {
        volumes.extend(mounted::volumes(&kubelets, &proc, &driver.folder_name)?);
    }
    if volumes.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = volumes.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    let more = volumes.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let why = format!("its volumes are mounted: {}{more}", shown.join(", "));
    Err(Error::caused(Kind::Conflict, "uninstall the driver", why).hint(
        "delete their pods first, for the kubelet cannot unmount them without the driver; --force does it although",
    ))
}
