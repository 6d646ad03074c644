//! Block devices: disks, or their partitions.

use crate::config::{BlockSelector, Quantity};
use crate::inventory::{Found, Looked};

use super::anchor::{self, with_node};
use super::clean;
use super::links::Told;
use super::parents::Parents;
use super::rejected::{Match, Rejections};
use super::tree::{Device, Reading};
use super::view::View;
use super::watching::Watching;

/// `size` counts in these, whatever the device's own blocks are.
const SECTOR: u64 = 512;

/// The block devices that match.
pub fn look(wanted: &BlockSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let mut found = Vec::new();
    let parents = Parents::new(&wanted.parents);
    for device in rejected.or_note("block", view.sys.subsystem("block")) {
        let disk = Disk::of(&device, view);
        let mut matching = Match::default();
        matching.check(|| whole_or_part(wanted, &device));
        matching.check(|| hidden(&device));
        matching.glob("name", wanted.name.as_ref(), || Ok(device.name()));
        matching.check(|| size(wanted, &device, view));
        matching.glob("model", wanted.model.as_ref(), || disk.model());
        matching.glob("serial", wanted.serial.as_ref(), || disk.serial(view));
        matching.glob("wwn", wanted.wwn.as_ref(), || disk.wwn());
        matching.check(|| removable(wanted, &disk));
        matching.check(|| parents.above(&device, &view.sys));
        if matching.decide(|| device.name(), &mut rejected) {
            found.push(take(&device, &disk, view));
        }
    }
    Looked { found, rejected: rejected.finish(), ..Looked::default() }
}

/// What to watch.
pub fn watch(wanted: &BlockSelector, watching: &mut Watching) {
    watching.subsystem("block");
    watching.parents(&wanted.parents);
}

/// A whole disk, which its partitions have these from.
#[derive(Debug)]
struct Disk {
    device: Device,
}

impl Disk {
    fn of(device: &Device, view: &View) -> Self {
        let whole = if is_partition(device) { view.sys.above(device).next() } else { None };
        Self { device: whole.unwrap_or_else(|| device.clone()) }
    }

    fn model(&self) -> Reading {
        self.device.attribute("device/model")
    }

    /// NVMe, MMC and virtio say it as they are, SCSI in a page of its own, and USB's bridge in its stead.
    fn serial(&self, view: &View) -> Reading {
        let text = ["serial", "device/serial"].into_iter().find_map(|name| self.device.text(name));
        let text = text.or_else(|| self.unit_serial()).or_else(|| self.stick_serial(view));
        text.ok_or_else(|| "is not there".to_owned())
    }

    fn unit_serial(&self) -> Option<String> {
        // Four bytes of heading before the text (SPC, vital product data page 80h).
        let page = self.device.bytes("device/vpd_pg80")?;
        let text = String::from_utf8_lossy(page.get(4..)?).into_owned();
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn stick_serial(&self, view: &View) -> Option<String> {
        let folder = self.device.folder();
        let below = super::usb_index::is_below_usb(folder);
        below.then(|| view.usb().around(folder)).flatten()?.serial.clone()
    }

    fn wwn(&self) -> Reading {
        let text = ["wwid", "device/wwid"].into_iter().find_map(|name| self.device.text(name));
        text.ok_or_else(|| "is not there".to_owned())
    }

    /// The name that a mapped device or an array was given.
    fn uuid(&self) -> Option<String> {
        ["dm/uuid", "md/uuid"].into_iter().find_map(|name| self.device.text(name))
    }
}

fn is_partition(device: &Device) -> bool {
    device.text("partition").is_some()
}

fn whole_or_part(wanted: &BlockSelector, device: &Device) -> Result<(), String> {
    match (wanted.partitions, is_partition(device)) {
        (true, false) => Err("it is a whole disk, not a partition".to_owned()),
        (false, true) => Err("it is a partition, not a whole disk".to_owned()),
        _ => Ok(()),
    }
}

/// One path of several to an NVMe namespace has no node of its own.
fn hidden(device: &Device) -> Result<(), String> {
    match device.text("hidden").as_deref() {
        Some("1") => Err("it is a path to another one, and has no node".to_owned()),
        _ => Ok(()),
    }
}

/// A loop device, a RAM disk or a mapping of no size stands for nothing; a card reader without a card is there.
fn size(wanted: &BlockSelector, device: &Device, view: &View) -> Result<(), String> {
    let bytes = bytes(device);
    if bytes == 0 && device.folder().starts_with(view.sys.seen().join("devices/virtual")) {
        return Err("nothing is in it".to_owned());
    }
    let text = || bytes.to_string().parse::<Quantity>().unwrap_or_default();
    match (wanted.min_size, wanted.max_size) {
        (Some(least), _) if bytes < least.bytes() => Err(format!("size is {}, less than {least}", text())),
        (_, Some(most)) if bytes > most.bytes() => Err(format!("size is {}, more than {most}", text())),
        _ => Ok(()),
    }
}

fn bytes(device: &Device) -> u64 {
    let sectors: u64 = device.text("size").and_then(|text| text.parse().ok()).unwrap_or_default();
    sectors.saturating_mul(SECTOR)
}

fn removable(wanted: &BlockSelector, disk: &Disk) -> Result<(), String> {
    let is = disk.device.text("removable").as_deref() == Some("1");
    match wanted.removable {
        Some(true) if !is => Err("it is not removable".to_owned()),
        Some(false) if is => Err("it is removable".to_owned()),
        _ => Ok(()),
    }
}

/// By its world-wide name, else by model and serial number, else by where it is: `sda` is who comes first.
pub fn identity(device: &Device, view: &View) -> (String, Told) {
    let disk = Disk::of(device, view);
    let part = device.text("partition").map(|number| format!(":part{}", clean(&number))).unwrap_or_default();
    let (whole, told) = whole_identity(&disk, view);
    (format!("{whole}{part}"), told)
}

fn whole_identity(disk: &Disk, view: &View) -> (String, Told) {
    if let Some(uuid) = disk.uuid() {
        return (format!("block:{}", clean(&uuid)), Told::Itself);
    }
    let anchor = anchor::of(&disk.device, view);
    let on_usb = anchor.as_ref().is_some_and(|(anchor, ..)| anchor.starts_with("usb:"));
    // What SCSI makes up from the names of maker and model may be every stick's, and so may its serial number.
    if let Ok(wwn) = disk.wwn()
        && !(on_usb && wwn.starts_with("t10."))
    {
        return (format!("block:{}", clean(&wwn)), Told::Itself);
    }
    match (disk.serial(view), anchor) {
        (_, Some((anchor, told, _))) if on_usb => (format!("{anchor}:{}", unit(&disk.device)), told),
        (Ok(serial), _) => {
            let model = disk.model().ok().filter(|model| !model.is_empty());
            let model = model.map(|model| format!("{}:", clean(&model))).unwrap_or_default();
            (format!("block:{model}{}", clean(&serial)), Told::Itself)
        }
        (Err(_), Some((anchor, _, _))) => (format!("{anchor}:{}", unit(&disk.device)), Told::Place),
        (Err(_), None) => (format!("block:{}", disk.device.name()), Told::Itself),
    }
}

/// Which of the disks there: the target and unit of SCSI, behind the host's number, which is counted.
fn unit(disk: &Device) -> String {
    let scsi = disk.link("device").and_then(|name| Some(name.split_once(':')?.1.to_owned()));
    scsi.map_or_else(|| "disk".to_owned(), |unit| format!("disk:{unit}"))
}

fn take(device: &Device, disk: &Disk, view: &View) -> Found {
    let (identity, told) = identity(device, view);
    let mut found = with_node(device, identity, told, view);
    let known = [("model", disk.model()), ("serial", disk.serial(view)), ("wwn", disk.wwn())];
    for (name, reading) in known {
        found.attributes.extend(reading.ok().map(|text| (name.to_owned(), clean(&text))));
    }
    found.attributes.insert("size".to_owned(), bytes(device).to_string());
    found
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
