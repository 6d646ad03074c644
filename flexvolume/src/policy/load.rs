//! Reads the policy's file, and trusts it only when nobody but root could have written it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use node::{Context, Error, Kind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::Policy;

/// Where the policy is.
pub const PATH: &str = "/etc/nodeplug/flexvolume.yaml";

/// A policy is a page or two.
const MOST: u64 = 1 << 20;

impl Policy {
    /// Reads [`PATH`]; when there is no such file, the default. Anything else that keeps it from being read
    /// and trusted is an error, so that a broken file never widens what is allowed.
    pub fn load() -> Result<Self> {
        match read(Path::new(PATH), 0)? {
            Some(text) => Self::parse(&text),
            None => Ok(Self::default()),
        }
    }
}

/// The text of the file; `owner` is who has to own it and its folder.
pub(super) fn read(path: &Path, owner: u32) -> Result<Option<String>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Some(opened) = open(CWD, folder, folder, flags)? else { return Ok(None) };
    trusted(folder, &status(folder, &opened)?, owner, FileType::Directory)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let name = Path::new(path.file_name().unwrap_or_default());
    let Some(opened) = open(&opened, name, path, flags)? else { return Ok(None) };
    let stat = status(path, &opened)?;
    trusted(path, &stat, owner, FileType::RegularFile)?;
    // One read takes it whole.
    let mut text = String::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).clamp(1024, 1 << 16));
    let read = File::from(opened).take(MOST + 1).read_to_string(&mut text);
    read.doing(Kind::Io, || format!("read `{}`", path.display()))?;
    if text.len() as u64 > MOST {
        return Err(Error::caused(
            Kind::Config,
            format!("read `{}`", path.display()),
            "it is larger than 1 MiB",
        ));
    }
    Ok(Some(text))
}

/// Opens `name`, known to people as `path`; none when it is not there.
fn open(at: impl std::os::fd::AsFd, name: &Path, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
    let doing = || format!("open `{}`", path.display());
    match openat(at, name, flags, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        // O_NOFOLLOW says ELOOP for a symlink; with O_DIRECTORY it is ENOTDIR.
        Err(why @ (Errno::LOOP | Errno::NOTDIR)) => {
            let hint = format!("put the real thing at `{}`: a symlink is not followed", path.display());
            Err(Error::caused(Kind::Config, doing(), io::Error::from(why)).hint(hint))
        }
        Err(why) => Err(io::Error::from(why)).doing(Kind::Io, doing),
    }
}

fn status(path: &Path, opened: &OwnedFd) -> Result<Stat> {
    fstat(opened).map_err(io::Error::from).doing(Kind::Io, || format!("look at `{}`", path.display()))
}

/// Whether nobody but `owner` could have changed it.
fn trusted(path: &Path, stat: &Stat, owner: u32, wanted: FileType) -> Result<()> {
    let shown = path.display();
    let refused = |why: String, hint: String| {
        Err(Error::caused(Kind::Config, format!("trust the node's policy `{shown}`"), why).hint(hint))
    };
    if FileType::from_raw_mode(stat.st_mode) != wanted {
        return refused("it is not a plain file".to_owned(), format!("make `{shown}` a plain file"));
    }
    if stat.st_uid != owner {
        let why = format!("it belongs to the user {} and not to root", stat.st_uid);
        return refused(why, format!("run `chown root:root {shown}`"));
    }
    if stat.st_mode & 0o022 != 0 {
        let why = format!("its mode {:04o} lets others than its owner write", stat.st_mode & 0o7777);
        return refused(why, format!("run `chmod go-w {shown}`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    /// A folder of this test's own, gone when it ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nodeplug-policy-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("flexvolume.yaml")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn says(path: &Path, owner: u32) -> String {
        let error = read(path, owner).unwrap_err();
        format!("{}; {}", error.chain(), error.advice().unwrap_or_default())
    }

    #[test]
    fn a_file_of_the_owner_alone_is_read() {
        let folder = Folder::new("plain");
        assert_eq!(read(&folder.file(), me()).unwrap(), None);
        assert_eq!(read(&folder.0.join("none/flexvolume.yaml"), me()).unwrap(), None);
        fs::write(folder.file(), "timeout: 30s\n").unwrap();
        assert_eq!(read(&folder.file(), me()).unwrap().as_deref(), Some("timeout: 30s\n"));
    }

    #[test]
    fn what_others_could_have_written_is_refused_with_the_command_to_run() {
        let folder = Folder::new("modes");
        fs::write(folder.file(), "").unwrap();
        assert!(says(&folder.file(), me() + 1).contains("run `chown root:root "));
        for mode in [0o664, 0o646, 0o666] {
            fs::set_permissions(folder.file(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(says(&folder.file(), me()).contains("flexvolume.yaml`: its mode 06"), "{mode:o}");
        }
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o1777)).unwrap();
        let said = says(&folder.file(), me());
        assert!(said.contains("its mode 1777") && said.contains("run `chmod go-w "), "{said}");
    }

    #[test]
    fn no_symlink_is_followed_and_nothing_but_a_file_is_read() {
        let folder = Folder::new("links");
        fs::write(folder.0.join("real"), "").unwrap();
        symlink(folder.0.join("real"), folder.file()).unwrap();
        assert!(says(&folder.file(), me()).contains("a symlink is not followed"));
        symlink(&folder.0, folder.0.join("link")).unwrap();
        assert!(says(&folder.0.join("link/real"), me()).contains("a symlink is not followed"));
        fs::create_dir(folder.0.join("folder")).unwrap();
        assert!(says(&folder.0.join("folder"), me()).contains("it is not a plain file"));
        let fifo = folder.0.join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(says(&fifo, me()).contains("it is not a plain file"));
    }

    #[test]
    fn a_giant_or_binary_file_is_refused() {
        let folder = Folder::new("giant");
        fs::write(folder.file(), "#".repeat(1 << 20)).unwrap();
        assert!(read(&folder.file(), me()).unwrap().is_some());
        fs::write(folder.file(), "#".repeat((1 << 20) + 1)).unwrap();
        assert!(says(&folder.file(), me()).contains("larger than 1 MiB"));
        fs::write(folder.file(), b"\xff").unwrap();
        assert!(says(&folder.file(), me()).contains("UTF-8"));
    }
}
