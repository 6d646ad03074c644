use super::super::made::{Made, selector};
use crate::config::Host;

#[test]
fn numbers_are_one_a_range_or_all() {
    let made = Made::new();
    for minor in [0, 1, 2, 10] {
        let name = format!("port{minor}");
        made.with_node(&format!("virtual/ports/{name}"), "class/ports", &[], &name, (240, minor));
    }
    made.with_node("virtual/misc/tun", "class/misc", &[], "net/tun", (10, 200));
    for (selector, expect) in [
        ("char: {major: 240}", vec!["ports:port0", "ports:port1", "ports:port2", "ports:port10"]),
        ("char: {major: 240, minor: 2}", vec!["ports:port2"]),
        ("char: {major: 240, minor: 1, lastMinor: 9}", vec!["ports:port1", "ports:port2"]),
        ("char: {major: 10, minor: 200}", vec!["misc:tun"]),
        ("char: {major: 24}", vec![]),
    ] {
        let found = made.look(selector).found;
        let identities: Vec<&str> = found.iter().map(|found| found.identity.as_str()).collect();
        assert_eq!(identities, expect, "{selector}");
    }
    let looked = made.look("char: {major: 240, minor: 7}");
    assert_eq!(looked.rejected[0].what, "240:7");
    assert_eq!(looked.rejected[0].why, "no driver has such a device");
    let looked = made.look("char: {major: 10, minor: 200}");
    assert_eq!(looked.found[0].nodes[0].path, std::path::Path::new("/dev/net/tun"));
}

#[test]
fn the_devices_of_this_machine_are_found() {
    let looked = super::super::look(&selector("char: {major: 1, minor: 3}"), &Host::default());
    assert_eq!(looked.found[0].nodes[0].real, std::path::Path::new("/dev/null"));
    assert_eq!(looked.found[0].ailing, None);
}
