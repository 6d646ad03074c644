//! The driver's name, and what follows from it.
//!
//! The kubelet execs `<plugin folder>/<vendor~driver>/<driver>`, so the last part of the path tells under
//! which name the one binary was installed. `init` is asked before any volume is known, so capabilities can
//! follow from that name alone.

use std::ffi::OsStr;
use std::path::Path;

use crate::render::Capabilities;

/// A way to make a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Memory, with a size.
    Tmpfs,
    /// A folder of the node.
    Bind,
    /// A file that holds a file system.
    Image,
    /// Layers under one writable one.
    Overlay,
    /// A block device of the node.
    Block,
    /// A share by `mount.nfs`.
    Nfs,
    /// A share by `mount.cifs`.
    Cifs,
    /// A program in user space.
    Fuse,
}

impl Backend {
    /// All of them, as their options and names spell them.
    pub const ALL: [(&'static str, Self); 8] = [
        ("tmpfs", Self::Tmpfs),
        ("bind", Self::Bind),
        ("image", Self::Image),
        ("overlay", Self::Overlay),
        ("block", Self::Block),
        ("nfs", Self::Nfs),
        ("cifs", Self::Cifs),
        ("fuse", Self::Fuse),
    ];

    /// The backend of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, b)| *b)
    }

    /// Its name in options, policy and folders.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, b)| *b == self).map_or("", |(n, _)| n)
    }
}

/// Under which name the driver was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Any backend, by the option `backend`.
    Any,
    /// One backend only.
    Only(Backend),
}

impl Driver {
    /// From the path that was exec'd; a name that is no backend's is the driver of all.
    pub fn called(path: &OsStr) -> Self {
        let name = Path::new(path).file_name().and_then(OsStr::to_str).unwrap_or_default();
        Backend::named(name).map_or(Self::Any, Self::Only)
    }

    /// What `init` answers: all five, because the kubelet takes an absent one for `true`.
    ///
    /// - `attach` is never wanted: it would key inline volumes by name alone.
    /// - `fsGroup` is done here for each backend; the kubelet's own walk would go through the source of a
    ///   bind mount.
    /// - `supportsMetrics` makes the kubelet call statfs, which hangs on a share whose server is gone.
    pub fn capabilities(self) -> Capabilities {
        let local =
            matches!(self, Self::Only(Backend::Tmpfs | Backend::Image | Backend::Overlay | Backend::Block));
        Capabilities {
            attach: false,
            selinux_relabel: local,
            supports_metrics: local,
            fs_group: false,
            requires_fs_resize: matches!(self, Self::Any | Self::Only(Backend::Image | Backend::Block)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_the_path_chooses_the_backend() {
        let table = [
            ("/usr/libexec/k/volume/exec/nodeplug~tmpfs/tmpfs", Driver::Only(Backend::Tmpfs)),
            ("nfs", Driver::Only(Backend::Nfs)),
            ("/x/nodeplug~volume/volume", Driver::Any),
            ("/x/acme~storage/storage", Driver::Any),
            ("", Driver::Any),
        ];
        for (path, expect) in table {
            assert_eq!(Driver::called(OsStr::new(path)), expect, "{path}");
        }
        for (name, backend) in Backend::ALL {
            assert_eq!(backend.name(), name);
        }
    }
}
