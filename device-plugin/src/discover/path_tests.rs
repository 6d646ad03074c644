use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::made::{CONTROLLER, Made};
use crate::config::Host;
use crate::inventory::Looked;

fn paths(looked: &Looked) -> Vec<String> {
    looked.found.iter().flat_map(|found| &found.nodes).map(|node| node.path.display().to_string()).collect()
}

fn reasons(looked: &Looked) -> Vec<String> {
    looked.rejected.iter().map(|one| format!("{}: {}", one.what, one.why)).collect()
}

#[test]
fn a_pattern_stops_at_folders_and_two_stars_do_not() {
    let made = Made::new();
    made.node("ttyUSB0", false, (188, 0)).node("ttyUSB10", false, (188, 10)).node("ttyUSB2", false, (188, 2));
    made.node("snd/pcmC0D0p", false, (116, 1)).node("dri/by/card0", false, (226, 0));
    for (glob, expect) in [
        ("/dev/ttyUSB*", vec!["/dev/ttyUSB0", "/dev/ttyUSB2", "/dev/ttyUSB10"]),
        ("/dev/*", vec!["/dev/ttyUSB0", "/dev/ttyUSB2", "/dev/ttyUSB10"]),
        ("/dev/*/pcm*", vec!["/dev/snd/pcmC0D0p"]),
        ("/dev/**/card?", vec!["/dev/dri/by/card0"]),
        ("/dev/ttyUSB[01]", vec!["/dev/ttyUSB0"]),
        ("/dev//ttyUSB0", vec!["/dev/ttyUSB0"]),
        ("/dev/../dev/ttyUSB0", vec![]),
        ("dev/ttyUSB0", vec![]),
    ] {
        let looked = made.look(&format!("path: {{glob: ['{glob}']}}"));
        assert_eq!(paths(&looked), expect, "{glob}");
    }
    assert_eq!(paths(&made.look("path: {glob: [/dev/**]}")).len(), 5);
}

#[test]
fn a_link_is_handed_out_as_it_is_and_leads_where_the_node_sees_it() {
    let made = Made::new();
    made.node("ttyUSB0", false, (188, 0));
    made.link("/dev/serial/by-id/a", "../../ttyUSB0").link("/dev/b", "/dev/serial/by-id/a");
    let looked = made.look("path: {glob: [/dev/b]}");
    let node = &looked.found[0].nodes[0];
    assert_eq!(looked.found[0].identity, "path:/dev/b");
    assert_eq!((node.path.as_path(), node.real.as_path()), (Path::new("/dev/b"), Path::new("/dev/ttyUSB0")));
    // The first pattern has it.
    let looked = made.look("path: {glob: [/dev/serial/by-id/*, /dev/ttyUSB*, /dev/b]}");
    assert_eq!(paths(&looked), ["/dev/serial/by-id/a"]);
    assert_eq!(reasons(&looked)[0], "/dev/ttyUSB0: is in already, as `/dev/serial/by-id/a`");
}

#[test]
fn a_link_out_of_dev_is_refused() {
    let made = Made::new();
    made.link("/dev/passwd", "/etc/passwd").link("/dev/up", "../../etc/passwd").link("/dev/etc", "/etc");
    made.link("/dev/x", "y").link("/dev/y", "x").link("/dev/gone", "/dev/nothing");
    let looked = made.look("path: {glob: [/dev/*, /dev/*/passwd, /dev/etc/hosts], kinds: [file, folder]}");
    assert_eq!(looked.found, []);
    let reasons = reasons(&looked);
    for reason in [
        "/dev/passwd: it leads elsewhere, to `/etc/passwd`",
        "/dev/up: it leads elsewhere, to `/etc/passwd`",
        "/dev/etc: it leads elsewhere, to `/etc`",
        "/dev/x: its symlinks lead in circles",
        "/dev/gone: `/dev/nothing` is not there",
        "/dev/etc/hosts: it leads elsewhere, to `/etc`",
    ] {
        assert!(reasons.iter().any(|one| one == reason), "{reason}: {reasons:?}");
    }
    assert!(!reasons.iter().any(|one| one.starts_with("/dev/etc/passwd")), "{reasons:?}");
}

#[test]
fn only_the_kinds_that_are_meant_are_taken() {
    let made = Made::new();
    made.fifo("/dev/initctl").node("x", false, (1, 3));
    let looked = made.look("path: {glob: [/dev/*]}");
    assert_eq!(paths(&looked), ["/dev/x"]);
    assert_eq!(reasons(&looked), ["/dev/initctl: it is a FIFO, not a character device or a block device"]);
    let looked = made.look("path: {glob: [/dev/*], kinds: [fifo]}");
    assert_eq!(paths(&looked), ["/dev/initctl"]);
    assert_eq!(looked.found[0].nodes[0].device, None);
}

#[test]
fn what_is_expected_is_listed_before_it_is_there() {
    let made = Made::new();
    let found = made.look("path: {glob: [/dev/kvm, '/dev/x*'], expected: true}").found;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].identity, "path:/dev/kvm");
    assert_eq!(found[0].ailing.as_deref(), Some("`/dev/kvm` is not there"));
    made.node("kvm", false, (10, 232));
    let found = made.look("path: {glob: [/dev/kvm], expected: true}").found;
    assert_eq!((found.len(), found[0].identity.as_str(), &found[0].ailing), (1, "path:/dev/kvm", &None));
}

#[test]
fn together_they_are_one_device() {
    let made = Made::new();
    let selector = "path: {glob: ['/dev/snd/*', /dev/x], together: true, exclude: ['/dev/snd/seq']}";
    assert_eq!(made.look(selector).found, []);
    made.node("snd/a", false, (116, 1)).node("snd/seq", false, (116, 2)).node("x", false, (1, 3));
    let looked = made.look(selector);
    assert_eq!(paths(&looked), ["/dev/snd/a", "/dev/x"]);
    assert_eq!(looked.found[0].identity, "paths:/dev/snd/* /dev/x");
    assert_eq!(reasons(&looked), ["/dev/snd/seq: `exclude` has `/dev/snd/seq`"]);
    let expected = "path: {glob: [/dev/x, /dev/y], together: true, expected: true}";
    assert_eq!(made.look(expected).found[0].ailing.as_deref(), Some("`/dev/y` is not there"));
}

#[test]
fn a_regular_expression_looks_through_a_folder() {
    let made = Made::new();
    made.node("bus/usb/001/001", false, (189, 0)).node("ttyS0", false, (4, 64)).node("shm/x1", false, (1, 3));
    std::fs::set_permissions(made.at("/dev/shm"), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        .unwrap();
    assert_eq!(paths(&made.look(r"path: {regex: '/dev/.*\d'}")), ["/dev/bus/usb/001/001", "/dev/ttyS0"]);
    let looked = made.look(r"path: {regex: '/dev/.*\d', below: /dev/bus}");
    assert_eq!(paths(&looked), ["/dev/bus/usb/001/001"]);
}

#[test]
fn a_walk_ends_and_says_so() {
    let made = Made::new();
    made.node("a/b/c/d/e/f/g/h/i/j/x", false, (1, 3)).node("a/b/x", false, (1, 3));
    for selector in ["path: {glob: ['/dev/**/x']}", "path: {regex: '/dev/.*/x'}"] {
        let looked = made.look(selector);
        assert_eq!(paths(&looked), ["/dev/a/b/x"]);
        assert_eq!(reasons(&looked), ["the rest: stopped after 8 folders, at `/dev/a/b/c/d/e/f/g/h/i`"]);
    }
}

#[test]
fn names_that_nobody_can_hand_out_are_refused() {
    let made = Made::new();
    made.fifo("/dev/tty\nx");
    let odd = made.at("/dev").join(std::ffi::OsStr::from_bytes(b"tty\xff"));
    std::fs::write(odd, "").unwrap();
    let looked = made.look("path: {glob: ['/dev/tty*'], kinds: [fifo, file]}");
    assert_eq!(looked.found, []);
    assert_eq!(
        reasons(&looked),
        ["/dev/tty\u{fffd}x: its name has control characters", "/dev/tty\u{fffd}: its name is not UTF-8"]
    );
}

#[test]
fn what_a_person_may_have_meant_is_named() {
    let made = Made::new();
    made.node("ttyUSB0", false, (188, 0)).node("null", false, (1, 3));
    let looked = made.look("path: {glob: ['/dev/ttyACM*', /dev/kvm]}");
    assert_eq!(looked.found, []);
    let reasons = reasons(&looked);
    assert!(reasons.contains(&"/dev/kvm: `/dev/kvm` is not there".to_owned()), "{reasons:?}");
    let looked = made.look("path: {glob: ['/dev/ttyusb*', '/dev/ttyUBS*']}");
    let nearest = "/dev/ttyUSB0: doesn't match `/dev/ttyUBS*`".to_owned();
    assert!(super::tests::reasons(&looked).contains(&nearest));
    made.node("serial/by-id/usb-FTDI", false, (188, 1));
    for (selector, expect) in [
        (r"path: {regex: 'ttyUSB\d+'}", r"/dev/ttyUSB0: doesn't match `ttyUSB\d+` as a whole"),
        ("path: {regex: '/dev/ttyusb[0-9]+'}", "/dev/ttyUSB0: doesn't match `/dev/ttyusb[0-9]+` as a whole"),
        (
            "path: {glob: '/dev/*/by-id/usb-ftd'}",
            "/dev/serial/by-id/usb-FTDI: doesn't match `/dev/*/by-id/usb-ftd`",
        ),
        ("path: {glob: '/dev/serial/by-idd/*'}", "/dev/serial/by-id: doesn't match `/dev/serial/by-idd/*`"),
        ("path: {glob: '/dev/seriall/by-id/*'}", "/dev/serial: doesn't match `/dev/seriall/by-id/*`"),
    ] {
        let reasons = super::tests::reasons(&made.look(selector));
        assert!(reasons.iter().any(|one| one == expect), "{selector}: {reasons:?}");
    }
    assert_eq!(super::tests::reasons(&made.look("path: {regex: '/dev/.*B0'}")), Vec::<String>::new());
}

#[test]
fn files_elsewhere_are_taken_as_they_are() {
    let made = Made::new();
    let socket = made.at("/run/app.sock");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let looked = made.look("path: {glob: [/run/app.sock], kinds: [socket]}");
    assert_eq!(paths(&looked), ["/run/app.sock"], "as the node names it, and seen below `host.root`");
    let looked = made.look("path: {regex: '/run/.*', below: /run, kinds: [socket]}");
    assert_eq!(paths(&looked), ["/run/app.sock"]);
    let beside = format!("path: {{glob: ['{}'], kinds: [socket]}}", socket.display());
    assert_eq!(made.look(&beside).found, [], "what is not below `host.root` is not the node's");
}

#[test]
fn a_link_out_of_the_folder_that_a_pattern_begins_with_is_refused() {
    let made = Made::new();
    for file in ["/srv/w/sub/real", "/srv/other/x", "/etc/shadow"] {
        std::fs::create_dir_all(made.at(file).parent().unwrap()).unwrap();
        std::fs::write(made.at(file), "").unwrap();
    }
    made.link("/srv/w/evil", "/etc").link("/srv/w/ev2", "/etc/shadow").link("/srv/w/ev3", "../other/x");
    made.link("/srv/w/fine", "sub/real").link("/srv/w/fine2", "/srv/w/sub").link("/srv/w/x", "x");
    made.link("/srv/alias", "/srv/w").link("/srv/w/dev", "/dev/null").link("/srv/w/none", "gone");
    let looked = made.look("path: {glob: ['/srv/w/*', '/srv/w/*/shadow'], kinds: [folder, file, char]}");
    assert_eq!(paths(&looked), ["/srv/w/fine", "/srv/w/fine2"]);
    assert_eq!(looked.found[0].nodes[0].real, Path::new("/srv/w/sub/real"));
    let outside = reasons(&looked);
    for reason in [
        "/srv/w/evil: it leads elsewhere, to `/etc`",
        "/srv/w/ev2: it leads elsewhere, to `/etc/shadow`",
        "/srv/w/ev3: it leads elsewhere, to `/srv/other/x`",
        "/srv/w/evil/shadow: it leads elsewhere, to `/etc/shadow`",
        "/srv/w/x: its symlinks lead in circles",
    ] {
        assert!(outside.iter().any(|one| one == reason), "{reason}: {outside:?}");
    }
    for (selector, expect) in [
        // The pattern's own beginning may be a link.
        ("path: {glob: ['/srv/alias/*'], kinds: [file]}", vec!["/srv/alias/fine"]),
        ("path: {glob: ['/srv/w/ev2'], kinds: [file]}", vec![]),
        ("path: {glob: ['/srv/w/ev3', '/srv/*/ev3'], kinds: [file]}", vec!["/srv/w/ev3"]),
        ("path: {regex: '/srv/w/.*', below: /srv/w, kinds: [file]}", vec!["/srv/w/fine"]),
        ("path: {regex: '/srv/w/e.*', below: /srv, kinds: [file]}", vec!["/srv/w/ev3"]),
    ] {
        assert_eq!(paths(&made.look(selector)), expect, "{selector}");
    }
    let looked = made.look("group: {members: [{glob: /srv/w/ev2}, {glob: '/srv/w/fine'}]}");
    assert_eq!(paths(&looked), ["/srv/w/fine"]);
    assert_eq!(looked.found[0].ailing.as_deref(), Some("it leads elsewhere, to `/etc/shadow`"));
}

#[test]
fn every_folder_where_a_match_could_appear_is_watched() {
    let made = Made::new();
    let folders = |selector: &str| -> Vec<String> {
        let root = made.at("/");
        let named = |folder: &Path| match folder.strip_prefix(&root) {
            Ok(below) => format!("/{}", below.display()),
            Err(_) => format!("outside {}", folder.display()),
        };
        made.watches(selector).folders.iter().map(|folder| named(folder)).collect()
    };
    let by_id = "path: {glob: ['/dev/serial/by-id/*']}";
    assert_eq!(folders(by_id), ["/dev", "/dev/serial", "/dev/serial/by-id"]);
    assert_eq!(folders("path: {glob: [/dev/x]}"), ["/dev"]);
    made.node("bus/tty", false, (188, 0)).link("/dev/serial/by-id/a", "../../bus/tty");
    assert_eq!(folders(by_id), ["/dev", "/dev/bus", "/dev/serial", "/dev/serial/by-id"]);
    assert_eq!(folders("path: {glob: ['/dev/*/tty']}"), ["/dev", "/dev/bus", "/dev/serial"]);
    assert_eq!(
        folders("path: {regex: '/dev/t.*'}"),
        ["/dev", "/dev/bus", "/dev/serial", "/dev/serial/by-id"]
    );
}

#[test]
fn elsewhere_only_the_folders_of_the_pattern_are_watched() {
    let made = Made::new();
    let folders = |selector: &str| -> Vec<String> {
        let folders = made.watches(selector).folders;
        let named = folders.iter().map(|folder| folder.strip_prefix(made.at("/")).unwrap().to_str().unwrap());
        named.map(|folder| format!("/{folder}")).collect()
    };
    let socket = "path: {glob: [/run/app/x/app.sock], kinds: [socket]}";
    assert_eq!(folders(socket), ["/"], "the nearest that is there");
    std::fs::create_dir_all(made.at("/run/app")).unwrap();
    assert_eq!(folders(socket), ["/run/app"]);
    std::fs::create_dir_all(made.at("/run/app/x/y")).unwrap();
    assert_eq!(folders(socket), ["/run/app/x"]);
    assert_eq!(folders("path: {glob: ['/run/app/*/y/*']}"), ["/run/app", "/run/app/x", "/run/app/x/y"]);
    assert_eq!(
        folders("path: {regex: '/run/app/.*', below: /run/app}"),
        ["/run/app", "/run/app/x", "/run/app/x/y"]
    );
    made.link("/run/app/x/app.sock", "y/real").link("/var/run", "/run");
    std::fs::write(made.at("/run/app/x/y/real"), "").unwrap();
    assert_eq!(folders(socket), ["/run/app/x", "/run/app/x/y"], "and those that links lead to");
    assert_eq!(folders("path: {glob: ['/var/run/app/*']}"), ["/run/app"]);
}

#[test]
fn what_is_written_counts_only_in_the_folder_of_a_counted_file() {
    let made = Made::new();
    let watched = |selector: &str| -> [Vec<String>; 2] {
        let watches = made.watches(selector);
        let named = |folder: &Path| format!("/{}", folder.strip_prefix(made.at("/")).unwrap().display());
        [watches.folders, watches.contents].map(|all| all.iter().map(|folder| named(folder)).collect())
    };
    let file = "file: {path: /srv/licences/x/count}";
    assert_eq!(watched(file), [vec!["/"], vec![]]);
    std::fs::create_dir_all(made.at("/srv/licences/x/..data")).unwrap();
    assert_eq!(watched(file), [["/srv/licences/x"], ["/srv/licences/x"]]);
    made.link("/srv/licences/x/count", "..data/count");
    std::fs::write(made.at("/srv/licences/x/..data/count"), "3").unwrap();
    let both = ["/srv/licences/x", "/srv/licences/x/..data"];
    assert_eq!(watched(file), [both, both]);
    let [folders, contents] = watched("path: {glob: ['/srv/licences/*'], kinds: [folder]}");
    assert_eq!((folders, contents), (vec!["/srv/licences".to_owned()], vec![]));
}

#[test]
fn a_node_knows_its_place_in_sysfs() {
    let made = Made::new();
    made.controller().adapter("1-1", "A5", 0);
    let looked = made.look("path: {glob: ['/dev/ttyUSB*']}");
    let found = &looked.found[0];
    assert_eq!(found.numa, Some(1));
    assert_eq!(found.attributes.get("serial").map(String::as_str), Some("A5"));
    assert!(found.sysfs.as_ref().unwrap().starts_with(made.at("/sys/devices").join(CONTROLLER)));
}

#[test]
fn the_devices_of_this_machine_are_found() {
    let look = |text: &str| super::super::look(&super::super::made::selector(text), &Host::default());
    let looked = look("path: {glob: [/dev/null]}");
    let number = looked.found[0].nodes[0].device.unwrap();
    assert_eq!((number.block, number.major, number.minor), (false, 1, 3));
    let looked = look("path: {glob: [/dev/stdin, /dev/fd]}");
    assert_eq!(looked.found, [], "they lead to /proc");
}
