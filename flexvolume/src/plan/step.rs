//! One thing that a mount or an unmount does, with its line and its inverse.

mod name;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Layers, Lower, Medium, Service, Share, Upper};
use crate::kernel::mount::Propagation;
use crate::kernel::own::Scope;
use crate::options::mount_options::{Attr, MountOption};
use crate::record::Record;
use crate::target::{Id, Target};

/// A step. It names what it works on; the descriptors themselves are in [`crate::apply::Hands`].
#[derive(Debug)]
pub enum Step {
    /// Puts the record on disk, before everything else.
    Remember(Target, Box<Record>),
    /// Writes the record of a volume that is mounted once more.
    RememberAnew(Target, Box<Record>),
    /// Puts it on disk again, with the id of the mount in hand.
    RememberMount(Target, Box<Record>),
    /// Takes the record away, after everything else.
    Forget(Target),
    /// Makes a file system that nobody sees yet.
    Make {
        /// As /proc/filesystems spells it.
        kind: &'static str,
        /// What it is made of.
        source: Source,
        /// Its options, as the kernel spells them.
        settings: Vec<Setting>,
        /// Whether the superblock itself is read-only.
        read_only: bool,
    },
    /// Makes the source's folder beneath its root, with those that lead to it.
    Folder {
        /// Relative to the root.
        path: PathBuf,
        /// Permissions of the new ones.
        mode: u32,
        /// Owner and group of the new ones.
        owner: (u32, u32),
    },
    /// Copies the mount of the source's folder.
    Clone {
        /// What was opened, for a person.
        path: PathBuf,
        /// With the mounts below.
        recursive: bool,
    },
    /// Takes a layer of an overlay that is only read; the next one lies below it.
    Lower(Lower),
    /// Takes the folder in hand in which an overlay's upper layer lies.
    Upper(Upper),
    /// Lays the folder or file system in hand over the lower layers; the overlay is in hand then.
    Layer(Layers),
    /// Ends what serves the volume; what is started after it goes with it.
    Stop(Id),
    /// Starts the program that serves the volume, and takes in hand what it serves.
    Serve(Box<Service>),
    /// Lets the distribution's helper mount a share where nobody sees it, and takes that mount in hand.
    Share(Box<Share>),
    /// Writes the pod's secrets into the tree.
    Populate {
        /// The secrets' names, which become the files'.
        keys: Vec<String>,
        /// The files' permissions.
        mode: u32,
        /// The files' owner and group.
        owner: (u32, u32),
    },
    /// Works on the medium that the file system lies on.
    Medium(Medium),
    /// Gives the tree to the pod's group.
    Give {
        /// The group.
        gid: u32,
        /// How much of the tree.
        scope: Scope,
    },
    /// The same in a child: the tree's server may not answer.
    GiveApart {
        /// The group.
        gid: u32,
        /// How much of the tree.
        scope: Scope,
    },
    /// Sets what the mount allows.
    Limit {
        /// The limits.
        limits: Limits,
        /// With the mounts below.
        recursive: bool,
    },
    /// Moves the finished tree onto the volume's folder: the pod's volume is there from now on.
    Attach(Target),
    /// Takes away what is mounted on the volume's folder, whose server or daemon is gone, and moves the
    /// finished tree there.
    Replace(Target),
    /// Takes away whatever is mounted on the volume's folder.
    Detach(Target),
    /// The same in a child: the server, daemon or disk behind it may not answer.
    DetachApart(Target, Patience),
}

/// How long a child may take to unmount something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as a server or daemon that is well takes. Then by force, then lazily.
    Server,
    /// As long as the call may take: a disk that is slow still gets all that was written.
    Disk,
}

/// One setting of a file system, as the kernel spells it: `huge=always`, or `size=65536`; with a `?` behind it
/// where a kernel may not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value; a word alone has none.
    pub value: Option<String>,
    /// Whether a kernel that does not know it makes the file system without it.
    pub optional: bool,
}

impl Setting {
    /// A word alone.
    pub fn flag(name: &str) -> Self {
        Self { name: name.to_owned(), value: None, optional: false }
    }

    /// A word alone that older kernels do not know.
    pub fn wish(name: &str) -> Self {
        Self { optional: true, ..Self::flag(name) }
    }

    /// A word with a value.
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: Some(value.into()), optional: false }
    }
}

impl From<&MountOption> for Setting {
    fn from(option: &MountOption) -> Self {
        Self { name: option.name.clone(), value: option.value.clone(), optional: false }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }?;
        if self.optional { f.write_str("?") } else { Ok(()) }
    }
}

/// What a mount allows less than its file system does. What is `false` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what mount(8) calls them")]
pub struct Limits {
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
    pub strictatime: bool,
    pub nodiratime: bool,
    pub nosymfollow: bool,
    /// How mounts below it travel.
    pub propagation: Option<Propagation>,
    /// Whose its files look.
    pub idmap: Option<IdMap>,
}

/// Shows what belongs to `disk`, `disk + 1`, … as if it belonged to `seen`, `seen + 1`, …: `0:100000:65536`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// The first user and group id on disk.
    pub disk: u32,
    /// The first id that is seen.
    pub seen: u32,
    /// How many of them.
    pub count: u32,
}

impl FromStr for IdMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u32>> = text.split(':').map(|n| n.parse().ok()).collect();
        match numbers.as_deref() {
            Some([disk, seen, count])
                if *count > 0 && disk.checked_add(*count).is_some() && seen.checked_add(*count).is_some() =>
            {
                Ok(Self { disk: *disk, seen: *seen, count: *count })
            }
            _ => Err("is no id map; write `DISK:SEEN:COUNT`, such as `0:100000:65536`".to_owned()),
        }
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.disk, self.seen, self.count)
    }
}

impl Limits {
    /// These and what the pod's `mountOptions` say of the mount.
    #[must_use]
    pub fn with(mut self, attributes: &BTreeSet<Attr>) -> Self {
        for attribute in attributes {
            match attribute {
                Attr::ReadOnly => self.read_only = true,
                Attr::NoSuid => self.nosuid = true,
                Attr::NoDev => self.nodev = true,
                Attr::NoExec => self.noexec = true,
                Attr::NoAtime => self.noatime = true,
                // The kernel's own habit.
                Attr::RelAtime => {}
                Attr::StrictAtime => self.strictatime = true,
                Attr::NoDirAtime => self.nodiratime = true,
                Attr::NoSymFollow => self.nosymfollow = true,
            }
        }
        self
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            (self.read_only, "ro"),
            (self.nosuid, "nosuid"),
            (self.nodev, "nodev"),
            (self.noexec, "noexec"),
            (self.noatime, "noatime"),
            (self.strictatime, "strictatime"),
            (self.nodiratime, "nodiratime"),
            (self.nosymfollow, "nosymfollow"),
            (self.propagation == Some(Propagation::Private), "private"),
            (self.propagation == Some(Propagation::Slave), "slave"),
            (self.propagation == Some(Propagation::Shared), "shared"),
        ];
        let words: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        f.write_str(&words.join(","))?;
        self.idmap.map_or(Ok(()), |map| write!(f, ",idmap={map}"))
    }
}

/// What a file system is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing.
    None,
    /// A name.
    Named(String),
    /// The device in hand.
    Device,
    /// The image in hand, without a device where the kernel needs none.
    Image,
}

impl node::step::Step for Step {
    fn inverse(&self) -> Option<Self> {
        match self {
            Self::Remember(target, _) => Some(Self::Forget(target.clone())),
            Self::Attach(target) => Some(Self::Detach(target.clone())),
            // Before the start and not after it: a start that fails half-way leaves a program, too.
            Self::Stop(volume) => Some(Self::Stop(volume.clone())),
            Self::Medium(medium) => medium.inverse().map(Self::Medium),
            // A tree that is not attached is gone with its descriptor, and all that was done to it; a folder that
            // was made for a source is no harm; and what takes away is not put back.
            Self::RememberMount(..)
            | Self::RememberAnew(..)
            | Self::Replace(_)
            | Self::Make { .. }
            | Self::Clone { .. }
            | Self::Folder { .. }
            | Self::Lower(_)
            | Self::Upper(_)
            | Self::Layer(_)
            | Self::Serve(_)
            | Self::Populate { .. }
            | Self::Share(_)
            | Self::Give { .. }
            | Self::GiveApart { .. }
            | Self::Limit { .. }
            | Self::Forget(_)
            | Self::Detach(_)
            | Self::DetachApart(..) => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remember(target, _) => write!(f, "remember the volume of `{target}`"),
            Self::RememberAnew(target, _) => write!(f, "remember the new mount of `{target}`"),
            Self::RememberMount(target, _) => write!(f, "remember which mount `{target}` gets"),
            Self::Forget(target) => write!(f, "forget the volume of `{target}`"),
            Self::Make { kind, source, settings, read_only } => {
                write!(f, "make a `{kind}`")?;
                match source {
                    Source::None => {}
                    Source::Named(name) => write!(f, " of `{name}`")?,
                    Source::Device => f.write_str(" of the device")?,
                    Source::Image => f.write_str(" of the image")?,
                }
                let words: Vec<String> = settings.iter().map(ToString::to_string).collect();
                if !words.is_empty() {
                    write!(f, " with `{}`", words.join(","))?;
                }
                if *read_only { f.write_str(", read-only") } else { Ok(()) }
            }
            Self::Folder { path, mode, owner } => {
                write!(
                    f,
                    "make the folder `{}` with mode {mode:04o} for {}:{}",
                    path.display(),
                    owner.0,
                    owner.1
                )
            }
            Self::Clone { path, recursive } => {
                write!(f, "copy the mount of `{}`{}", path.display(), below(*recursive))
            }
            Self::Lower(lower) => lower.fmt(f),
            Self::Upper(upper) => upper.fmt(f),
            Self::Layer(layers) => layers.fmt(f),
            Self::Stop(volume) => write!(f, "end what serves the volume `{volume}`"),
            Self::Serve(service) => service.fmt(f),
            Self::Populate { keys, mode, owner } => {
                write!(f, "write the secrets {keys:?} with mode {mode:04o} for {}:{}", owner.0, owner.1)
            }
            Self::Share(share) => share.fmt(f),
            Self::Give { gid, scope } => write!(f, "give the group {gid} {}", reach(*scope)),
            Self::GiveApart { gid, scope } => write!(f, "give the group {gid} {}, in a child", reach(*scope)),
            Self::Limit { limits, recursive } => {
                write!(f, "limit it to `{limits}`{}", below(*recursive))
            }
            Self::Medium(medium) => write!(f, "{medium}"),
            Self::Attach(target) => write!(f, "attach it to `{target}`"),
            Self::Replace(target) => write!(f, "exchange the dead mount at `{target}` for it"),
            Self::Detach(target) => write!(f, "unmount `{target}`"),
            Self::DetachApart(target, Patience::Server) => {
                write!(f, "unmount `{target}` in a child, by force and then lazily where nobody answers")
            }
            Self::DetachApart(target, Patience::Disk) => write!(f, "unmount `{target}` in a child"),
        }
    }
}

fn reach(scope: Scope) -> &'static str {
    match scope {
        Scope::Root => "its root folder",
        Scope::OnRootMismatch => "all of it, unless its root folder has it",
        Scope::Recursive => "all of it",
    }
}

fn below(recursive: bool) -> &'static str {
    if recursive { ", with all mounts below" } else { "" }
}
