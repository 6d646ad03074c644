//! What a container that has a device gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CdiKind, FileMode, Permissions};

/// What a container that has a device gets. Texts may hold variables; see [`Allocate::env`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Allocate {
    /// How the devices' nodes are handed out.
    pub node: NodeOptions,
    /// More device nodes for every container, such as /dev/vfio/vfio.
    pub devices: Vec<ExtraDevice>,
    /// Files and folders of the node.
    pub mounts: Vec<Mount>,
    /// Environment. Variables, each joined by `,` where a container has several devices or a device several
    /// nodes: `${id}` `${path}` `${containerPath}` `${name}` `${index}` `${resource}` and
    /// `${attribute.NAME}`. Several replicas of one device are one device with several IDs.
    pub env: BTreeMap<String, String>,
    /// Annotations of the container, for the runtime; the same variables.
    pub annotations: BTreeMap<String, String>,
    /// The Container Device Interface.
    pub cdi: Option<Cdi>,
}

/// How a device node is handed out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeOptions {
    /// `r`, `w`, `m` (mknod); without it `rw`.
    pub permissions: Option<Permissions>,
    /// The path in the container, with the variables `${name}` (the kernel's name of the node, such as
    /// ttyUSB0), `${index}` (0 for the first device of the container) and `${attribute.NAME}`. Without it, as
    /// on the node.
    pub container_path: Option<String>,
}

/// A device node that every container gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraDevice {
    /// On the node.
    pub host_path: PathBuf,
    /// In the container; without it, as on the node.
    #[serde(default)]
    pub container_path: Option<PathBuf>,
    /// `rw` without it.
    #[serde(default)]
    pub permissions: Option<Permissions>,
    /// Where it is not there, it is left out.
    #[serde(default)]
    pub optional: bool,
}

/// A file or folder of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// On the node; variables as in `env`, once for each device where it has one. `${path}` is that of the
    /// device's first node.
    pub host_path: String,
    /// In the container.
    pub container_path: String,
    /// Read-only unless this says false.
    #[serde(default = "yes")]
    pub read_only: bool,
    /// Where it is not there, it is left out; else the container is refused.
    #[serde(default)]
    pub optional: bool,
}

/// The Container Device Interface: the runtime adds what a specification says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Cdi {
    /// The daemon writes the specification (below `host.cdi`), and a container gets its devices by it.
    Write {
        /// `vendor/class`; without it, the resource's name.
        #[serde(default)]
        kind: Option<CdiKind>,
        /// Owner of the nodes in the container.
        #[serde(default)]
        uid: Option<u32>,
        /// Group of the nodes in the container.
        #[serde(default)]
        gid: Option<u32>,
        /// Mode of the nodes in the container, octal: `"0660"`.
        #[serde(default)]
        mode: Option<FileMode>,
    },
    /// Names of devices that others specified, `vendor/class=name`; variables as in `env`.
    Use {
        /// The name, once for each device.
        name: String,
    },
}

fn yes() -> bool {
    true
}
