//! PCI devices: the nodes below them, or VFIO's of their IOMMU group.

use std::path::Path;

use crate::config::PciSelector;
use crate::inventory::{Found, Looked};

use super::below::{self, Below, Owned};
use super::identity;
use super::links::Told;
use super::parents::driver;
use super::rejected::{Match, Rejections};
use super::tree::Device;
use super::view::View;
use super::watching::Watching;

/// The word for the node of the IOMMU group.
const VFIO: &str = "vfio";

/// The PCI devices that match.
pub fn look(wanted: &PciSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let mut found = Vec::new();
    for device in rejected.or_note("pci", view.sys.subsystem("pci")) {
        let mut matching = Match::default();
        matching.hex("vendor", wanted.vendor.as_ref(), || device.attribute("vendor"));
        matching.hex("device", wanted.device.as_ref(), || device.attribute("device"));
        matching.check(|| class(wanted, &device));
        matching.glob("address", wanted.address.as_ref(), || Ok(device.name()));
        matching.glob("driver", wanted.driver.as_ref(), || driver(&device));
        let nodes = if matching.holds() { nodes(wanted, &device, view) } else { Ok(Below::default()) };
        matching.check(|| nodes.as_ref().map(|_| ()).map_err(Clone::clone));
        if matching.decide(|| device.name(), &mut rejected) {
            found.push(take(&device, nodes.unwrap_or_default(), view));
        }
    }
    Looked { found, rejected: rejected.finish(), ..Looked::default() }
}

/// What to watch: without a word on the nodes they may be of any subsystem.
pub fn watch(wanted: &PciSelector, watching: &mut Watching) {
    watching.subsystem("pci");
    if wanted.nodes.is_empty() {
        watching.anything();
    }
    for subsystem in &wanted.nodes {
        watching.subsystem(subsystem);
        if subsystem == VFIO {
            watching.folder(Path::new("/dev"));
            watching.folder(Path::new("/dev/vfio"));
        }
    }
}

fn class(wanted: &PciSelector, device: &Device) -> Result<(), String> {
    let Some(class) = &wanted.class else { return Ok(()) };
    let found = device.attribute("class").map_err(|why| format!("class {why}"))?;
    let digits = found.strip_prefix("0x").unwrap_or(&found).to_ascii_lowercase();
    if digits.starts_with(class.as_str()) {
        return Ok(());
    }
    Err(format!("class is {}, which doesn't begin with {}", super::clean(&digits), class.as_str()))
}

/// The device's own nodes; those of what is behind it as a bridge are others'. One that has none is handed out by its
/// address, unless some were asked for.
fn nodes(wanted: &PciSelector, device: &Device, view: &View) -> Result<Below, String> {
    let own = |one: &Device| identity::pci(one.folder()) == Some(device.folder());
    let owned: Vec<Owned<'_>> = below::owned(device, view, own);
    if wanted.nodes.is_empty() {
        return Ok(Below::all(&owned, Told::Itself, view));
    }
    let subsystems: Vec<String> = wanted.nodes.iter().filter(|name| *name != VFIO).cloned().collect();
    let below = Below::of(&owned, &subsystems, Told::Itself, view);
    if subsystems.len() == wanted.nodes.len() {
        return below;
    }
    let mut below = below.unwrap_or_else(|why| Below { ailing: Some(why), ..Below::default() });
    vfio(device, &mut below, view)?;
    Ok(below)
}

/// /dev/vfio/GROUP, and the container that it is used with.
fn vfio(device: &Device, below: &mut Below, view: &View) -> Result<(), String> {
    let group = device.link("iommu_group").ok_or_else(|| "it is in no IOMMU group".to_owned())?;
    for name in [group.as_str(), "vfio"] {
        let path = Path::new("/dev/vfio").join(name);
        match view.dev.behind(&path) {
            Ok(behind) if behind.number.is_some_and(|number| !number.block) => {
                below.nodes.push(behind.node(&path));
            }
            Ok(behind) => {
                let kind = behind.kind.words();
                below.ail(format!("`{}` is {kind}, not a character device", super::shown(&path)));
            }
            Err(why) => below.ail(format!("{why}: is the device bound to vfio-pci?")),
        }
    }
    Ok(())
}

fn take(device: &Device, below: Below, view: &View) -> Found {
    let (identity, _) = identity::of(device, view);
    let mut found =
        Found { nodes: below.nodes, ailing: below.ailing, ..identity::found(device, identity, view) };
    found.attributes.insert("address".to_owned(), device.name());
    for name in ["vendor", "device", "class"] {
        if let Some(value) = device.text(name) {
            let digits = value.strip_prefix("0x").unwrap_or(&value);
            found.attributes.insert(name.to_owned(), super::clean(digits));
        }
    }
    found.attributes.extend(device.link("driver").map(|driver| ("driver".to_owned(), driver)));
    found
}

#[cfg(test)]
#[path = "pci_tests.rs"]
mod tests;
