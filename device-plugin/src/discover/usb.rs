//! USB devices. Each stick is a device of its own, however alike they are.

use crate::config::UsbSelector;
use crate::inventory::{Found, Looked};

use super::anchor;
use super::below::{self, Below};
use super::rejected::{Match, Rejections};
use super::tree::{Device, Reading};
use super::usb_index::Stick;
use super::view::View;
use super::watching::Watching;

/// The whole device, as libusb wants it.
const WHOLE: &str = "usb";

/// The sticks that match.
pub fn look(wanted: &UsbSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let mut found = Vec::new();
    let whole = [WHOLE.to_owned()];
    let subsystems = if wanted.nodes.is_empty() { whole.as_slice() } else { &wanted.nodes };
    if view.usb().is_empty() {
        rejected.note("usb", "no device is in /sys/bus/usb");
    }
    for stick in view.usb().all() {
        let mut matching = Match::default();
        matching.hex("vendor", wanted.vendor.as_ref(), || present(&stick.vendor));
        matching.hex("product", wanted.product.as_ref(), || present(&stick.product));
        matching.glob("serial", wanted.serial.as_ref(), || {
            stick.serial.clone().ok_or_else(|| "is not there".to_owned())
        });
        matching.glob("port", wanted.port.as_ref(), || Ok(stick.port()));
        matching.check(|| interface_class(wanted, stick, view));
        let nodes = if matching.holds() { below(stick, subsystems, view) } else { Ok(Below::default()) };
        matching.check(|| nodes.as_ref().map(|_| ()).map_err(Clone::clone));
        if matching.decide(|| what(stick), &mut rejected) {
            found.push(take(stick, nodes.unwrap_or_default(), view));
        }
    }
    Looked { found, rejected: rejected.finish(), ..Looked::default() }
}

/// What to watch.
pub fn watch(wanted: &UsbSelector, watching: &mut Watching) {
    watching.subsystem(WHOLE);
    wanted.nodes.iter().for_each(|subsystem| watching.subsystem(subsystem));
}

fn what(stick: &Stick) -> String {
    format!("{} ({}:{})", stick.port(), stick.vendor, stick.product)
}

fn present(text: &str) -> Reading {
    if text.is_empty() { Err("is not there".to_owned()) } else { Ok(text.to_owned()) }
}

/// One of the interfaces of the current configuration has the class.
fn interface_class(wanted: &UsbSelector, stick: &Stick, view: &View) -> Result<(), String> {
    let Some(class) = &wanted.interface_class else { return Ok(()) };
    let classes = interfaces(stick, view).into_iter().filter_map(|one| one.text("bInterfaceClass"));
    let mut classes: Vec<String> = classes.collect();
    if classes.iter().any(|found| found.eq_ignore_ascii_case(class.as_str())) {
        return Ok(());
    }
    classes.sort();
    classes.dedup();
    match classes.as_slice() {
        [] => Err("it has no interfaces".to_owned()),
        _ => Err(format!(
            "its interfaces are of class {}, not {}",
            super::clean(&classes.join(", ")),
            class.as_str()
        )),
    }
}

fn interfaces(stick: &Stick, view: &View) -> Vec<Device> {
    let prefix = format!("{}:", stick.port());
    let entries = std::fs::read_dir(stick.device.folder()).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_interface = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    paths.filter(is_interface).filter_map(|path| view.sys.at(&path)).collect()
}

/// The stick's own nodes; those of what is plugged into it as a hub are others'.
fn below(stick: &Stick, subsystems: &[String], view: &View) -> Result<Below, String> {
    let own = |device: &Device| {
        view.usb().around(device.folder()).is_some_and(|around| around.device == stick.device)
    };
    let (_, told) = view.usb().identity(stick);
    Below::of(&below::owned(&stick.device, view, own), subsystems, told, view)
}

fn take(stick: &Stick, below: Below, view: &View) -> Found {
    let (identity, _) = view.usb().identity(stick);
    Found { nodes: below.nodes, ailing: below.ailing, ..anchor::found(&stick.device, identity, view) }
}

#[cfg(test)]
#[path = "usb_tests.rs"]
mod tests;
