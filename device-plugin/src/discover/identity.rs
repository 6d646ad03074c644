//! What a device is known by over reboots and re-plugging. The kernel counts `ttyUSB0`, `card1` and `nvme0` as they
//! come, so a device goes by what it hangs on, its kind, and its place among its siblings there.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::inventory::{Looked, Rejected};

use super::anchor::{self, SERIAL_PORT};
use super::links::Told;
use super::tree::{Device, natural};
use super::view::View;

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
    match anchor::of(device, view) {
        Some((anchor, told, true)) => (anchor, told),
        Some((anchor, told, false)) => (format!("{anchor}:{}", kind(device, view)), told),
        None => (format!("{subsystem}:{}", device.name()), Told::Itself),
    }
}

/// The kind of a device below its anchor, `ttyUSB`, and which one of several: `video#1`. The number counts those that
/// are there together, and not what the kernel has seen since it booted.
fn kind(device: &Device, view: &View) -> String {
    let stem = stem(device.name_bytes());
    let port = device.text("device/port_number").and_then(|port| port.parse().ok());
    let number: usize = port
        .or_else(|| serial_port(device, view))
        .unwrap_or_else(|| place_among_siblings(device, &stem, view));
    let stem = super::clean(&String::from_utf8_lossy(&stem));
    if number == 0 { stem } else { format!("{stem}#{number}") }
}

/// Since Linux 6.5 each port of a UART has a device of its own between them, `00:00:0.1` for the second.
fn serial_port(device: &Device, view: &View) -> Option<usize> {
    let between = view.sys.above(device).find(|above| above.subsystem().is_some())?;
    if between.subsystem() != Some(SERIAL_PORT) {
        return None;
    }
    between.name().rsplit_once('.')?.1.parse().ok()
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
    names.sort_by(|a, b| natural(a, b));
    names
}

/// A name without its first number: `pcmD0p` for `pcm1D0p`.
fn stem(name: &[u8]) -> Vec<u8> {
    let from = name.iter().position(u8::is_ascii_digit).unwrap_or(name.len());
    let (word, rest) = name.split_at(from);
    let after = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    [word, rest.get(after..).unwrap_or_default()].concat()
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
