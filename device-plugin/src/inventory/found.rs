//! A device as a source finds it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::NodeOptions;

/// What one look at a source showed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Looked {
    /// The devices, each identity once.
    pub found: Vec<Found>,
    /// What came near and is not meant, for people who wonder why.
    pub rejected: Vec<Rejected>,
    /// Why the source could not be looked at, so that `found` is not all: what it had is still there, and ailing.
    pub failed: Option<String>,
}

/// Something that a source considered and did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What: a path, or the kernel's name.
    pub what: String,
    /// Why not, in a person's words: `vendor is 1d6b, not 0403`.
    pub why: String,
}

/// A device that is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// What the device is known by over reboots and re-plugging: made of serial number, port, address or path, and
    /// never of a number that the kernel counts. `usb:0403:6001:A50285BI`, `path:/dev/serial/by-id/x`.
    pub identity: String,
    /// The kernel's or the link's own name, for people and templates: `ttyUSB0`.
    pub name: String,
    /// What a container gets.
    pub nodes: Vec<Node>,
    /// The device's folder in sysfs, as this process sees it, without symlinks.
    pub sysfs: Option<PathBuf>,
    /// What it hangs on: the folder of its hub or bridge in sysfs, for those of the same parent.
    pub parent: Option<String>,
    /// The NUMA node that it is near.
    pub numa: Option<u32>,
    /// For templates: `serial`, `vendor`, `port` …
    pub attributes: BTreeMap<String, String>,
    /// Why it can't be had although it is known: a member is missing, no carrier, the command says so.
    pub ailing: Option<String>,
}

impl Found {
    /// Gives back the room that was kept for more: ten thousand devices are kept for as long as the daemon runs.
    #[must_use]
    pub fn compact(mut self) -> Self {
        self.identity.shrink_to_fit();
        self.name.shrink_to_fit();
        self.nodes.shrink_to_fit();
        for node in &mut self.nodes {
            node.path.shrink_to_fit();
            node.real.shrink_to_fit();
        }
        self
    }
}

/// A device that the kubelet chose, or may choose.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// Its ID, as the kubelet knows it.
    pub id: &'a str,
    /// The device behind it.
    pub found: &'a Found,
    /// Which of the device's replicas it is, from 0.
    pub replica: u32,
}

/// A file that a container gets with a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The path that is handed out, as the node names it: the stable symlink where there is one, since the
    /// runtime resolves it anew at each start of a container.
    pub path: PathBuf,
    /// What is behind it now, as the node names it.
    pub real: PathBuf,
    /// The device number where it is a device node (`Some`), or what is mounted (`None`).
    pub device: Option<DeviceNumber>,
    /// How this one is handed out, where its member of a group says so.
    pub options: NodeOptions,
}

/// What a device node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    /// A block device, or a character device.
    pub block: bool,
    /// The driver's number.
    pub major: u32,
    /// The number below it.
    pub minor: u32,
}
