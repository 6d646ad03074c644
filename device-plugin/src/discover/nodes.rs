//! From a device in sysfs to its node in /dev.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};

use crate::inventory::{DeviceNumber, Node};

use super::links::Told;
use super::tree::{Device, Sys};
use super::view::View;

/// All devices that have a node, by their folders.
#[derive(Debug, Default)]
pub struct Index {
    devices: BTreeSet<Device>,
}

impl Index {
    /// Reads /sys/dev.
    pub fn read(sys: &Sys) -> Self {
        let char = sys.listing("dev/char").unwrap_or_default();
        let block = sys.listing("dev/block").unwrap_or_default();
        Self { devices: char.into_iter().chain(block).collect() }
    }

    /// Those at or below a device's folder: paths are ordered by component, so they stand together.
    pub fn below<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Device> {
        let from = (Bound::Included(device), Bound::Unbounded);
        let within = |found: &&Device| found.folder().starts_with(device.folder());
        self.devices.range::<Device, _>(from).take_while(within)
    }
}

/// The node's path as the kernel names it, and its number; `None` for a device without a node.
pub fn kernel_name(device: &Device) -> Option<(PathBuf, Option<(u32, u32)>)> {
    let event = device.uevent();
    let name = Path::new(event.get("DEVNAME")?);
    // The kernel's names are relative; another one would lead who knows where.
    if name.components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let number = event.number("MAJOR").zip(event.number("MINOR"));
    Some((Path::new("/dev").join(name), number))
}

/// The node of a device as it is handed out: `None` for a device that has none; the error is what is wrong with it.
pub fn node(device: &Device, told: Told, view: &View) -> Option<Result<Node, String>> {
    let (path, number) = kernel_name(device)?;
    Some(checked(device, &path, number, told, view))
}

fn checked(
    device: &Device,
    path: &Path,
    number: Option<(u32, u32)>,
    told: Told,
    view: &View,
) -> Result<Node, String> {
    let behind = view.dev.behind(path)?;
    if let Some((major, minor)) = number {
        // A plain file is what somebody's `echo > /dev/ttyUSB0` leaves when the device is away.
        let block = device.subsystem() == Some("block");
        if behind.number != Some(DeviceNumber { block, major, minor }) {
            let kind = behind.kind.words();
            let is = behind.number.map_or(String::new(), |n| format!(" {}:{}", n.major, n.minor));
            return Err(format!("`{}` is {kind}{is}, not {major}:{minor}", super::shown(path)));
        }
    }
    let link = view.links().stable(&behind.real, told).map(Path::to_owned);
    Ok(behind.node(&link.unwrap_or_else(|| path.to_owned())))
}
