//! What a device hangs on, and what is known of it by that: its USB or PCI device, its neighbours, its NUMA node.

use std::collections::BTreeMap;
use std::path::Path;

use crate::inventory::Found;

use super::links::Told;
use super::nodes;
use super::tree::Device;
use super::usb_index::is_below_usb;
use super::view::View;

/// The subsystem of the ports of UARTs.
pub const SERIAL_PORT: &str = "serial-base";

/// The nearest thing that has a name of its own, and whether that is the device itself; none for what the kernel
/// makes out of nothing, whose names are fixed.
pub fn of(device: &Device, view: &View) -> Option<(String, Told, bool)> {
    let folder = device.folder();
    if let Some(stick) = is_below_usb(folder).then(|| view.usb().around(folder)).flatten() {
        let (identity, told) = view.usb().identity(stick);
        let mut below = folder.strip_prefix(stick.device.folder()).unwrap_or(Path::new("")).components();
        let interface = below.next().and_then(|part| part.as_os_str().to_str());
        return Some(match interface.and_then(|name| name.split_once(':')) {
            Some((_, number)) => (format!("{identity}:{number}"), told, below.next().is_none()),
            None => (identity, told, interface.is_none()),
        });
    }
    if let Some(pci) = pci(folder) {
        let address = pci.file_name().unwrap_or_default().to_string_lossy();
        return Some((format!("pci:{address}"), Told::Itself, pci == folder));
    }
    let virtual_ones = view.sys.seen().join("devices/virtual");
    if folder.starts_with(virtual_ones) {
        return None;
    }
    let has_name = |above: &Device| above.subsystem().is_some_and(|subsystem| subsystem != SERIAL_PORT);
    let bound = view.sys.above(device).find(has_name)?;
    let subsystem = bound.subsystem().unwrap_or_default();
    Some((format!("{subsystem}:{}", bound.name()), Told::Itself, false))
}

/// The nearest PCI device at or above a folder.
pub fn pci(folder: &Path) -> Option<&Path> {
    // Without a colon there is none, and this is asked of each device.
    let may_be = folder.as_os_str().as_encoded_bytes().contains(&b':');
    folder.ancestors().filter(|_| may_be).find(|above| is_pci(above))
}

/// Whether a folder is a PCI device's: `0000:01:00.0`.
fn is_pci(folder: &Path) -> bool {
    let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { return false };
    let hex = |text: &str, long: std::ops::RangeInclusive<usize>| {
        long.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = name.split([':', '.']).collect();
    match parts.as_slice() {
        [domain, bus, device, function] => {
            name.contains('.')
                && hex(domain, 4..=8)
                && hex(bus, 2..=2)
                && hex(device, 2..=2)
                && hex(function, 1..=1)
        }
        _ => false,
    }
}

/// The NUMA node of the nearest that knows it; the kernel's -1 is none.
pub fn numa(device: &Device, view: &View) -> Option<u32> {
    let mut passed = Vec::new();
    let mut found = None;
    for at in std::iter::once(device.clone()).chain(view.sys.above(device)) {
        if let Some(known) = view.known.numa.borrow().get(at.folder()) {
            found = *known;
            break;
        }
        let text = at.text("numa_node");
        passed.push(at);
        if let Some(text) = text {
            found = text.parse().ok();
            break;
        }
    }
    // The device itself is asked for once.
    let folders = passed.into_iter().filter(|at| at != device).map(|at| (at.folder().to_owned(), found));
    view.known.numa.borrow_mut().extend(folders);
    found
}

/// The folder that it shares with its neighbours: the hub of its USB device, the bridge of its PCI device.
pub fn parent(device: &Device, view: &View) -> Option<String> {
    let folder = device.folder();
    let usb = is_below_usb(folder).then(|| view.usb().around(folder)).flatten();
    let near = match usb {
        Some(stick) => Some(stick.device.clone()),
        None => pci(folder).and_then(|pci| view.sys.at(pci)),
    };
    let near = near.or_else(|| view.sys.behind(device, "device"))?;
    view.sys.above(&near).next().map(|parent| view.sys.named(&parent))
}

/// What templates may use of any device: its USB device's and PCI device's particulars.
pub fn attributes(device: &Device, view: &View) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    let folder = device.folder();
    if let Some(stick) = is_below_usb(folder).then(|| view.usb().around(folder)).flatten() {
        known.insert("vendor".to_owned(), stick.vendor.clone());
        known.insert("product".to_owned(), stick.product.clone());
        known.insert("port".to_owned(), stick.port());
        known.extend(stick.serial.clone().map(|serial| ("serial".to_owned(), serial)));
        for (name, attribute) in [("manufacturer", "manufacturer"), ("model", "product")] {
            known.extend(stick.device.text(attribute).map(|text| (name.to_owned(), super::clean(&text))));
        }
    } else if let Some(pci) = pci(folder) {
        known.insert("pci".to_owned(), super::shown(Path::new(pci.file_name().unwrap_or_default())));
    }
    known
}

/// A device of sysfs with all that is known of it but its nodes.
pub fn found(device: &Device, identity: String, view: &View) -> Found {
    Found {
        identity,
        name: device.name(),
        sysfs: Some(device.folder().to_owned()),
        parent: parent(device, view),
        numa: numa(device, view),
        attributes: attributes(device, view),
        ..Found::default()
    }
}

/// A device with its node; one without a node is a device all the same.
pub fn with_node(device: &Device, identity: String, told: Told, view: &View) -> Found {
    let mut found = found(device, identity, view);
    match nodes::node(device, told, view) {
        Some(Ok(node)) => found.nodes.push(node),
        Some(Err(why)) => found.ailing = Some(why),
        None => {}
    }
    found
}
