use super::super::made::{Made, selector};
use crate::config::Host;

const PORT: &str = "pci0000:00/0000:02:00.0";

fn ports(made: &Made) {
    made.device(PORT, "bus/pci", &[("numa_node", "0\n")]).driver(PORT, "mlx5_core");
    for (name, number) in [("ens1", "0\n"), ("ens1d1", "1\n")] {
        let folder = format!("{PORT}/net/{name}");
        let attributes =
            [("address", "02:00:00:00:00:01\n"), ("addr_assign_type", "0\n"), ("dev_port", number)];
        made.device(&folder, "class/net", &attributes);
        made.link(&format!("/sys/devices/{folder}/device"), "../../../0000:02:00.0");
    }
    made.device("virtual/net/br0", "class/net", &[("address", "02:00:00:00:00:09\n")]);
    std::fs::write(made.at("/sys/class/net/bonding_masters"), "bond0\n").unwrap();
}

#[test]
fn an_interface_is_known_by_what_it_hangs_on() {
    let made = Made::new();
    ports(&made);
    let looked = made.look("net: {driver: mlx5_core}");
    let identities: Vec<&str> = looked.found.iter().map(|found| found.identity.as_str()).collect();
    assert_eq!(identities, ["pci:0000:02:00.0:net", "pci:0000:02:00.0:net#1"]);
    assert_eq!(looked.found[0].attributes.get("name").map(String::as_str), Some("ens1"));
    assert_eq!((looked.found[0].numa, looked.found[0].nodes.len()), (Some(0), 0));
    let [rejected] = looked.rejected.as_slice() else { panic!("{looked:?}") };
    assert_eq!(
        (rejected.what.as_str(), rejected.why.as_str()),
        ("br0", "it is virtual, and `virtual` is not set")
    );
}

#[test]
fn virtual_ones_are_asked_for_and_go_by_their_names() {
    let made = Made::new();
    ports(&made);
    let looked = made.look("net: {name: 'br*', virtual: true}");
    assert_eq!(looked.found[0].identity, "net:br0");
    assert_eq!(looked.rejected[0].why, "name is ens1, not br*");
}

#[test]
fn a_usb_adapter_without_a_serial_number_is_known_by_its_address() {
    let made = Made::new();
    let stick = "pci0000:00/0000:00:14.0/usb1/1-1";
    made.device(stick, "bus/usb", &[("idVendor", "0b95\n"), ("idProduct", "1790\n")]);
    let folder = format!("{stick}/1-1:1.0/net/eth7");
    let attributes = [("address", "02:00:00:00:00:07\n"), ("addr_assign_type", "0\n")];
    made.device(&folder, "class/net", &attributes);
    made.link(&format!("/sys/devices/{folder}/device"), "../../../1-1:1.0");
    assert_eq!(made.look("net: {}").found[0].identity, "net:02:00:00:00:00:07");
}

#[test]
fn without_carrier_it_is_unhealthy_where_that_is_asked_for() {
    let made = Made::new();
    ports(&made);
    let ailing = |selector: &str| made.look(selector).found[0].ailing.clone();
    assert_eq!(ailing("net: {name: ens1}"), None);
    assert_eq!(ailing("net: {name: ens1, needsCarrier: true}").as_deref(), Some("it is down"));
    let carrier = made.at("/sys/devices").join(PORT).join("net/ens1/carrier");
    std::fs::write(&carrier, "0\n").unwrap();
    assert_eq!(ailing("net: {name: ens1, needsCarrier: true}").as_deref(), Some("it has no carrier"));
    std::fs::write(&carrier, "1\n").unwrap();
    assert_eq!(ailing("net: {name: ens1, needsCarrier: true}"), None);
    assert_eq!(made.watches("net: {needsCarrier: true}").every.map(|every| every.as_secs()), Some(5));
    assert_eq!(made.watches("net: {}").every, None);
}

#[test]
fn the_loopback_of_this_machine_is_found() {
    let looked = super::super::look(&selector("net: {name: lo, virtual: true}"), &Host::default());
    assert_eq!(looked.found[0].identity, "net:lo");
}
