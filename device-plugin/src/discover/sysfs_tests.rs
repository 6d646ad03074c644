use super::super::made::{CONTROLLER, Made, selector};
use crate::config::Host;

#[test]
fn each_port_of_an_adapter_is_known_by_its_stick_and_interface() {
    let made = Made::new();
    made.controller().adapter("1-1", "A5", 0);
    let looked =
        made.look(r#"sysfs: {subsystem: tty, parents: [{subsystem: usb, attributes: {idVendor: "0403"}}]}"#);
    assert_eq!(looked.found[0].identity, "usb:0403:6001:A5:1.0:ttyUSB");
    assert_eq!(looked.found[0].name, "ttyUSB0");
    let looked = made.look(r#"sysfs: {subsystem: tty, parents: [{attributes: {idVendor: "10c4"}}]}"#);
    assert_eq!(looked.rejected[0].why, "its parent `1-1`: idVendor is 0403, not 10c4");
}

#[test]
fn the_ports_of_a_uart_are_told_apart_one_by_one() {
    let made = Made::new();
    made.device("platform/serial8250", "bus/platform", &[]);
    for port in [1, 2] {
        let folder = format!("platform/serial8250/serial8250:0/serial8250:0.{port}");
        made.device("platform/serial8250/serial8250:0", "bus/serial-base", &[]);
        made.device(&folder, "bus/serial-base", &[]);
        let name = format!("ttyS{port}");
        made.with_node(&format!("{folder}/tty/{name}"), "class/tty", &[], &name, (4, 64 + port));
    }
    let found = made.look("sysfs: {subsystem: tty, name: ttyS2}").found;
    assert_eq!(found[0].identity, "platform:serial8250:ttyS#2");
    assert_eq!(made.look("sysfs: {subsystem: tty}").found.len(), 2);
}

#[test]
fn siblings_are_counted_where_they_are() {
    let made = Made::new();
    made.controller();
    let camera = format!("{CONTROLLER}/usb1/1-2");
    made.device(&camera, "bus/usb", &[("idVendor", "046d\n"), ("idProduct", "0825\n"), ("serial", "C1\n")]);
    for (video, minor) in [("video7", 7), ("video10", 10)] {
        let folder = format!("{camera}/1-2:1.0/video4linux/{video}");
        made.with_node(&folder, "class/video4linux", &[("index", "0\n")], video, (81, minor));
    }
    let found = made.look("sysfs: {subsystem: video4linux}").found;
    let identities: Vec<&str> = found.iter().map(|found| found.identity.as_str()).collect();
    assert_eq!(identities, ["usb:046d:0825:C1:1.0:video", "usb:046d:0825:C1:1.0:video#1"]);
}

#[test]
fn buses_and_classes_are_looked_at_and_what_is_neither_is_said() {
    let made = Made::new();
    made.device("platform/chip", "bus/gpio", &[("label", "pins\n")]);
    made.with_node("virtual/misc/kvm", "class/misc", &[], "kvm", (10, 232));
    let found = made.look("sysfs: {subsystem: gpio, attributes: {label: p*}}").found;
    assert_eq!((found.len(), found[0].nodes.len()), (1, 0));
    assert_eq!(found[0].attributes.get("label").map(String::as_str), Some("pins"));
    let found = made.look("sysfs: {subsystem: misc, name: kvm}").found;
    assert_eq!(found[0].identity, "misc:kvm");
    for wrong in ["nothing", "../class/misc", "misc/kvm", "''"] {
        let looked = made.look(&format!("sysfs: {{subsystem: {wrong}}}"));
        assert_eq!(looked.rejected[0].why, "is neither in /sys/class nor in /sys/bus", "{wrong}");
    }
}

#[test]
fn attributes_are_read_through_links_and_a_link_is_worth_its_name() {
    let made = Made::new();
    made.device("platform/uart", "bus/platform", &[("model", "  big one \n\0")])
        .driver("platform/uart", "8250");
    made.with_node("platform/uart/tty/ttyS0", "class/tty", &[], "ttyS0", (4, 64));
    made.link("/sys/devices/platform/uart/tty/ttyS0/device", "../../../uart");
    made.link("/sys/devices/platform/uart/tty/ttyS0/out", "/etc");
    let holds = |attribute: &str, glob: &str| {
        let looked =
            made.look(&format!("sysfs: {{subsystem: tty, attributes: {{'{attribute}': '{glob}'}}}}"));
        looked.rejected.first().map_or_else(String::new, |one| one.why.clone())
    };
    assert_eq!(holds("device/model", "big one"), "");
    assert_eq!(holds("device/driver", "8250"), "");
    assert_eq!(holds("device/driver", "ftdi*"), "device/driver is 8250, not ftdi*");
    assert_eq!(holds("none", "*"), "none is not there");
    assert_eq!(holds("out/hostname", "*"), "out/hostname is not there");
    assert_eq!(holds("../../model", "*"), "../../model is no path below the device");
    assert_eq!(holds("device", "uart"), "");
}

#[test]
fn parents_and_the_folders_of_links_are_watched() {
    let made = Made::new();
    let watches = made.watches("sysfs: {subsystem: video4linux, parents: [{subsystem: usb}]}");
    assert_eq!(watches.subsystems, ["usb", "video4linux"]);
    assert!(watches.folders.contains(&made.at("/dev/v4l/by-id")), "{watches:?}");
}

#[test]
fn the_devices_of_this_machine_are_found() {
    let looked = super::super::look(&selector("sysfs: {subsystem: mem, name: 'null'}"), &Host::default());
    assert_eq!(looked.found[0].identity, "mem:null");
    assert_eq!(looked.found[0].nodes[0].path, std::path::Path::new("/dev/null"));
}
