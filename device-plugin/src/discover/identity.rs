//! What a device is known by over reboots and re-plugging. The kernel counts `ttyUSB0`, `card1` and `nvme0` as they
//! come, so a device goes by what it hangs on, its kind, and its place among its siblings there.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::inventory::{Found, Looked, Rejected};

use super::links::Told;
use super::tree::{Device, natural};
use super::usb_index::is_below_usb;
use super::view::View;

/// What was found out about folders: many devices share them.
#[derive(Debug, Default)]
pub struct Known {
    numa: RefCell<HashMap<PathBuf, Option<u32>>>,
    siblings: RefCell<HashMap<PathBuf, Vec<Vec<u8>>>>,
}

/// The identity of anything in sysfs, and which links stay with it.
pub fn of(device: &Device, view: &View) -> (String, Told) {
    let subsystem = device.subsystem().unwrap_or_default();
    match subsystem {
        "block" => super::block::identity(device, view),
        "net" => super::net::identity(device, view),
        _ => place(device, subsystem, view),
    }
}

/// By what it hangs on: `usb:0403:6001:A5:1.0:ttyUSB`, `pci:0000:01:00.0:card`, `misc:kvm`.
fn place(device: &Device, subsystem: &str, view: &View) -> (String, Told) {
    match anchor(device, view) {
        Some((anchor, told, true)) => (anchor, told),
        Some((anchor, told, false)) => (format!("{anchor}:{}", kind(device, view)), told),
        None => (format!("{subsystem}:{}", device.name()), Told::Itself),
    }
}

/// The nearest thing that has a name of its own, and whether that is the device itself; none for what the kernel
/// makes out of nothing, whose names are fixed.
pub fn anchor(device: &Device, view: &View) -> Option<(String, Told, bool)> {
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
    let bound = view.sys.above(device).find(|above| above.subsystem().is_some())?;
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

/// The kind of a device below its anchor, `ttyUSB`, and which one of several: `video#1`. The number counts those that
/// are there together, and not what the kernel has seen since it booted.
fn kind(device: &Device, view: &View) -> String {
    let stem = stem(device.name_bytes());
    let port = device.text("device/port_number").and_then(|port| port.parse().ok());
    let number: usize = port.unwrap_or_else(|| place_among_siblings(device, &stem, view));
    let stem = super::clean(&String::from_utf8_lossy(&stem));
    if number == 0 { stem } else { format!("{stem}#{number}") }
}

fn place_among_siblings(device: &Device, stem: &[u8], view: &View) -> usize {
    let Some(folder) = device.folder().parent() else { return 0 };
    let mut known = view.known.siblings.borrow_mut();
    let names = known.entry(folder.to_owned()).or_insert_with(|| names(folder));
    let alike = names.iter().filter(|name| self::stem(name) == stem);
    alike.into_iter().position(|name| name == device.name_bytes()).unwrap_or_default()
}

fn names(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().as_encoded_bytes().to_vec()).collect();
    names.sort_by_cached_key(|name| natural(name));
    names
}

/// A name without its first number: `pcmD0p` for `pcm1D0p`.
fn stem(name: &[u8]) -> Vec<u8> {
    let from = name.iter().position(u8::is_ascii_digit).unwrap_or(name.len());
    let (word, rest) = name.split_at(from);
    let after = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    [word, rest.get(after..).unwrap_or_default()].concat()
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
        known.insert("address".to_owned(), super::shown(Path::new(pci.file_name().unwrap_or_default())));
    }
    known.extend(device.subsystem().map(|subsystem| ("subsystem".to_owned(), subsystem.to_owned())));
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

/// Each identity once: those that share one have their kernel's names added, and what is still the same after that
/// is the same device, seen twice.
pub fn distinct(mut looked: Looked) -> Looked {
    let mut count: HashMap<&str, u32> = HashMap::new();
    for found in &looked.found {
        *count.entry(&found.identity).or_default() += 1;
    }
    let shared: Vec<bool> =
        looked.found.iter().map(|found| count.get(found.identity.as_str()).is_some_and(|n| *n > 1)).collect();
    for (found, _) in looked.found.iter_mut().zip(shared).filter(|(_, shared)| *shared) {
        found.identity = format!("{}@{}", found.identity, found.name);
    }
    let mut seen = std::collections::HashSet::new();
    let twice: Vec<bool> = looked.found.iter().map(|found| !seen.insert(found.identity.clone())).collect();
    let mut twice = twice.into_iter();
    looked.found.retain(|found| {
        let again = twice.next().unwrap_or_default();
        if again {
            let why = format!("is in already, as `{}`", found.identity);
            looked.rejected.push(Rejected { what: found.name.clone(), why });
        }
        !again
    });
    looked
}
