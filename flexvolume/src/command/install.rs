//! `install` and `uninstall`: the driver in the kubelet's plugin folder.
//!
//! The kubelet watches that folder and execs whatever appears there with `init`, while every volume of the
//! node waits. So it must never see a folder without its driver, half a driver, or one that answers
//! wrongly: everything is made hidden, asked for `init` there, renamed, and asked again.
//! Nothing here execs any program but the driver itself.

mod change;
pub(crate) mod find;
mod kubelet;
mod mounted;
pub(crate) mod plan;
pub(crate) mod probe;
mod report;
mod staying;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod uninstall;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use node::install::Folder;
use node::{Context, Error, Kind, Result};

use change::{Applied, Change};
use plan::{Driver, Step};
pub use report::{Outcome, Report, Row};
pub use staying::run as stay;
pub use uninstall::{Uninstall, uninstall};

/// The first part of the driver's name.
pub(crate) const VENDOR: &str = "nodeplug";
/// This program, even where its file was replaced or removed since it started (proc_pid_exe(5)).
pub(crate) const OURSELVES: &str = "/proc/self/exe";
/// The second part of the names: `volume` for all backends by an option, then each of them.
pub const NAMES: [&str; 9] = ["volume", "tmpfs", "bind", "image", "overlay", "block", "nfs", "cifs", "fuse"];

/// By this, an installed file of any version is known as this driver without running it; so it never changes.
#[used]
static MARK: [u8; 44] = *b"nodeplug-flexvolume: this file is the driver";

/// Where drivers are, and which.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The kubelet's folder of volume plugins [default: the running kubelet's, else what the node has]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// The first part of the drivers' names: VENDOR/tmpfs, VENDOR/nfs …
    #[arg(long, default_value = VENDOR)]
    pub vendor: String,
    /// Only these drivers: `volume` (any backend, by an option) or a backend's name.
    #[arg(long, value_delimiter = ',', default_values = NAMES)]
    pub backends: Vec<String>,
    /// The node's root folder, where it is mounted elsewhere or not booted; all other paths lie below it.
    #[arg(long)]
    pub root: Option<PathBuf>,
}

/// Puts the driver into the kubelet's plugin folder, or upgrades it there.
#[derive(Debug, Clone, Args)]
pub struct Install {
    /// Where, and which.
    #[command(flatten)]
    pub place: Place,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Replace a driver of this name that is another program, and take a --dir that no kubelet looks into.
    #[arg(long)]
    pub force: bool,
    /// Stay until SIGTERM, and put back what others take away.
    #[arg(long, conflicts_with = "dry_run")]
    pub stay: bool,
    /// The program to install.
    #[arg(long, hide = true, default_value = OURSELVES)]
    pub from: PathBuf,
}

/// Installs all of the drivers or none: after an error everything is as it was.
///
/// Errors: [`Kind::Usage`] for a name that is no driver's, [`Kind::Config`] where the folder is not
/// certain or others may write it, [`Kind::Conflict`] where another program has the name,
/// [`Kind::Mismatch`] where the driver answers `init` wrongly.
pub fn install(wish: &Install) -> Result<Report> {
    refuse_foreign(wish)?;
    let done = install_unless(wish, &|| false)?;
    done.ok_or_else(|| Error::new(Kind::Internal, "install without an end"))
}

/// Only before the first one: what `--force` said of the folder holds as long as the process stays.
fn refuse_foreign(wish: &Install) -> Result<()> {
    let root = wish.place.root.as_deref().unwrap_or(Path::new("/"));
    match &wish.place.dir {
        Some(told) if told.is_absolute() && !wish.force => find::refuse_foreign(told, root),
        _ => Ok(()),
    }
}

/// The same. `None` where it was called off before the folder was this install's alone.
fn install_unless(wish: &Install, called_off: &dyn Fn() -> bool) -> Result<Option<Report>> {
    let (plugins, mut report) = open(&wish.place, wish.dry_run)?;
    let drivers = plan::drivers(&wish.place, &plugins)?;
    if wish.dry_run {
        let steps = plan::install(&drivers, &wish.from, wish.force)?;
        report.drivers = drivers.iter().zip(&steps).map(|(d, s)| row(d, *s, false)).collect();
        return Ok(Some(report));
    }
    if !plugins.is_dir() {
        make(&plugins)?;
        report.notes.push(format!("made `{}`, which was not there", plugins.display()));
    }
    let folder = Folder::lock(&plugins)?;
    if called_off() {
        return Ok(None);
    }
    for driver in &drivers {
        change::sweep(driver)?;
    }
    let steps = plan::install(&drivers, &wish.from, wish.force)?;
    perform(&drivers, &steps, &wish.from, &folder)?;
    report.drivers = drivers.iter().zip(&steps).map(|(d, s)| row(d, *s, true)).collect();
    Ok(Some(report))
}

/// The plugin folder as this process reaches it, and the report's beginning.
fn open(place: &Place, dry_run: bool) -> Result<(PathBuf, Report)> {
    let root = place.root.as_deref().unwrap_or(Path::new("/"));
    let choice = find::folder(place.dir.as_deref(), root, &place.vendor)?;
    let plugins = find::below(root, &choice.folder);
    let report =
        Report { folder: plugins.clone(), why: choice.why, dry_run, drivers: vec![], notes: choice.notes };
    Ok((plugins, report))
}

fn make(plugins: &Path) -> Result<()> {
    fs::create_dir_all(plugins).doing(Kind::Io, || format!("make the folder `{}`", plugins.display())).map_err(
        |e| match e.errno() {
            Some(libc::EROFS) => e.hint(
                "this file system is read-only: set volumePluginDir in the kubelet's configuration to a folder \
                 that is not, such as /var/lib/kubelet/volumeplugins, and restart it",
            ),
            _ => e,
        },
    )
}

/// Stages everything and asks it for `init` while it is hidden; then shows it, one driver after the other.
fn perform(drivers: &[Driver], steps: &[Step], from: &Path, folder: &Folder) -> Result<()> {
    let mut changes: Vec<Change> = Vec::with_capacity(drivers.len());
    for (driver, step) in drivers.iter().zip(steps) {
        // All drivers are one program: names of one file.
        let twin = changes.first().map(Change::program);
        let change = Change::stage(driver, *step, from, twin.as_deref())?;
        probe::init(&change.program())?;
        changes.push(change);
    }
    let mut done = Vec::with_capacity(changes.len());
    for (driver, change) in drivers.iter().zip(changes) {
        if let Err(error) = show(change, driver, folder, &mut done) {
            return Err(take_back(done, folder, error));
        }
    }
    done.into_iter().try_for_each(Applied::finish)
}

fn show(change: Change, driver: &Driver, folder: &Folder, done: &mut Vec<Applied>) -> Result<()> {
    done.push(change.apply()?);
    folder.sync()?;
    probe::init(&driver.program)
}

/// The inverses, last first. The first error leads, what the clean-up met is added to its hint.
fn take_back(done: Vec<Applied>, folder: &Folder, first: Box<Error>) -> Box<Error> {
    let met: Vec<String> = done
        .into_iter()
        .rev()
        .map(Applied::take_back)
        .chain([folder.sync()])
        .filter_map(|result| result.err().map(|e| e.chain()))
        .collect();
    let advice = first.advice().map_or_else(String::new, |h| format!("{h}; "));
    if met.is_empty() {
        first.hint(format!("{advice}everything is as it was before"))
    } else {
        first.hint(format!("{advice}the clean-up met: {}", met.join(", ")))
    }
}

fn row(driver: &Driver, step: Step, asked: bool) -> Row {
    let outcome = match step {
        Step::Keep => Outcome::Unchanged,
        Step::MakeFolder | Step::Fill => Outcome::Installed,
        Step::Replace => Outcome::Replaced,
    };
    Row { driver: driver.title.clone(), outcome, answers: asked, path: driver.program.clone() }
}
