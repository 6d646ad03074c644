use super::super::made::{CONTROLLER, Made};
use crate::inventory::Found;

const CAMERA: &str = r#"parent: {subsystem: usb, attributes: {idVendor: "046d"}}"#;

fn camera(made: &Made) {
    made.controller().adapter("1-1", "A5", 0);
    let camera = format!("{CONTROLLER}/usb1/1-2");
    made.device(&camera, "bus/usb", &[("idVendor", "046d\n"), ("idProduct", "0825\n"), ("serial", "C1\n")]);
    for (video, minor) in [("video0", 0), ("video1", 1)] {
        made.with_node(
            &format!("{camera}/1-2:1.0/video4linux/{video}"),
            "class/video4linux",
            &[],
            video,
            (81, minor),
        );
    }
    made.link("/dev/v4l/by-id/usb-046d_C1-video-index0", "../../video0");
}

fn paths(found: &Found) -> Vec<String> {
    found.nodes.iter().map(|node| node.path.display().to_string()).collect()
}

#[test]
fn the_nodes_below_a_parent_are_one_device() {
    let made = Made::new();
    camera(&made);
    let sound = format!("{CONTROLLER}/usb1/1-2/1-2:1.2/sound/card1/pcmC1D0c");
    let members = "members: [{subsystem: video4linux, limit: 1}, {subsystem: sound}, {subsystem: hidraw, optional: true}]";
    let selector = format!("group: {{{CAMERA}, {members}}}");
    let found = &made.look(&selector).found;
    assert_eq!(found[0].identity, "group:usb:046d:0825:C1");
    assert_eq!(found[0].ailing.as_deref(), Some("nothing of `sound` is there"));
    made.with_node(&sound, "class/sound", &[], "snd/pcmC1D0c", (116, 3));
    let found = &made.look(&selector).found;
    assert_eq!((found.len(), &found[0].ailing), (1, &None));
    assert_eq!(paths(&found[0]), ["/dev/v4l/by-id/usb-046d_C1-video-index0", "/dev/snd/pcmC1D0c"]);
}

#[test]
fn a_members_pattern_is_for_the_node_or_a_link_to_it() {
    let made = Made::new();
    camera(&made);
    for (glob, expect) in [
        ("/dev/video1", vec!["/dev/video1"]),
        ("/dev/v4l/by-id/*-index0", vec!["/dev/v4l/by-id/usb-046d_C1-video-index0"]),
    ] {
        let found = made.look(&format!("group: {{{CAMERA}, members: [{{glob: '{glob}'}}]}}")).found;
        assert_eq!(paths(&found[0]), expect);
    }
}

#[test]
fn a_parent_without_any_member_is_not_meant() {
    let made = Made::new();
    camera(&made);
    let looked = made.look("group: {parent: {subsystem: usb}, members: [{subsystem: sound}]}");
    assert_eq!(looked.found, []);
    assert!(looked.rejected.iter().all(|one| one.why == "nothing of `sound` is there"), "{looked:?}");
    let looked =
        made.look(r#"group: {parent: {attributes: {idVendor: "9999"}}, members: [{subsystem: tty}]}"#);
    assert!(looked.rejected.iter().any(|one| one.why == "idVendor is 046d, not 9999"), "{looked:?}");
}

#[test]
fn a_fixed_list_is_one_device() {
    let made = Made::new();
    let selector = "group: {members: [{glob: /dev/a, node: {permissions: r, containerPath: /dev/x}}, {glob: '/dev/b*'}]}";
    let looked = made.look(selector);
    assert_eq!(looked.found, []);
    assert_eq!(looked.rejected[0].why, "`/dev/a` is not there; nothing of `/dev/b*` is there");
    made.node("a", false, (1, 3)).fifo("/dev/bb");
    let found = made.look(selector).found;
    assert_eq!(found[0].identity, "group:/dev/a /dev/b*");
    assert_eq!(found[0].ailing.as_deref(), Some("nothing of `/dev/b*` is there"));
    made.node("b1", false, (1, 5));
    let found = made.look(selector).found;
    assert_eq!(
        (paths(&found[0]), &found[0].ailing),
        (vec!["/dev/a".to_owned(), "/dev/b1".to_owned()], &None)
    );
    assert_eq!(found[0].nodes[0].options.container_path.as_deref(), Some("/dev/x"));
    assert_eq!(found[0].nodes[1].options.container_path, None);
}

#[test]
fn what_could_change_a_group_is_watched() {
    let made = Made::new();
    let watches = made.watches(&format!("group: {{{CAMERA}, members: [{{subsystem: sound}}]}}"));
    assert_eq!(watches.subsystems, ["sound", "usb"]);
    assert!(watches.folders.contains(&made.at("/dev/snd/by-id")));
    let watches = made.watches("group: {members: [{glob: '/dev/x/*'}]}");
    assert_eq!(watches.folders, [made.at("/dev"), made.at("/dev/x")]);
}
