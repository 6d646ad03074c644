//! A tree of the node that this process sees elsewhere: paths are named as the node has them and looked up where
//! they are seen, and no symlink leads out of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows in one path.
const HOPS: u32 = 40;

/// The node's /dev or /sys.
#[derive(Debug)]
pub struct Rooted {
    named: PathBuf,
    seen: PathBuf,
    /// Folders that were followed already; a look asks for the same few again and again.
    known: RefCell<HashMap<PathBuf, Result<PathBuf, Stray>>>,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stray {
    /// Nothing is there.
    Missing(PathBuf),
    /// It leads out of the tree, to this path.
    Outside(PathBuf),
    /// Symlinks that lead to each other.
    Circle,
    /// The kernel refused.
    Refused(PathBuf, io::ErrorKind),
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "`{}` is not there", super::shown(path)),
            Self::Outside(path) => write!(f, "it leads elsewhere, to `{}`", super::shown(path)),
            Self::Circle => f.write_str("its symlinks lead in circles"),
            Self::Refused(path, why) => write!(f, "`{}` can't be read: {why}", super::shown(path)),
        }
    }
}

impl Rooted {
    /// What the node calls `named`, where this process sees it.
    pub fn new(named: &str, seen: &Path) -> Self {
        let seen = fs::canonicalize(seen).unwrap_or_else(|_| seen.to_owned());
        Self { named: PathBuf::from(named), seen, known: RefCell::default() }
    }

    /// Where this process sees it.
    pub fn seen(&self) -> &Path {
        &self.seen
    }

    /// Whether the node's path is in this tree.
    pub fn holds(&self, named: &Path) -> bool {
        named.starts_with(&self.named)
    }

    /// Where this process sees a path of the node; the path itself where it is not in this tree.
    pub fn to_seen(&self, named: &Path) -> PathBuf {
        match named.strip_prefix(&self.named) {
            Ok(rest) if rest.as_os_str().is_empty() => self.seen.clone(),
            Ok(rest) => self.seen.join(rest),
            Err(_) => named.to_owned(),
        }
    }

    /// How the node names what this process sees.
    pub fn to_named(&self, seen: &Path) -> PathBuf {
        match seen.strip_prefix(&self.seen) {
            Ok(rest) if rest.as_os_str().is_empty() => self.named.clone(),
            Ok(rest) => self.named.join(rest),
            Err(_) => seen.to_owned(),
        }
    }

    /// What is behind all symlinks of a path that this process sees; paths in errors are named as the node does.
    pub fn resolve(&self, seen: &Path) -> Result<PathBuf, Stray> {
        let rest = seen.strip_prefix(&self.seen).map_err(|_| Stray::Outside(seen.to_owned()))?;
        let mut hops = 0;
        self.descend(self.seen.clone(), rest, &mut hops, false)
    }

    /// The same with what is there: for most paths, which are no symlinks, in one call.
    pub fn find(&self, seen: &Path) -> Result<(PathBuf, fs::Metadata), Stray> {
        let (Some(folder), Some(name)) = (seen.parent(), seen.file_name()) else {
            return Err(Stray::Outside(seen.to_owned()));
        };
        let mut hops = 0;
        let below = folder.strip_prefix(&self.seen).map_err(|_| Stray::Outside(seen.to_owned()))?;
        let path = self.descend(self.seen.clone(), below, &mut hops, true)?.join(name);
        let found = fs::symlink_metadata(&path).map_err(|error| self.stray(&path, &error))?;
        if !found.is_symlink() {
            return Ok((path, found));
        }
        let real = self.follow(path, &mut hops, false)?;
        let found = fs::symlink_metadata(&real).map_err(|error| self.stray(&real, &error))?;
        Ok((real, found))
    }

    /// The same for what is read from a symlink in `folder`, which has none in it itself.
    pub fn resolve_from(&self, folder: &Path, target: &Path) -> Result<PathBuf, Stray> {
        let mut hops = 1;
        self.target(folder, target, &mut hops, false)
    }

    fn descend(&self, from: PathBuf, rest: &Path, hops: &mut u32, folder: bool) -> Result<PathBuf, Stray> {
        let mut at = from;
        let mut parts = rest.components().peekable();
        while let Some(part) = parts.next() {
            let within = folder || parts.peek().is_some();
            match part {
                Component::Normal(name) => at = self.step(at.join(name), hops, within)?,
                Component::ParentDir if at == self.seen => {
                    return Err(Stray::Outside(self.named.join("..")));
                }
                Component::ParentDir => {
                    at.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Ok(at)
    }

    /// One name further; what is on the way is remembered, the ends of paths are too many for that.
    fn step(&self, path: PathBuf, hops: &mut u32, within: bool) -> Result<PathBuf, Stray> {
        if !within {
            return self.follow(path, hops, within);
        }
        if let Some(known) = self.known.borrow().get(&path) {
            return known.clone();
        }
        let found = self.follow(path.clone(), hops, within);
        if found != Err(Stray::Circle) {
            self.known.borrow_mut().insert(path, found.clone());
        }
        found
    }

    fn follow(&self, path: PathBuf, hops: &mut u32, within: bool) -> Result<PathBuf, Stray> {
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            // What is no symlink.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(path),
            Err(error) => return Err(self.stray(&path, &error)),
        };
        *hops += 1;
        if *hops > HOPS {
            return Err(Stray::Circle);
        }
        self.target(path.parent().unwrap_or(&self.seen), &target, hops, within)
    }

    fn stray(&self, path: &Path, error: &io::Error) -> Stray {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Stray::Missing(self.to_named(path)),
            kind => Stray::Refused(self.to_named(path), kind),
        }
    }

    fn target(&self, folder: &Path, target: &Path, hops: &mut u32, within: bool) -> Result<PathBuf, Stray> {
        if target.is_relative() {
            return match self.descend(folder.to_owned(), target, hops, within) {
                Err(Stray::Outside(_)) => Err(Stray::Outside(plain(&self.to_named(folder).join(target)))),
                other => other,
            };
        }
        let rest = target.strip_prefix(&self.named).map_err(|_| Stray::Outside(target.to_owned()))?;
        self.descend(self.seen.clone(), rest, hops, within)
    }
}

/// `..` taken literally: for a message, where what is meant is not in the tree to be looked up.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
