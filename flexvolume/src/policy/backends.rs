//! What the policy says of each backend.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::Profile;
use super::glob::{Glob, everything};
use crate::options::Quantity;

/// The backends that are on. A name without anything behind it is on with its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backends {
    /// Memory, capped.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<TmpfsPolicy>,
    /// Folders of the node.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub bind: Option<BindPolicy>,
    /// Filesystems in files of the node.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePolicy>,
    /// Layers of the node with something writable on top.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayPolicy>,
    /// Block devices of the node.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockPolicy>,
    /// NFS servers.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub nfs: Option<NfsPolicy>,
    /// SMB servers.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub cifs: Option<CifsPolicy>,
    /// Programs that serve a filesystem.
    #[serde(default, deserialize_with = "on", skip_serializing_if = "Option::is_none")]
    pub fuse: Option<FusePolicy>,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TmpfsPolicy {
    /// Namespaces (globs) that may use it.
    pub namespaces: Vec<Glob>,
    /// The size of a volume that asks for none.
    pub default_size: Quantity,
    /// The most that a volume may ask for.
    pub max_size: Quantity,
    /// The most files and folders that a volume may have; also what one that asks for nothing gets.
    #[schemars(range(min = 1))]
    pub max_inodes: u64,
}

/// Folders of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BindPolicy {
    /// Where sources may lie. The longest root that contains a source decides alone.
    pub roots: Vec<Root>,
}

/// A folder of the node below which sources may lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// Absolute, and neither the node's own nor the kubelet's or a runtime's.
    pub path: PathBuf,
    /// Namespaces (globs) that may use it.
    #[serde(default = "everything")]
    pub namespaces: Vec<Glob>,
    /// Whether what lies here can only be mounted read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Whether pods may ask for folders or images to be made here.
    #[serde(default)]
    pub create: bool,
}

/// Filesystems in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImagePolicy {
    /// Where images may lie. The longest root that contains an image decides alone.
    pub roots: Vec<Root>,
    /// The most that a new image may have, and that one may grow to.
    pub max_size: Quantity,
    /// The filesystems that may be mounted: the kernel's code for each of them reads what others wrote.
    pub fs_types: Vec<ImageFs>,
}

/// A filesystem that an image or a block device may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the filesystems'")]
pub enum ImageFs {
    Ext4,
    Xfs,
    Btrfs,
    Erofs,
    Squashfs,
}

impl ImageFs {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Erofs, Self::Squashfs];

    /// The name as `fsType` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Erofs => "erofs",
            Self::Squashfs => "squashfs",
        }
    }
}

/// Layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OverlayPolicy {
    /// Where lower layers (folders or images) may lie; they are only read.
    pub lower: Vec<Root>,
    /// Where upper layers on disk may lie; one in memory needs none.
    pub upper: Vec<Root>,
    /// The most that an upper layer in memory may ask for; also what one that asks for nothing gets.
    pub max_size: Quantity,
}

/// Block devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BlockPolicy {
    /// Globs over the name that the pod writes, such as `/dev/disk/by-id/virtio-data-*`; `*` stays within
    /// one folder.
    pub devices: Vec<Glob>,
    /// Whether pods may ask for `format: ifEmpty`.
    pub format: bool,
    /// Namespaces (globs) that may use it.
    pub namespaces: Vec<Glob>,
}

/// NFS servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NfsPolicy {
    /// Globs over the server's name or address as the pod writes it, in any case.
    pub servers: Vec<Glob>,
    /// Namespaces (globs) that may use it.
    pub namespaces: Vec<Glob>,
    /// The distribution's mount.nfs.
    pub helper: PathBuf,
}

/// SMB servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CifsPolicy {
    /// Globs over the server's name or address as the pod writes it, in any case.
    pub servers: Vec<Glob>,
    /// Namespaces (globs) that may use it.
    pub namespaces: Vec<Glob>,
    /// The distribution's mount.cifs.
    pub helper: PathBuf,
}

/// Programs that serve a filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FusePolicy {
    /// By the name that the option `profile` gives. A pod never names a program.
    pub profiles: BTreeMap<String, Profile>,
}

impl Default for Backends {
    fn default() -> Self {
        Self {
            tmpfs: Some(TmpfsPolicy::default()),
            nfs: Some(NfsPolicy::default()),
            cifs: Some(CifsPolicy::default()),
            ..Self::none()
        }
    }
}

impl Backends {
    /// All off.
    pub const fn none() -> Self {
        Self {
            tmpfs: None,
            bind: None,
            image: None,
            overlay: None,
            block: None,
            nfs: None,
            cifs: None,
            fuse: None,
        }
    }
}

impl Default for TmpfsPolicy {
    fn default() -> Self {
        Self {
            namespaces: everything(),
            default_size: Quantity::mebibytes(64),
            max_size: Quantity::mebibytes(256),
            max_inodes: 1_000_000,
        }
    }
}

impl Default for ImagePolicy {
    fn default() -> Self {
        Self { roots: Vec::new(), max_size: Quantity::gibibytes(10), fs_types: ImageFs::ALL.to_vec() }
    }
}

impl Default for OverlayPolicy {
    fn default() -> Self {
        Self { lower: Vec::new(), upper: Vec::new(), max_size: Quantity::mebibytes(256) }
    }
}

impl Default for BlockPolicy {
    fn default() -> Self {
        Self { devices: Vec::new(), format: false, namespaces: everything() }
    }
}

impl Default for NfsPolicy {
    fn default() -> Self {
        Self { servers: everything(), namespaces: everything(), helper: PathBuf::from("/sbin/mount.nfs") }
    }
}

impl Default for CifsPolicy {
    fn default() -> Self {
        Self { servers: everything(), namespaces: everything(), helper: PathBuf::from("/sbin/mount.cifs") }
    }
}

/// A backend that is named is on, also when nothing stands behind its name.
fn on<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<Option<T>, D::Error> {
    Option::<T>::deserialize(from).map(|given| Some(given.unwrap_or_default()))
}

/// A list without anything in it means nothing that could be guessed.
pub(super) fn named<'de, D: Deserializer<'de>>(from: D) -> Result<Backends, D::Error> {
    Option::<Backends>::deserialize(from)?.ok_or_else(|| {
        D::Error::custom(
            "`backends` has nothing behind it; list the backends that are on, such as `tmpfs: {}`, write \
             `backends: {}` for none, or leave it out for tmpfs, nfs and cifs",
        )
    })
}
