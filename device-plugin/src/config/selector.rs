//! Where devices come from: one selector a source. A device has to match all that a selector says; what it
//! does not say matches everything.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::globs;
use super::{Glob, Hex, NodeOptions, Pattern, Quantity, Span};

/// One source of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Selector {
    /// Files below /dev (or elsewhere) by their path.
    Path(PathSelector),
    /// USB devices.
    Usb(UsbSelector),
    /// PCI devices.
    Pci(PciSelector),
    /// Anything that sysfs lists, by its attributes and those of its parents.
    Sysfs(SysfsSelector),
    /// Network interfaces.
    Net(NetSelector),
    /// Block devices.
    Block(BlockSelector),
    /// Character devices by number.
    Char(CharSelector),
    /// Several nodes that are one device.
    Group(GroupSelector),
    /// So many, without anything behind them: licences, slots.
    Count(Counted),
    /// As many as a file says.
    File(FileSelector),
    /// As many as a command says.
    Command(CommandSelector),
    /// As many as a sensor of the node has to give.
    Sensor(SensorSelector),
}

/// Files by their path, as the node names them; a device is known by the path that matched. One that several paths
/// lead to is one device, by the first pattern's first path. A symlink must not lead out of /dev; elsewhere, not out of
/// the folder that a pattern begins with, before its first `*`, or of `below`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PathSelector {
    /// A shell pattern of whole paths, or a list of them; `*` stops at `/`, `**` does not. `glob` or `regex` is needed.
    #[serde(deserialize_with = "globs::read")]
    #[schemars(schema_with = "globs::schema")]
    pub glob: Vec<Glob>,
    /// A regular expression for the whole path.
    pub regex: Option<Pattern>,
    /// The folder that `regex` looks through, eight folders deep; /dev without it. Folders that everybody may write
    /// to, as /dev/shm, are left out, as they are for `**`.
    pub below: Option<PathBuf>,
    /// Paths that are not meant: a pattern, or a list.
    #[serde(deserialize_with = "globs::read")]
    #[schemars(schema_with = "globs::schema")]
    pub exclude: Vec<Glob>,
    /// What a match has to be behind its symlinks; empty: a character or block device.
    pub kinds: Vec<FileKind>,
    /// All that match are one device, and not one each.
    pub together: bool,
    /// The device is there, and unhealthy, before the first file is: for a path without `*`.
    pub expected: bool,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A plain file: it is mounted into the container.
    File,
    /// A folder: mounted.
    Folder,
    /// A FIFO: mounted.
    Fifo,
    /// A Unix socket: mounted.
    Socket,
}

impl FileKind {
    /// Whether it is mounted; a device is handed out as one.
    pub fn is_mounted(self) -> bool {
        !matches!(self, Self::Char | Self::Block)
    }

    /// In a person's words: `a character device`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Char => "a character device",
            Self::Block => "a block device",
            Self::File => "a plain file",
            Self::Folder => "a folder",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
        }
    }
}

/// USB devices. Numbers are hexadecimal, as `lsusb` prints them. A device is known by vendor, product and serial
/// number; by its port where it has none, or another one claims the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UsbSelector {
    /// `idVendor`.
    pub vendor: Option<Hex<4>>,
    /// `idProduct`.
    pub product: Option<Hex<4>>,
    /// The serial number.
    pub serial: Option<Glob>,
    /// The port that it is plugged into, as the kernel names it: `1-1.4`.
    pub port: Option<Glob>,
    /// One of its interfaces has this class: `02` (CDC), `0e` (video) …
    pub interface_class: Option<Hex<2>>,
    /// What is handed out: `usb` for the whole device (/dev/bus/usb), and subsystems (`tty`, `video4linux`,
    /// `hidraw`, `sound`, `block` …) for the nodes below it. Empty: `usb`. A device that has none of these is not
    /// meant; one that lacks some of them is unhealthy.
    pub nodes: Vec<String>,
}

/// PCI devices. Numbers are hexadecimal, as `lspci -n` prints them. A device is known by its address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PciSelector {
    /// Vendor.
    pub vendor: Option<Hex<4>>,
    /// Device.
    pub device: Option<Hex<4>>,
    /// How the class begins: `03` any display, `0302` a 3D controller, `030000` VGA.
    pub class: Option<PciClass>,
    /// The bound driver.
    pub driver: Option<Glob>,
    /// `0000:01:00.0`.
    pub address: Option<Glob>,
    /// What is handed out: subsystems (`drm`, `nvme`, `infiniband` …) for the nodes below it, or `vfio` for the
    /// node of its IOMMU group with /dev/vfio/vfio. Empty: all nodes below it, or none, for its address alone.
    pub nodes: Vec<String>,
}

/// How a PCI class begins: two, four or six hexadecimal digits (class, subclass, interface).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^(0x)?([0-9a-fA-F]{2}){1,3}$"))]
pub struct PciClass(String);

impl PciClass {
    /// In lower case, without `0x`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PciClass {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or(&text).to_ascii_lowercase();
        if !matches!(digits.len(), 2 | 4 | 6) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!(
                "`{text}` is not how a PCI class begins: write `\"03\"`, `\"0302\"` or `\"030200\"`"
            ));
        }
        Ok(Self(digits))
    }
}

impl From<PciClass> for String {
    fn from(class: PciClass) -> Self {
        class.0
    }
}

/// Anything that sysfs lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SysfsSelector {
    /// A folder of /sys/class or /sys/bus: `hidraw`, `tty`, `video4linux`, `gpio` …
    pub subsystem: String,
    /// The kernel's name of the device.
    #[serde(default)]
    pub name: Option<Glob>,
    /// Attributes of the device, by their path below it: `{idVendor: "0403"}`, `{device/name: "*"}`.
    #[serde(default)]
    pub attributes: BTreeMap<String, Glob>,
    /// Parents that it must have, each somewhere above it.
    #[serde(default)]
    pub parents: Vec<ParentMatch>,
}

/// A parent of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ParentMatch {
    /// Its subsystem: `usb`, `pci` …
    pub subsystem: Option<String>,
    /// Its driver.
    pub driver: Option<Glob>,
    /// The kernel's name of it.
    pub name: Option<Glob>,
    /// Its attributes.
    pub attributes: BTreeMap<String, Glob>,
}

/// Network interfaces of the namespace that the daemon runs in. They have no node: a container gets the name. One is
/// known by the PCI or USB device that it belongs to, and else by its permanent address; a virtual one by its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetSelector {
    /// The interface's name.
    pub name: Option<Glob>,
    /// The driver of the device behind it.
    pub driver: Option<Glob>,
    /// Attributes: `{speed: "10000"}`, `{address: "02:*"}`.
    pub attributes: BTreeMap<String, Glob>,
    /// Parents of the device behind it.
    pub parents: Vec<ParentMatch>,
    /// Those without a device behind them (bridges, veths) are meant, too.
    pub r#virtual: bool,
    /// One without carrier is unhealthy.
    pub needs_carrier: bool,
}

/// Block devices, known by world-wide name or serial number, and by where they are without both. What is virtual and
/// of no size (a loop device without a file) is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BlockSelector {
    /// The kernel's name: `sd*`, `nvme0n1`.
    pub name: Option<Glob>,
    /// Model.
    pub model: Option<Glob>,
    /// Serial number.
    pub serial: Option<Glob>,
    /// World-wide name, as sysfs has it: `naa.5000…`, `eui.…`.
    pub wwn: Option<Glob>,
    /// At least so large.
    pub min_size: Option<Quantity>,
    /// At most so large.
    pub max_size: Option<Quantity>,
    /// Removable, or not.
    pub removable: Option<bool>,
    /// Partitions are meant, and not whole disks.
    pub partitions: bool,
    /// Parents that it must have.
    pub parents: Vec<ParentMatch>,
}

/// Character devices by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CharSelector {
    /// The driver's number, as in `ls -l` or /proc/devices.
    pub major: u32,
    /// The first number below it; all without it.
    #[serde(default)]
    pub minor: Option<u32>,
    /// The last one, where a range is meant.
    #[serde(default)]
    pub last_minor: Option<u32>,
}

/// Several nodes that are one device: those below one parent, or those of a fixed list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GroupSelector {
    /// What they are all below; each match that has a member is one device. Without it, all members make one device.
    pub parent: Option<ParentMatch>,
    /// What belongs to it.
    pub members: Vec<Member>,
}

/// A part of a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Member {
    /// Nodes of this subsystem below the parent (with `parent` only).
    pub subsystem: Option<String>,
    /// Paths: of the nodes below the parent those that have such a path or link; without `parent`, files by it.
    pub glob: Option<Glob>,
    /// The device is whole without it; else it is unhealthy.
    pub optional: bool,
    /// At most so many nodes of it; all without it.
    pub limit: Option<u32>,
    /// How these are handed out; what is not said here is as in the resource's `allocate`.
    pub node: NodeOptions,
}

/// So many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Counted(pub u32);

/// As many as a file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSelector {
    /// A file with a whole number.
    pub path: PathBuf,
    /// At most so many.
    #[serde(default = "many")]
    pub max: u32,
}

/// As many as a command says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandSelector {
    /// The program with its arguments; no shell. It prints a number, or JSON: a number, or a list of
    /// `{"id": TEXT, "healthy": BOOL, "env": {NAME: TEXT}}`.
    pub run: Vec<String>,
    /// How long it may take: at most 30s.
    #[serde(default = "soon")]
    pub timeout: Span,
    /// How often it is asked.
    #[serde(default = "minute")]
    pub every: Span,
    /// At most so many.
    #[serde(default = "many")]
    pub max: u32,
}

/// As many as a sensor of the node has to give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SensorSelector {
    /// What is counted.
    pub of: Measure,
    /// One device stands for so much: `1Gi`.
    pub unit: Quantity,
    /// So much is left alone.
    #[serde(default)]
    pub reserve: Quantity,
    /// At most so many.
    #[serde(default = "many")]
    pub max: u32,
    /// How often it is measured.
    #[serde(default = "minute")]
    pub every: Span,
}

/// What of the node can be counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// Memory of the node.
    MemoryTotal,
    /// Memory that is available now.
    MemoryAvailable,
    /// Space of the filesystem that this path is on.
    DiskTotal(PathBuf),
    /// Space that is free there now.
    DiskFree(PathBuf),
}

fn many() -> u32 {
    10_000
}

fn soon() -> Span {
    Span::seconds(5)
}

fn minute() -> Span {
    Span::seconds(60)
}
