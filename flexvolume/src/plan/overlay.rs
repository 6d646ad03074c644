//! The layers of an overlay (Documentation/filesystems/overlayfs.rst), topmost first.

use std::fmt;
use std::path::PathBuf;

use super::Setting;

/// A layer that is only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lower {
    /// What the steps so far have made.
    InHand,
    /// A folder of the node.
    Folder {
        /// Which of the opened layers it is, from 0.
        number: usize,
        /// What was opened, for a person.
        path: PathBuf,
    },
    /// The file system in a file.
    Image {
        /// Which of the opened layers it is, from 0.
        number: usize,
        /// What was opened, for a person.
        path: PathBuf,
        /// As /proc/filesystems spells it.
        kind: &'static str,
    },
}

/// The folder in which the layer that is written, and the kernel's own work folder, lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// For a person.
    pub path: PathBuf,
    /// Relative to the root that the policy names.
    pub relative: PathBuf,
    /// Whether it has to be made.
    pub missing: bool,
}

/// How the layers are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// As the kernel spells them; the layers' own names are not among them.
    pub settings: Vec<Setting>,
    /// Permissions and owner of the root folder.
    pub face: Face,
}

/// Permissions and owner of a root folder. What is `None` is the topmost lower layer's when the upper one is
/// new, and stays as it is when it is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what chmod(1) and chown(1) call them")]
pub struct Face {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl fmt::Display for Lower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InHand => f.write_str("take it as a lower layer"),
            Self::Folder { path, .. } => write!(f, "take the folder `{}` as a lower layer", path.display()),
            Self::Image { path, kind, .. } => {
                write!(f, "take the `{kind}` in `{}` as a lower layer", path.display())
            }
        }
    }
}

impl fmt::Display for Upper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.missing { "make" } else { "take" };
        write!(f, "{verb} the folder `{}` for the upper layer", self.path.display())
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lay it over the lower layers")?;
        let words: Vec<String> = self.settings.iter().map(ToString::to_string).collect();
        if !words.is_empty() {
            write!(f, " with `{}`", words.join(","))?;
        }
        let Face { mode, uid, gid } = self.face;
        mode.map_or(Ok(()), |mode| write!(f, ", mode {mode:04o}"))?;
        uid.map_or(Ok(()), |uid| write!(f, ", user {uid}"))?;
        gid.map_or(Ok(()), |gid| write!(f, ", group {gid}"))
    }
}
