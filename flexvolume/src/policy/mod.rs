//! The node's policy: what pods may ask of this node.
//!
//! `/etc/nodeplug/flexvolume.yaml` belongs to root. Whoever may create pods in a namespace may use all that
//! is allowed to it: a volume in a pod and one of a PersistentVolume look the same from here, so that the
//! policy is the only guard, and it is asked on every mount.

pub mod argument;
mod backends;
mod check;
mod decide;
mod forbidden;
mod glob;
mod limits;
mod load;
mod log;
mod parse;
mod profile;
mod units;
pub mod validate;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::{Quantity, Seconds};

pub use backends::{
    Backends, BindPolicy, BlockPolicy, CifsPolicy, FusePolicy, ImageFs, ImagePolicy, NfsPolicy,
    OverlayPolicy, Root, TmpfsPolicy,
};
pub use forbidden::{FOLDERS, forbidden};
pub use glob::{Glob, matches_any};
pub use load::PATH;
pub use log::{FILE as LOG, LogFile};
pub use profile::{Handover, Profile, ProfileOption};

/// What pods may ask of this node. Without the file: a capped tmpfs, nfs and cifs, and nothing that touches
/// the node's own files or devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "nodeplug-flexvolume: the node's policy")]
pub struct Policy {
    /// The kubelet's `--root-dir`: targets lie below its `pods` folder.
    pub kubelet_root: PathBuf,
    /// How long a whole call may take, from 1s to 100s; the kubelet gives up on a pod after 123s.
    pub timeout: Seconds,
    /// Namespaces (globs) whose pods may use the driver at all.
    pub namespaces: Vec<Glob>,
    /// Namespaces whose volumes may keep suid bits when they ask by `allowSuid: "true"`.
    pub allow_suid: Vec<Glob>,
    /// Namespaces whose volumes may keep device nodes when they ask by `allowDev: "true"`.
    pub allow_dev: Vec<Glob>,
    /// Namespaces that may set `selinuxContext`.
    pub allow_selinux_context: Vec<Glob>,
    /// What unmount does with a local volume that is still in use after `busyWait`.
    pub busy: Busy,
    /// How long unmount waits for a local volume that is in use.
    pub busy_wait: Seconds,
    /// Where each mount and unmount leaves a line: an absolute path, `journal` or `none`.
    pub log_file: LogFile,
    /// How large that file may become before it is renamed to `NAME.1`; at least 64Ki.
    pub log_max_size: Quantity,
    /// The backends that are on, exactly these. Without this key: tmpfs, nfs and cifs.
    #[serde(deserialize_with = "backends::named")]
    pub backends: Backends,
}

/// What unmount does with a local volume that stays in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Busy {
    /// Fail and name the holders; the kubelet tries again.
    #[default]
    Fail,
    /// Detach it; the filesystem goes when its last holder does.
    Lazy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            kubelet_root: PathBuf::from("/var/lib/kubelet"),
            timeout: Seconds::new(100),
            namespaces: glob::everything(),
            allow_suid: Vec::new(),
            allow_dev: Vec::new(),
            allow_selinux_context: Vec::new(),
            busy: Busy::default(),
            busy_wait: Seconds::new(5),
            log_file: LogFile::default(),
            log_max_size: Quantity::of(node::log::MOST),
            backends: Backends::default(),
        }
    }
}

/// The JSON schema (2020-12) of the file, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Policy).to_value()
}

#[cfg(test)]
mod tests;
