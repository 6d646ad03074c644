//! One thing that a mount or an unmount does, with its line and its inverse.

use std::fmt;

use crate::kernel::mount::{Attributes, Parameter};
use crate::kernel::own::Scope;
use crate::record::Record;
use crate::target::Target;

/// A step. It names what it works on; the descriptors themselves are in [`crate::apply::Hands`].
#[derive(Debug)]
pub enum Step {
    /// Puts the record on disk, before everything else.
    Remember(Target, Box<Record>),
    /// Takes the record away, after everything else.
    Forget(Target),
    /// Makes a file system that nobody sees yet.
    Make {
        /// As /proc/filesystems spells it.
        kind: &'static str,
        /// What it is made of.
        source: Source,
        /// Its options, as the kernel spells them.
        parameters: Vec<Parameter>,
        /// Whether the superblock itself is read-only.
        read_only: bool,
    },
    /// Writes the pod's secrets into the tree.
    Populate {
        /// The secrets' names, which become the files'.
        keys: Vec<String>,
        /// The files' permissions.
        mode: u32,
        /// The files' owner and group.
        owner: (u32, u32),
    },
    /// Gives the tree to the pod's group.
    Give {
        /// The group.
        gid: u32,
        /// How much of the tree.
        scope: Scope,
    },
    /// Sets what the mount allows.
    Limit {
        /// The attributes.
        attributes: Attributes,
        /// With the mounts below.
        recursive: bool,
    },
    /// Moves the finished tree onto the volume's folder: the pod's volume is there from now on.
    Attach(Target),
    /// Takes away whatever is mounted on the volume's folder.
    Detach(Target),
}

/// What a file system is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing.
    None,
    /// A name.
    Named(String),
}

impl node::step::Step for Step {
    fn inverse(&self) -> Option<Self> {
        match self {
            Self::Remember(target, _) => Some(Self::Forget(target.clone())),
            Self::Attach(target) => Some(Self::Detach(target.clone())),
            // What is not attached vanishes with its descriptor.
            Self::Make { .. } | Self::Populate { .. } | Self::Give { .. } | Self::Limit { .. } => None,
            Self::Forget(_) | Self::Detach(_) => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remember(target, _) => write!(f, "remember the volume of `{target}`"),
            Self::Forget(target) => write!(f, "forget the volume of `{target}`"),
            Self::Make { kind, source, parameters, read_only } => {
                write!(f, "make a `{kind}`")?;
                if let Source::Named(name) = source {
                    write!(f, " of `{name}`")?;
                }
                let words: Vec<String> = parameters.iter().map(ToString::to_string).collect();
                if !words.is_empty() {
                    write!(f, " with `{}`", words.join(","))?;
                }
                if *read_only { f.write_str(", read-only") } else { Ok(()) }
            }
            Self::Populate { keys, mode, owner } => {
                write!(f, "write the secrets {keys:?} with mode {mode:04o} for {}:{}", owner.0, owner.1)
            }
            Self::Give { gid, scope } => write!(f, "give it to group {gid} ({scope})"),
            Self::Limit { attributes, recursive } => {
                write!(f, "allow only `{attributes}`{}", if *recursive { ", with all mounts below" } else { "" })
            }
            Self::Attach(target) => write!(f, "attach it to `{target}`"),
            Self::Detach(target) => write!(f, "unmount `{target}`"),
        }
    }
}

