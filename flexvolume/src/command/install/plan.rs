//! What has to be done to each driver's folder. Reads the folders, changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use node::install::{self, MODE};
use node::{Context, Error, Kind, Result, store};

use super::{MARK, NAMES, Place};

/// No build of the driver is as large; a larger file is something else.
const LARGEST: u64 = 256 << 20;

/// One driver of a plugin folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Driver {
    /// As pods name it: `nodeplug/tmpfs`.
    pub title: String,
    /// `tmpfs`.
    pub name: String,
    /// `nodeplug~tmpfs`.
    pub folder_name: String,
    /// `<plugin folder>/nodeplug~tmpfs`.
    pub folder: PathBuf,
    /// `<plugin folder>/.nodeplug~tmpfs.new`: the kubelet looks at no name with a dot in front.
    pub hidden: PathBuf,
    /// `<plugin folder>/nodeplug~tmpfs/tmpfs`.
    pub program: PathBuf,
}

/// What is at a driver's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    /// No folder.
    Nothing,
    /// A folder without its driver.
    Folder,
    /// This program, whatever its version.
    Ours {
        /// With the bytes and the mode that it would get.
        same: bool,
    },
    /// Something else.
    Stranger,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is there already.
    Keep,
    /// Make the folder with the driver in it, by one rename.
    MakeFolder,
    /// Rename the driver into the folder that is there.
    Fill,
    /// Rename the driver over the one that is there.
    Replace,
}

/// The drivers that were asked for.
pub(super) fn drivers(place: &Place, plugins: &Path) -> Result<Vec<Driver>> {
    let vendor = &place.vendor;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if vendor.is_empty() || vendor.starts_with(['.', '-']) || !vendor.chars().all(plain) {
        return Err(Error::new(Kind::Usage, format!("use the vendor `{vendor}`"))
            .hint("a vendor is a domain name in lower case, such as `example.com`"));
    }
    let mut drivers = Vec::with_capacity(place.backends.len());
    for name in &place.backends {
        if !NAMES.contains(&name.as_str()) {
            return Err(Error::new(Kind::Usage, format!("install the backend `{name}`"))
                .hint(format!("the names are {}", NAMES.join(", "))));
        }
        let driver = driver(plugins, vendor, name);
        if !drivers.contains(&driver) {
            drivers.push(driver);
        }
    }
    Ok(drivers)
}

/// One by its name.
pub(crate) fn driver(plugins: &Path, vendor: &str, name: &str) -> Driver {
    let folder_name = format!("{vendor}~{name}");
    let folder = plugins.join(&folder_name);
    Driver {
        title: format!("{vendor}/{name}"),
        name: name.to_owned(),
        hidden: plugins.join(format!(".{folder_name}.new")),
        program: folder.join(name),
        folder,
        folder_name,
    }
}

/// A step for each driver.
pub(super) fn install(drivers: &[Driver], from: &Path, force: bool) -> Result<Vec<Step>> {
    drivers.iter().map(|driver| step(driver, look(driver, from)?, force)).collect()
}

fn step(driver: &Driver, there: There, force: bool) -> Result<Step> {
    match there {
        There::Nothing => Ok(Step::MakeFolder),
        There::Folder => Ok(Step::Fill),
        There::Ours { same: true } => Ok(Step::Keep),
        There::Ours { same: false } => Ok(Step::Replace),
        There::Stranger if force => Ok(Step::Replace),
        There::Stranger => Err(stranger(driver, "install")
            .hint("another program serves this driver: choose another --vendor, or replace it with --force")),
    }
}

/// The error of a driver that is another program.
pub(super) fn stranger(driver: &Driver, verb: &str) -> Box<Error> {
    let why = format!("`{}` is not nodeplug-flexvolume", driver.program.display());
    Error::caused(Kind::Conflict, format!("{verb} `{}`", driver.title), why)
}

/// What is there now.
pub(crate) fn look(driver: &Driver, from: &Path) -> Result<There> {
    match kind(&driver.folder)? {
        None => return Ok(There::Nothing),
        Some(about) if about.is_dir() => {}
        Some(_) => {
            let shown = driver.folder.display();
            return Err(Error::new(Kind::Conflict, format!("use `{shown}` as a driver's folder"))
                .hint("the kubelet follows no link here and takes no file: remove it"));
        }
    }
    match kind(&driver.program)? {
        None => Ok(There::Folder),
        Some(about) if !about.is_file() || about.len() > LARGEST => Ok(There::Stranger),
        Some(_) if install::is_same(from, &driver.program, MODE)? => Ok(There::Ours { same: true }),
        Some(_) if is_marked(&driver.program)? => Ok(There::Ours { same: false }),
        Some(_) => Ok(There::Stranger),
    }
}

fn kind(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).doing(Kind::Io, || format!("look at `{}`", path.display())),
    }
}

fn is_marked(path: &Path) -> Result<bool> {
    let bytes = fs::read(path).doing(Kind::Io, || format!("read `{}`", path.display()))?;
    Ok(bytes.windows(MARK.len()).any(|window| window == MARK))
}

/// What lies in a driver's folder besides the driver and what installs leave.
pub(super) fn others(driver: &Driver) -> Result<Vec<String>> {
    let ours = [driver.name.clone(), format!(".{}.new", driver.name), format!(".{}.old", driver.name)];
    Ok(store::names(&driver.folder)?.into_iter().filter(|name| !ours.contains(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_one_step_and_a_stranger_needs_force() {
        let table = [
            (There::Nothing, false, Some(Step::MakeFolder)),
            (There::Folder, false, Some(Step::Fill)),
            (There::Ours { same: true }, false, Some(Step::Keep)),
            (There::Ours { same: true }, true, Some(Step::Keep)),
            (There::Ours { same: false }, false, Some(Step::Replace)),
            (There::Stranger, false, None),
            (There::Stranger, true, Some(Step::Replace)),
        ];
        let driver = driver(Path::new("/p"), "nodeplug", "nfs");
        for (there, force, expect) in table {
            assert_eq!(step(&driver, there, force).ok(), expect, "{there:?} {force}");
        }
    }

    #[test]
    fn names_are_checked_before_anything_is_touched() {
        let place = |vendor: &str, names: &[&str]| Place {
            dir: None,
            vendor: vendor.to_owned(),
            backends: names.iter().map(|n| (*n).to_owned()).collect(),
            root: None,
        };
        let table = [
            ("nodeplug", &["tmpfs", "nfs", "tmpfs"][..], Some(2)),
            ("acme.example.com", &NAMES[..], Some(9)),
            ("", &["nfs"], None),
            ("..", &["nfs"], None),
            ("a/b", &["nfs"], None),
            ("a~b", &["nfs"], None),
            ("A", &["nfs"], None),
            ("nodeplug", &["../nfs"], None),
            ("nodeplug", &["floppy"], None),
        ];
        for (vendor, names, expect) in table {
            let found = drivers(&place(vendor, names), Path::new("/p"));
            assert_eq!(found.as_ref().ok().map(Vec::len), expect, "{vendor} {names:?}");
            if let Err(error) = found {
                assert_eq!(error.kind(), Kind::Usage);
            }
        }
        let driver = driver(Path::new("/p"), "nodeplug", "nfs");
        assert_eq!(driver.program, Path::new("/p/nodeplug~nfs/nfs"));
        assert_eq!(driver.hidden, Path::new("/p/.nodeplug~nfs.new"));
    }
}
