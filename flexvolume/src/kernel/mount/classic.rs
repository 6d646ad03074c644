//! The same mounts on kernels without mounts by descriptor (before Linux 5.2, attributes before 5.12):
//! mount(2) straight onto the target, restricted afterwards. Between the two steps the mount is visible
//! without its restrictions, which is why a caller says so.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use node::{Context, Error, Kind, Result, mountinfo};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};

use super::{Attributes, How, Parameter, Propagation, Tree, as_text, detach, magic_path};
use crate::kernel::path::{self, Want};

const NONE: Option<&str> = None;

/// Whether an error says that the kernel does not know the system call at all.
pub fn is_missing(error: &Error) -> bool {
    error.errno() == Some(libc::ENOSYS)
}

/// Mounts a new file system at the folder or file that `target` holds. The parameters go as one line of
/// text, so a value with a comma cannot be said ([`Kind::Config`]).
pub fn make(
    kind: &str,
    source: Option<&str>,
    parameters: &[Parameter],
    read_only: bool,
    target: BorrowedFd<'_>,
) -> Result<Tree> {
    let doing = || format!("make a `{kind}`");
    let (mut flags, data) = line(parameters)?;
    if read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    let data = CString::new(data).doing(Kind::Config, doing)?;
    let place = Place::of(target)?;
    mount(
        Some(source.unwrap_or(kind)),
        magic_path(target).as_str(),
        Some(kind),
        flags,
        Some(data.as_c_str()),
    )
    .map_err(io::Error::from)
    .doing(Kind::Kernel, doing)
    .map_err(|e| e.hint("the node's kernel log (dmesg) may say more"))?;
    place.mounted()
}

/// Shows the folder or file `from` at `target`.
pub fn bind(from: BorrowedFd<'_>, target: BorrowedFd<'_>, recursive: bool) -> Result<Tree> {
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    let place = Place::of(target)?;
    mount(Some(magic_path(from).as_str()), magic_path(target).as_str(), NONE, flags, NONE)
        .map_err(io::Error::from)
        .doing(Kind::Kernel, || "clone the mount of the source".to_owned())?;
    place.mounted()
}

/// Puts a detached tree onto the folder or file that `target` holds, before it is finished: what else is to
/// be done to it needs a mount that is somewhere.
pub fn place(tree: Tree, target: BorrowedFd<'_>) -> Result<Tree> {
    let place = Place::of(target)?;
    super::attach(&tree, target)?;
    Ok(Tree::unfinished(tree.into_fd(), Unfinished(Some(place))))
}

/// Adds `attributes` to a mount that is in its place, and with `recursive` to each mount below it.
pub fn set_attributes(tree: &Tree, attributes: &Attributes<'_>, recursive: bool) -> Result<()> {
    if attributes.idmap.is_some() {
        return Err(Error::new(Kind::Unavailable, "show other owners in the mount")
            .hint("id maps need Linux 5.12 or newer"));
    }
    restrict(tree.as_fd(), attributes)?;
    if recursive {
        let point = path::real_path(tree.as_fd())?;
        let mounts = mountinfo::read()?;
        for below in mountinfo::below(&mounts, &point) {
            let relative = below.point.strip_prefix(&point).unwrap_or(Path::new("."));
            let root = path::beneath(tree.as_fd(), relative, Want::Any)?;
            restrict(root.as_fd(), attributes)?;
        }
    }
    propagate(tree.as_fd(), attributes.propagation, recursive)
}

/// One mount's flags: a remount names all of them, so those that are set are said again.
fn restrict(root: BorrowedFd<'_>, attributes: &Attributes<'_>) -> Result<()> {
    let doing = || "restrict the mount".to_owned();
    let now = fstatvfs(root).map_err(io::Error::from).doing(Kind::Kernel, doing)?.f_flag;
    let was = |flag: StatVfsMountFlags| now.contains(flag);
    let switches = [
        (attributes.read_only || was(StatVfsMountFlags::RDONLY), MsFlags::MS_RDONLY),
        (attributes.nosuid || was(StatVfsMountFlags::NOSUID), MsFlags::MS_NOSUID),
        (attributes.nodev || was(StatVfsMountFlags::NODEV), MsFlags::MS_NODEV),
        (attributes.noexec || was(StatVfsMountFlags::NOEXEC), MsFlags::MS_NOEXEC),
        (attributes.noatime || was(StatVfsMountFlags::NOATIME), MsFlags::MS_NOATIME),
        (attributes.strictatime && !attributes.noatime, MsFlags::MS_STRICTATIME),
        (attributes.nodiratime || was(StatVfsMountFlags::NODIRATIME), MsFlags::MS_NODIRATIME),
        (
            !attributes.noatime && !attributes.strictatime && was(StatVfsMountFlags::RELATIME),
            MsFlags::MS_RELATIME,
        ),
        // Linux 5.10 and newer; libc has no name for either flag.
        (attributes.nosymfollow || now.bits() & 0x2000 != 0, MsFlags::from_bits_retain(0x100)),
    ];
    let wanted: MsFlags = switches.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag).collect();
    let flags = wanted | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(NONE, magic_path(root).as_str(), NONE, flags, NONE)
        .map_err(io::Error::from)
        .doing(Kind::Kernel, doing)
}

fn propagate(root: BorrowedFd<'_>, propagation: Option<Propagation>, recursive: bool) -> Result<()> {
    let mut flags = match propagation {
        None => return Ok(()),
        Some(Propagation::Private) => MsFlags::MS_PRIVATE,
        Some(Propagation::Slave) => MsFlags::MS_SLAVE,
        Some(Propagation::Shared) => MsFlags::MS_SHARED,
    };
    if recursive {
        flags |= MsFlags::MS_REC;
    }
    mount(NONE, magic_path(root).as_str(), NONE, flags, NONE)
        .map_err(io::Error::from)
        .doing(Kind::Kernel, || "set how mounts below the volume travel".to_owned())
}

/// The parameters as mount(2) takes them: those of every file system as flags, the others as a line.
fn line(parameters: &[Parameter]) -> Result<(MsFlags, String)> {
    let mut flags = MsFlags::empty();
    let mut words = Vec::new();
    // What newer kernels know is not asked of one that is older than mounts by descriptor.
    for parameter in parameters.iter().filter(|p| !matches!(p, Parameter::Wish(_))) {
        let text = text(parameter)?;
        match text.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            "lazytime" => flags |= MsFlags::MS_LAZYTIME,
            _ => words.push(text),
        }
    }
    Ok((flags, words.join(",")))
}

fn text(parameter: &Parameter) -> Result<String> {
    let (name, word) = match parameter {
        Parameter::Flag(name) | Parameter::Wish(name) => (name, name.clone()),
        Parameter::Text(name, value) => (name, format!("{name}={value}")),
        Parameter::Descriptor(name, file) => (name, format!("{name}={}", as_text(name, file))),
    };
    if word.contains(',') {
        return Err(Error::new(Kind::Config, format!("pass `{name}` to the file system"))
            .hint("on kernels before Linux 5.2 a value must not contain a comma"));
    }
    Ok(word)
}

/// A mount that somebody can see though it is not finished. Dropped, it is unmounted: who tries again must
/// not take it for whole.
#[derive(Debug)]
pub(super) struct Unfinished(Option<Place>);

impl Unfinished {
    /// It is finished.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            let _ = detach(place.parent.as_fd(), &place.name, How::Lazy);
        }
    }
}

/// Where something will be mounted: its folder and its name there, since a descriptor of what lies below
/// the mount does not lead to the mount.
#[derive(Debug)]
struct Place {
    parent: OwnedFd,
    name: OsString,
}

impl Place {
    fn of(target: BorrowedFd<'_>) -> Result<Self> {
        let path = path::real_path(target)?;
        let doing = || format!("find the folder of `{}`", path.display());
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_owned();
        let parent = path::open_root(parent)?;
        let there = openat(&parent, name.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .and_then(rustix::fs::fstat)
            .map_err(io::Error::from)
            .doing(Kind::Kernel, doing)?;
        let here = rustix::fs::fstat(target).map_err(io::Error::from).doing(Kind::Kernel, doing)?;
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
            return Err(Error::new(Kind::Conflict, format!("`{}` was exchanged meanwhile", path.display())));
        }
        Ok(Self { parent, name })
    }

    /// From here on it is mounted.
    fn mounted(self) -> Result<Tree> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(&self.parent, self.name.as_os_str(), flags, Mode::empty());
        let doing = format!("open the new mount at `{}`", self.name.display());
        let place = Unfinished(Some(self));
        let root = root.map_err(io::Error::from).doing(Kind::Kernel, || doing)?;
        Ok(Tree::unfinished(root, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_flags_and_a_line() {
        let flag = |s: &str| Parameter::Flag(s.into());
        let value = |n: &str, v: &str| Parameter::Text(n.into(), v.into());
        let (flags, data) = line(&[flag("ro"), value("size", "1M"), flag("noswap")]).unwrap();
        assert_eq!(flags, MsFlags::MS_RDONLY);
        assert_eq!(data, "size=1M,noswap");
        assert_eq!(line(&[value("lowerdir", "/a,b")]).unwrap_err().kind(), Kind::Config);
    }
}
