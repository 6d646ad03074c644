//! Sources that are more than a path: groups, and the node's own sensors.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use harness::call::tool;
use harness::device_manager::DeviceManager;
use harness::device_node::{DeviceNode, UsbSerial};
use harness::suite::device;
use libtest_mimic::Trial;

use crate::{OTHER, SERIAL};

pub fn trials() -> Vec<Trial> {
    vec![
        device("the_nodes_below_each_parent_are_one_device", &[], below_parents),
        device("a_fixed_list_of_nodes_is_one_device", &[], fixed_list),
        device("memory_is_offered_in_units", &[], memory),
        device("free_space_is_a_condition", &[], free_space),
        device("free_space_is_offered_in_units", &[], space),
    ]
}

const HEADSET: &str = "example.com/headset";

/// The nodes of `count` devices that a pod gets.
#[track_caller]
fn nodes(kubelet: &DeviceManager, resource: &str, count: usize) -> BTreeSet<String> {
    let (pod, answer) = kubelet.allocate(resource, count);
    kubelet.end(&pod);
    answer.devices.into_iter().map(|device| device.host_path).collect()
}

fn below_parents(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let one =
        UsbSerial { port: "1-1", vendor: "0403", product: "6001", serial: "A1", tty: "ttyUSB0", number: 4 };
    node.sysfs.usb_serial(&one);
    let two = UsbSerial { port: "1-2", serial: "A2", tty: "ttyUSB1", number: 5, ..one };
    let two = node.sysfs.usb_serial(&two);
    // Of another maker, and not meant.
    node.sysfs.usb_serial(&UsbSerial { port: "1-3", vendor: "1111", tty: "ttyUSB2", number: 6, ..one });
    for n in 0..3 {
        node.plug(&format!("ttyUSB{n}"), 188, n);
    }
    let buttons = format!("{two}/1-2:1.1/hidraw/hidraw0");
    let uevent = "MAJOR=240\nMINOR=0\nDEVNAME=hidraw0";
    node.sysfs.device(&buttons, "class/hidraw", &[("dev", "240:0"), ("uevent", uevent)]);
    node.plug("hidraw0", 240, 0);
    let text = "discovery: {rescan: 1s}\nresources:\n- name: example.com/headset\n  devices:\n  - group:\n      \
                parent: {subsystem: usb, attributes: {idVendor: \"0403\"}}\n      \
                members: [{subsystem: tty}, {subsystem: hidraw, optional: true, node: {permissions: r}}]\n";
    let _daemon = node.offer(text);
    let both = kubelet.wait_for_healthy(HEADSET, 2).healthy;
    let (pod, answer) = kubelet.allocate(HEADSET, 2);
    let given: BTreeSet<_> =
        answer.devices.iter().map(|d| (d.host_path.as_str(), d.permissions.as_str())).collect();
    let expect = [("/dev/hidraw0", "r"), ("/dev/ttyUSB0", "rw"), ("/dev/ttyUSB1", "rw")];
    assert_eq!(given, BTreeSet::from(expect));
    kubelet.end(&pod);
    // Without its buttons it is whole, without its terminal it is not.
    node.unplug("hidraw0");
    node.sysfs.remove(&buttons);
    node.unplug("ttyUSB0");
    let one = kubelet.wait_for_healthy(HEADSET, 1);
    assert_eq!(one.capacity(), 2);
    assert!(one.healthy.is_subset(&both));
    assert_eq!(nodes(&kubelet, HEADSET, 1), BTreeSet::from(["/dev/ttyUSB1".to_owned()]));
    node.plug("ttyUSB0", 188, 0);
    assert_eq!(kubelet.wait_for_healthy(HEADSET, 2).healthy, both);
}

fn fixed_list(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let text = "resources:\n- name: example.com/headset\n  devices:\n  - group:\n      \
                members: [{glob: /dev/card, node: {containerPath: /dev/sound}}, {glob: /dev/mixer*, optional: true}]\n";
    let _daemon = node.offer(text);
    let empty = kubelet.wait_for_healthy(HEADSET, 0);
    assert_eq!(empty.capacity(), 0);
    node.plug("mixer0", 116, 1);
    node.plug("mixer1", 116, 2);
    let part = kubelet.wait_for(HEADSET, |offer| offer.capacity() == 1);
    assert!(part.healthy.is_empty(), "it is not whole: {part:?}");
    node.plug("card", 116, 0);
    let whole = kubelet.wait_for_healthy(HEADSET, 1);
    assert_eq!(whole.healthy, part.unhealthy);
    let (pod, answer) = kubelet.allocate(HEADSET, 1);
    let given: BTreeSet<_> = answer.devices.iter().map(|d| (&*d.host_path, &*d.container_path)).collect();
    let expect =
        [("/dev/card", "/dev/sound"), ("/dev/mixer0", "/dev/mixer0"), ("/dev/mixer1", "/dev/mixer1")];
    assert_eq!(given, BTreeSet::from(expect));
    kubelet.end(&pod);
    node.unplug("card");
    let offer = kubelet.wait_for_healthy(HEADSET, 0);
    assert_eq!(offer.unhealthy, whole.healthy);
}

fn memory(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: usize = total.trim().trim_end_matches(" kB").parse().unwrap();
    // All but one and a half units of what is there.
    let unit = total / 10;
    let of = format!("{{of: memoryTotal, unit: {unit}Ki, reserve: {}Ki}}", unit + unit / 2);
    let most = format!("{{of: memoryTotal, unit: {unit}Ki, max: 4}}");
    let _daemon = node.offer(&format!(
        "resources:\n- {{name: {SERIAL}, devices: [{{sensor: {of}}}]}}\n- {{name: {OTHER}, devices: [{{sensor: {most}}}]}}\n"
    ));
    kubelet.wait_for_healthy(SERIAL, 8);
    kubelet.wait_for_healthy(OTHER, 4);
    let (_, answer) = kubelet.allocate(SERIAL, 8);
    assert!(answer.devices.is_empty() && answer.mounts.is_empty());
}

fn free_space(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let one = |name: &str, above: u32| {
        format!(
            "- {{name: {name}, devices: [{{count: 2}}], \
             health: {{every: 1s, checks: [{{sensor: {{disk: {{path: /run/node, above: {above}}}}}}}]}}}}\n"
        )
    };
    let _daemon = node.offer(&format!("resources:\n{}{}", one(SERIAL, 0), one(OTHER, 100)));
    kubelet.wait_for_healthy(SERIAL, 2);
    let full = kubelet.wait_for(OTHER, |offer| offer.unhealthy.len() == 2);
    assert!(full.healthy.is_empty());
    let free = kubelet.wait_up_to(OTHER, Duration::from_secs(2), |offer| !offer.healthy.is_empty());
    assert!(free.is_none(), "{free:?}");
}

fn space(node: &DeviceNode) {
    let kubelet = node.kubelet();
    tool(&["mkdir", "/run/node/scratch"]);
    tool(&["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "/run/node/scratch"]);
    let sensor = |of: &str, reserve: &str| {
        format!("{{sensor: {{of: {{{of}: /run/node/scratch}}, unit: 1Mi, reserve: {reserve}, every: 1s}}}}")
    };
    let (total, free) = (sensor("diskTotal", "0"), sensor("diskFree", "2Mi"));
    let _daemon = node.offer(&format!(
        "resources:\n- {{name: {SERIAL}, devices: [{total}]}}\n- {{name: {OTHER}, devices: [{free}]}}\n"
    ));
    kubelet.wait_for_healthy(SERIAL, 8);
    kubelet.wait_for_healthy(OTHER, 6);
    fs::write("/run/node/scratch/data", vec![0; 3 << 20]).unwrap();
    let fewer = kubelet.wait_for_healthy(OTHER, 3);
    assert_eq!(fewer.capacity(), 6);
    assert_eq!(kubelet.offer(SERIAL).unwrap().healthy.len(), 8);
    fs::remove_file("/run/node/scratch/data").unwrap();
    kubelet.wait_for_healthy(OTHER, 6);
}
