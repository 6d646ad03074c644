use std::path::Path;

use super::super::made::{CONTROLLER, Made};
use super::super::view::View;

fn identities(made: &Made, selector: &str) -> Vec<String> {
    made.look(selector).found.into_iter().map(|found| found.identity).collect()
}

#[test]
fn a_stick_is_known_by_its_serial_number_and_handed_out_by_its_link() {
    let made = Made::new();
    made.controller().adapter("1-1", "A50285BI", 0);
    made.link("/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0", "../../ttyUSB0");
    made.link("/dev/serial/by-id/usb-FTDI_A50285BI-if00-port0", "../../ttyUSB0");
    let looked = made.look(r#"usb: {vendor: "0403", product: "6001", nodes: [tty]}"#);
    let [found] = looked.found.as_slice() else { panic!("{looked:?}") };
    assert_eq!(found.identity, "usb:0403:6001:A50285BI");
    assert_eq!(found.name, "1-1");
    assert_eq!(found.numa, Some(1));
    assert_eq!(found.parent.as_deref(), Some("/sys/devices/pci0000:00/0000:00:14.0/usb1"));
    assert_eq!(found.sysfs, Some(made.at("/sys/devices").join(CONTROLLER).join("usb1/1-1")));
    assert_eq!(found.attributes.get("manufacturer").map(String::as_str), Some("FTDI"));
    let [node] = found.nodes.as_slice() else { panic!("{found:?}") };
    assert_eq!(node.path, Path::new("/dev/serial/by-id/usb-FTDI_A50285BI-if00-port0"));
    assert_eq!(node.real, Path::new("/dev/ttyUSB0"));
    assert_eq!(node.device.map(|n| (n.block, n.major, n.minor)), Some((false, 188, 0)));
    let [rejected] = looked.rejected.as_slice() else { panic!("{looked:?}") };
    assert_eq!(rejected.what, "usb1 (1d6b:0002)");
    assert_eq!(rejected.why, "vendor is 1d6b, not 0403");
}

#[test]
fn sticks_with_one_serial_number_or_none_are_known_by_their_ports() {
    let made = Made::new();
    made.controller().adapter("1-1", "0001", 0).adapter("1-2", "0001", 1).adapter("1-3", "", 2);
    // Whoever came last has the link: it is nobody's.
    made.link("/dev/serial/by-id/usb-0001-if00-port0", "../../ttyUSB1");
    made.link("/dev/serial/by-path/usb-0:2", "../../ttyUSB1");
    let looked = made.look(r#"usb: {vendor: "0403", nodes: [tty]}"#);
    let seen: Vec<(&str, String)> = looked
        .found
        .iter()
        .map(|found| (found.identity.as_str(), found.nodes[0].path.display().to_string()))
        .collect();
    assert_eq!(
        seen,
        [
            ("usb:0403:6001:port:0000:00:14.0/0-1", "/dev/ttyUSB0".to_owned()),
            ("usb:0403:6001:port:0000:00:14.0/0-2", "/dev/serial/by-path/usb-0:2".to_owned()),
            ("usb:0403:6001:port:0000:00:14.0/0-3", "/dev/ttyUSB2".to_owned()),
        ]
    );
}

#[test]
fn the_whole_device_is_handed_out_unless_something_else_is_asked_for() {
    let made = Made::new();
    made.controller().adapter("1-1", "A5", 0);
    let found = made.look(r#"usb: {vendor: "0403"}"#).found;
    assert_eq!(found[0].nodes[0].path, Path::new("/dev/bus/usb/001/010"));
    let found = made.look(r#"usb: {vendor: "0403", nodes: [usb, tty]}"#).found;
    assert_eq!(found[0].nodes.len(), 2);
    let found = made.look(r#"usb: {vendor: "0403", nodes: [tty, hidraw]}"#).found;
    assert_eq!(found[0].ailing.as_deref(), Some("nothing of `hidraw` is below it"));
    let looked = made.look(r#"usb: {vendor: "0403", nodes: [video4linux]}"#);
    assert_eq!(looked.rejected[0].why, "nothing of `video4linux` is below it");
}

#[test]
fn a_hub_has_not_what_is_plugged_into_it() {
    let made = Made::new();
    made.controller();
    let hub = format!("{CONTROLLER}/usb1/1-4");
    let ids = [("idVendor", "05e3\n"), ("idProduct", "0610\n")];
    made.with_node(&hub, "bus/usb", &ids, "bus/usb/001/002", (189, 1));
    made.adapter("1-4/1-4.2", "A5", 0);
    assert!(identities(&made, r#"usb: {vendor: "05e3", nodes: [tty]}"#).is_empty());
    assert_eq!(identities(&made, r#"usb: {vendor: "05e3"}"#), ["usb:05e3:0610:port:0000:00:14.0/0-4"]);
}

#[test]
fn each_condition_has_its_reason() {
    let made = Made::new();
    made.controller().adapter("1-1", "A5", 0);
    for (selector, why) in [
        (r#"usb: {vendor: "0403", product: "0002"}"#, "product is 6001, not 0002"),
        (r#"usb: {vendor: "0403", serial: "B*"}"#, "serial is A5, not B*"),
        (r#"usb: {vendor: "0403", port: "2-*"}"#, "port is 1-1, not 2-*"),
        (r#"usb: {vendor: "0403", interfaceClass: "0e"}"#, "its interfaces are of class ff, not 0e"),
    ] {
        let rejected = made.look(selector).rejected;
        assert!(rejected.iter().any(|one| one.why == why), "{selector}: {rejected:?}");
    }
    assert_eq!(identities(&made, r#"usb: {interfaceClass: "ff"}"#), ["usb:0403:6001:A5"]);
}

#[test]
fn a_plain_file_in_the_place_of_a_node_is_no_device() {
    let made = Made::new();
    made.controller().adapter("1-1", "A5", 0);
    std::fs::remove_file(made.at("/dev/ttyUSB0")).unwrap();
    let selector = r#"usb: {vendor: "0403", nodes: [tty]}"#;
    assert_eq!(made.look(selector).found[0].ailing.as_deref(), Some("`/dev/ttyUSB0` is not there"));
    std::fs::write(made.at("/dev/ttyUSB0"), "x").unwrap();
    assert_eq!(
        made.look(selector).found[0].ailing.as_deref(),
        Some("`/dev/ttyUSB0` is a plain file, not 188:0")
    );
    std::fs::remove_file(made.at("/dev/ttyUSB0")).unwrap();
    made.node("ttyUSB0", false, (1, 3));
    assert_eq!(
        made.look(selector).found[0].ailing.as_deref(),
        Some("`/dev/ttyUSB0` is a character device 1:3, not 188:0")
    );
}

#[test]
fn events_and_the_folders_of_links_are_watched() {
    let made = Made::new();
    let watches = made.watches(r#"usb: {vendor: "0403", nodes: [usb, tty]}"#);
    assert_eq!(watches.subsystems, ["tty", "usb"]);
    let folders =
        ["/dev", "/dev/bus", "/dev/bus/usb", "/dev/serial", "/dev/serial/by-id", "/dev/serial/by-path"];
    assert_eq!(watches.folders, folders.map(|folder| made.at(folder)));
    made.controller();
    let watches = made.watches("usb: {}");
    assert!(watches.folders.contains(&made.at("/dev/bus/usb/001")), "{watches:?}");
}

#[test]
fn a_port_is_told_without_the_number_of_its_bus() {
    let made = Made::new();
    // The second controller came first this time, and each has a bus for either speed.
    for (controller, buses) in [("0000:00:14.0", [9, 10]), ("0000:00:1a.0", [1, 2])] {
        for bus in buses {
            let ids = [("idVendor", "1d6b\n"), ("idProduct", "0002\n")];
            let hub = format!("pci0000:00/{controller}/usb{bus}");
            made.device(&hub, "bus/usb", &ids);
            made.device(
                &format!("{hub}/{bus}-3"),
                "bus/usb",
                &[("idVendor", "aaaa\n"), ("idProduct", "0001\n")],
            );
        }
    }
    let view = View::new(&made.host());
    let places: Vec<&str> =
        view.usb().all().into_iter().filter(|s| s.vendor == "aaaa").map(|s| s.place.as_str()).collect();
    assert_eq!(places, ["0000:00:1a.0/0-3", "0000:00:1a.0/1-3", "0000:00:14.0/0-3", "0000:00:14.0/1-3"]);
}

#[test]
fn a_node_without_usb_says_so() {
    assert_eq!(Made::new().look("usb: {}").rejected[0].why, "no device is in /sys/bus/usb");
}
