//! The programs that had the reference's names, kept in a hidden folder beside them: no runtime looks for a
//! plugin there, and on the same file system a rename brings one back.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use node::install::{self, Folder};
use node::{Context, Error, Kind, Result, store};

/// Below the folder of plugins.
pub(crate) const NAME: &str = ".nodeplug-originals";

/// The hidden folder.
#[derive(Debug)]
pub(super) struct Originals {
    /// The folder of plugins.
    plugins: PathBuf,
    folder: PathBuf,
    /// Nobody else works in it. `None` where it does not exist.
    handle: Option<Folder>,
}

impl Originals {
    /// Those of a folder that is locked. [`Kind::Config`] where others could put programs there.
    pub(super) fn of(plugins: &Folder) -> Result<Self> {
        let plugins = plugins.path().to_owned();
        let folder = plugins.join(NAME);
        let handle = match fs::symlink_metadata(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Ok(about) if !about.is_dir() => {
                let what = format!("keep programs in `{}`, which is no folder", folder.display());
                return Err(Error::new(Kind::Conflict, what).hint("move it away"));
            }
            other => {
                other.doing(Kind::Io, || format!("look at `{}`", folder.display()))?;
                Some(Folder::lock(&folder)?)
            }
        };
        Ok(Self { plugins, folder, handle })
    }

    /// Where the original of a name is kept; `None` where there is none.
    pub(super) fn path_of(&self, name: &str) -> Option<PathBuf> {
        let path = self.folder.join(name);
        fs::symlink_metadata(&path).is_ok().then_some(path)
    }

    /// Keeps what has the name now, in place of an older one: the package was upgraded meanwhile. It must not
    /// be this program.
    pub(super) fn keep(&self, name: &str) -> Result<()> {
        let (from, to) = (self.plugins.join(name), self.folder.join(name));
        let new = self.folder.join(format!(".{name}.new"));
        let doing = || format!("keep `{}` as `{}`", from.display(), to.display());
        match fs::DirBuilder::new().mode(0o755).create(&self.folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).doing(Kind::Io, doing),
            _ => {}
        }
        store::remove(&new)?;
        // A symbolic link is kept as one.
        if fs::hard_link(&from, &new).is_err() {
            let about = fs::symlink_metadata(&from).doing(Kind::Io, doing)?;
            if about.is_symlink() {
                let target = fs::read_link(&from).doing(Kind::Io, doing)?;
                std::os::unix::fs::symlink(target, &new).doing(Kind::Io, doing)?;
            } else {
                install::write(&from, None, &new, about.mode() & 0o7777)?;
            }
        }
        // Two names of one file: rename(2) would leave both.
        store::remove(&to)?;
        fs::rename(&new, &to).doing(Kind::Io, doing)?;
        self.sync()
    }

    /// Gives the name back to its original.
    pub(super) fn bring_back(&self, name: &str) -> Result<()> {
        let (from, to) = (self.folder.join(name), self.plugins.join(name));
        fs::rename(&from, &to)
            .doing(Kind::Io, || format!("bring `{}` back to `{}`", from.display(), to.display()))
    }

    /// Drops the original of a name.
    pub(super) fn drop(&self, name: &str) -> Result<()> {
        store::remove(&self.folder.join(name))
    }

    /// Removes the folder when it holds nothing any more, but for what killed installs left.
    pub(super) fn remove_if_empty(&self) -> Result<()> {
        let names = store::names(&self.folder)?;
        if names.iter().any(|name| !name.starts_with('.')) {
            return Ok(());
        }
        for name in names {
            store::remove(&self.folder.join(name))?;
        }
        match fs::remove_dir(&self.folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).doing(Kind::Io, || format!("remove the folder `{}`", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<()> {
        match &self.handle {
            Some(handle) => handle.sync(),
            None => Folder::lock(&self.folder)?.sync(),
        }
    }
}
