use super::super::made::Made;
use crate::config::Config;

fn card(made: &Made) {
    let bridge = "pci0000:00/0000:00:01.0";
    made.device(bridge, "bus/pci", &[("vendor", "0x8086\n"), ("class", "0x060400\n"), ("numa_node", "-1\n")]);
    let card = format!("{bridge}/0000:01:00.0");
    let attributes =
        [("vendor", "0x10de\n"), ("device", "0x2204\n"), ("class", "0x030000\n"), ("numa_node", "-1\n")];
    made.device(&card, "bus/pci", &attributes).driver(&card, "nouveau");
    made.with_node(&format!("{card}/drm/card1"), "class/drm", &[], "dri/card1", (226, 1));
    made.with_node(&format!("{card}/drm/renderD129"), "class/drm", &[], "dri/renderD129", (226, 129));
    made.link(&format!("/sys/devices/{card}/iommu_group"), "../../../../kernel/iommu_groups/7");
}

#[test]
fn a_card_is_found_with_the_nodes_below_it() {
    let made = Made::new();
    card(&made);
    made.link("/dev/dri/by-path/pci-0000:01:00.0-card", "../card1");
    let looked = made.look(r#"pci: {vendor: "10de", class: "03", driver: nouveau}"#);
    let [found] = looked.found.as_slice() else { panic!("{looked:?}") };
    assert_eq!(found.identity, "pci:0000:01:00.0");
    assert_eq!(found.numa, None);
    assert_eq!(found.parent.as_deref(), Some("/sys/devices/pci0000:00/0000:00:01.0"));
    let paths: Vec<_> = found.nodes.iter().map(|node| node.path.display().to_string()).collect();
    assert_eq!(paths, ["/dev/dri/by-path/pci-0000:01:00.0-card", "/dev/dri/renderD129"]);
    assert_eq!(found.attributes.get("device").map(String::as_str), Some("2204"));
    assert_eq!(looked.rejected[0].why, "vendor is 8086, not 10de");
}

#[test]
fn a_bridge_has_not_what_is_behind_it() {
    let made = Made::new();
    card(&made);
    let looked = made.look(r#"pci: {address: "0000:00:01.0"}"#);
    assert_eq!((looked.found.len(), looked.found[0].nodes.len()), (1, 0));
}

#[test]
fn each_condition_has_its_reason() {
    let made = Made::new();
    card(&made);
    for (selector, why) in [
        (r#"pci: {class: "0302"}"#, "class is 030000, which doesn't begin with 0302"),
        (r#"pci: {vendor: "10de", driver: "vfio*"}"#, "driver is nouveau, not vfio*"),
        (r#"pci: {driver: "*"}"#, "driver is not bound"),
        (r#"pci: {vendor: "10de", nodes: [nvme]}"#, "nothing of `nvme` is below it"),
        (r#"pci: {vendor: "8086", nodes: [vfio]}"#, "it is in no IOMMU group"),
    ] {
        let rejected = made.look(selector).rejected;
        assert!(rejected.iter().any(|one| one.why == why), "{selector}: {rejected:?}");
    }
}

#[test]
fn vfio_is_the_groups_node_with_its_container() {
    let made = Made::new();
    card(&made);
    let selector = r#"pci: {vendor: "10de", nodes: [vfio]}"#;
    assert_eq!(
        made.look(selector).found[0].ailing.as_deref(),
        Some("`/dev/vfio` is not there: is the device bound to vfio-pci?")
    );
    made.node("vfio/7", false, (243, 0)).node("vfio/vfio", false, (10, 196));
    let found = made.look(selector).found;
    let paths: Vec<_> = found[0].nodes.iter().map(|node| node.path.display().to_string()).collect();
    assert_eq!(paths, ["/dev/vfio/7", "/dev/vfio/vfio"]);
    assert_eq!(found[0].ailing, None);
}

#[test]
fn a_class_is_checked_when_it_is_read() {
    for (class, fine) in
        [("03", true), ("0x0302", true), ("030200", true), ("3", false), ("zz", false), ("03020", false)]
    {
        let text = format!("resources: [{{name: a.b/c, devices: [{{pci: {{class: \"{class}\"}}}}]}}]");
        assert_eq!(Config::parse(&text).is_ok(), fine, "{class}");
    }
}
