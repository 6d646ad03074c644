use super::super::made::{CONTROLLER, Made, selector};
use crate::config::Host;

const DISK: &str = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";

fn disks(made: &Made) {
    made.device("pci0000:00/0000:00:17.0", "bus/pci", &[]);
    made.device(DISK, "bus/scsi", &[("model", "Big Disk        \n"), ("wwid", "naa.5000c500a1b2c3d4\n")]);
    std::fs::write(made.at("/sys/devices").join(DISK).join("vpd_pg80"), b"\x00\x80\x00\x08  Z1D5\x00\x00")
        .unwrap();
    let sda = format!("{DISK}/block/sda");
    let attributes = [("size", "33554432\n"), ("removable", "0\n")];
    made.with_node(&sda, "class/block", &attributes, "sda", (8, 0));
    made.link(&format!("/sys/devices/{sda}/device"), "../../../0:0:0:0");
    let part = [("size", "2048\n"), ("partition", "1\n")];
    made.with_node(&format!("{sda}/sda1"), "class/block", &part, "sda1", (8, 1));
    made.with_node("virtual/block/loop0", "class/block", &[("size", "0\n")], "loop0", (7, 0));
    made.with_node("virtual/block/loop1", "class/block", &[("size", "8\n")], "loop1", (7, 1));
}

#[test]
fn a_disk_is_known_by_its_world_wide_name() {
    let made = Made::new();
    disks(&made);
    made.link("/dev/disk/by-path/pci-0000:00:17.0-ata-1", "../../sda");
    made.link("/dev/disk/by-id/wwn-0x5000c500a1b2c3d4", "../../sda");
    let looked =
        made.look("block: {model: 'Big*', serial: Z1D5, wwn: 'naa.*', removable: false, minSize: 16Gi}");
    let [found] = looked.found.as_slice() else { panic!("{looked:?}") };
    assert_eq!(found.identity, "block:naa.5000c500a1b2c3d4");
    assert_eq!(found.nodes[0].path.display().to_string(), "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4");
    assert!(found.nodes[0].device.is_some_and(|number| number.block && number.major == 8));
    assert_eq!(found.attributes.get("size").map(String::as_str), Some("17179869184"));
}

#[test]
fn partitions_are_asked_for() {
    let made = Made::new();
    disks(&made);
    let found = made.look("block: {partitions: true, model: 'Big*'}").found;
    assert_eq!(found[0].identity, "block:naa.5000c500a1b2c3d4:part1");
    assert_eq!(found[0].name, "sda1");
}

#[test]
fn a_loop_device_without_a_file_is_none() {
    let made = Made::new();
    disks(&made);
    let looked = made.look("block: {name: 'loop*'}");
    let identities: Vec<&str> = looked.found.iter().map(|found| found.identity.as_str()).collect();
    assert_eq!(identities, ["block:loop1"]);
    assert!(looked.rejected.iter().any(|one| one.what == "loop0" && one.why == "nothing is in it"));
}

#[test]
fn each_condition_has_its_reason() {
    let made = Made::new();
    disks(&made);
    for (selector, why) in [
        ("block: {name: sda, minSize: 32Gi}", "size is 16Gi, less than 32Gi"),
        ("block: {name: sda, maxSize: 8Gi}", "size is 16Gi, more than 8Gi"),
        ("block: {name: sda, removable: true}", "it is not removable"),
        ("block: {name: sda, serial: 'X*'}", "serial is Z1D5, not X*"),
        ("block: {partitions: true}", "it is a whole disk, not a partition"),
        ("block: {}", "it is a partition, not a whole disk"),
        ("block: {name: loop1, wwn: '*'}", "wwn is not there"),
    ] {
        let rejected = made.look(selector).rejected;
        assert!(rejected.iter().any(|one| one.why == why), "{selector}: {rejected:?}");
    }
}

#[test]
fn a_stick_is_known_as_the_stick_that_it_is() {
    let made = Made::new();
    let stick = format!("{CONTROLLER}/usb1/1-1");
    made.controller().device(
        &stick,
        "bus/usb",
        &[("idVendor", "0781\n"), ("idProduct", "5581\n"), ("serial", "S9\n")],
    );
    let unit = format!("{stick}/1-1:1.0/host6/target6:0:0/6:0:0:1");
    made.device(&unit, "bus/scsi", &[("wwid", "t10.SanDisk Ultra\n")]);
    made.with_node(&format!("{unit}/block/sdb"), "class/block", &[("size", "0\n")], "sdb", (8, 16));
    made.link(&format!("/sys/devices/{unit}/block/sdb/device"), "../../../6:0:0:1");
    let found = made.look("block: {}").found;
    assert_eq!(found[0].identity, "usb:0781:5581:S9:1.0:disk:0:0:1");
    assert_eq!(found[0].attributes.get("serial").map(String::as_str), Some("S9"));
}

#[test]
fn the_disks_of_this_machine_do_no_harm() {
    let looked = super::super::look(&selector("block: {}"), &Host::default());
    assert!(looked.found.iter().all(|found| !found.identity.is_empty() && found.sysfs.is_some()));
}
