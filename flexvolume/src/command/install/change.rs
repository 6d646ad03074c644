//! The change of one driver's folder, in two halves: made where the kubelet does not look, then shown by
//! one rename.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use node::install::{self, Folder, MODE, Staged, Swapped};
use node::{Context, Kind, Result, store};

use super::plan::{Driver, Step};

/// Complete, and not seen by the kubelet.
#[derive(Debug)]
pub(super) enum Change {
    /// Nothing to do to this program.
    Keep(PathBuf),
    /// A hidden folder with the driver in it.
    Whole(Whole),
    /// A hidden file in the driver's folder.
    File(Staged),
}

/// Seen by the kubelet, and not yet known to serve there.
#[derive(Debug)]
#[must_use = "finish it or take it back"]
pub(super) enum Applied {
    /// Nothing was done.
    Kept,
    /// The folder was renamed.
    Whole(Driver),
    /// The file was renamed.
    File(Swapped),
}

/// A hidden folder; removed when it is dropped before its rename.
#[derive(Debug)]
pub(super) struct Whole {
    driver: Driver,
    shown: bool,
}

impl Change {
    /// Makes it. `twin` is a file that the new one may be another name of.
    pub fn stage(driver: &Driver, step: Step, from: &Path, twin: Option<&Path>) -> Result<Self> {
        match step {
            Step::Keep => Ok(Self::Keep(driver.program.clone())),
            Step::MakeFolder => Whole::stage(driver, from, twin).map(Self::Whole),
            Step::Fill | Step::Replace => {
                let folder = Folder::lock(&driver.folder)?;
                folder.stage(from, twin, &driver.name, MODE).map(Self::File)
            }
        }
    }

    /// The program as it can be run now.
    pub fn program(&self) -> PathBuf {
        match self {
            Self::Keep(program) => program.clone(),
            Self::Whole(whole) => whole.driver.hidden.join(&whole.driver.name),
            Self::File(staged) => staged.path(),
        }
    }

    /// Shows it to the kubelet.
    pub fn apply(self) -> Result<Applied> {
        match self {
            Self::Keep(_) => Ok(Applied::Kept),
            Self::Whole(whole) => whole.show().map(Applied::Whole),
            Self::File(staged) => staged.swap().map(Applied::File),
        }
    }
}

impl Applied {
    /// It serves.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Kept | Self::Whole(_) => Ok(()),
            Self::File(swapped) => swapped.finish(),
        }
    }

    /// It does not serve: makes everything as it was.
    pub fn take_back(self) -> Result<()> {
        match self {
            Self::Kept => Ok(()),
            Self::Whole(driver) => hide(&driver),
            Self::File(swapped) => swapped.take_back(),
        }
    }
}

impl Whole {
    fn stage(driver: &Driver, from: &Path, twin: Option<&Path>) -> Result<Self> {
        let doing = || format!("make the folder `{}`", driver.hidden.display());
        fs::create_dir(&driver.hidden).doing(Kind::Io, doing)?;
        let whole = Self { driver: driver.clone(), shown: false };
        // kube-controller-manager execs it, too, and may be another user; the umask knows nothing of that.
        fs::set_permissions(&driver.hidden, Permissions::from_mode(MODE)).doing(Kind::Io, doing)?;
        install::write(from, twin, &driver.hidden.join(&driver.name), MODE)?;
        File::open(&driver.hidden).and_then(|folder| folder.sync_all()).doing(Kind::Io, doing)?;
        Ok(whole)
    }

    fn show(mut self) -> Result<Driver> {
        let Driver { hidden, folder, .. } = &self.driver;
        fs::rename(hidden, folder)
            .doing(Kind::Io, || format!("rename `{}` to `{}`", hidden.display(), folder.display()))?;
        self.shown = true;
        Ok(self.driver.clone())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.shown {
            // What stays is hidden, and the next install removes it.
            let _ = clear(&self.driver, &self.driver.hidden);
        }
    }
}

/// Removes what killed installs of this driver left.
pub(super) fn sweep(driver: &Driver) -> Result<()> {
    clear(driver, &driver.hidden)?;
    if driver.folder.is_symlink() || !driver.folder.is_dir() {
        return Ok(());
    }
    Folder::lock(&driver.folder)?.sweep(&driver.name)
}

/// Removes the driver and its folder, in this order: to the kubelet a driver that is deleted is gone, and one
/// whose folder was renamed has changed, so that it asks what is not there any more, again and again
/// (pkg/volume/flexvolume/probe.go).
pub(super) fn hide(driver: &Driver) -> Result<()> {
    clear(driver, &driver.folder)
}

/// Removes the driver, what installs leave beside it, and the folder. Never anything else: a folder that
/// holds more stays, and the error names it.
pub(super) fn clear(driver: &Driver, folder: &Path) -> Result<()> {
    for name in [driver.name.clone(), format!(".{}.new", driver.name), format!(".{}.old", driver.name)] {
        store::remove(&folder.join(name))?;
    }
    match fs::remove_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).doing(Kind::Io, || format!("remove the folder `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}
