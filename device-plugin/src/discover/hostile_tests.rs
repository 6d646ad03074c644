//! A broken or hostile /dev and /sys cost what belongs to them and no more.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::made::{CONTROLLER, Made};

const SELECTORS: [&str; 10] = [
    "usb: {}",
    "usb: {nodes: [tty, usb]}",
    "pci: {}",
    "sysfs: {subsystem: tty}",
    "net: {virtual: true, needsCarrier: true}",
    "block: {}",
    "char: {major: 188}",
    "group: {parent: {subsystem: usb}, members: [{subsystem: tty}]}",
    "group: {members: [{glob: '/dev/**'}]}",
    "path: {glob: ['/dev/**'], regex: '/dev/.*', kinds: [char, block, file, folder, fifo, socket]}",
];

#[test]
fn nothing_blocks_or_panics_whatever_lies_there() {
    let made = Made::new();
    made.controller().adapter("1-1", "A5", 0).adapter("1-2", "A6", 1);
    let stick = made.at("/sys/devices").join(CONTROLLER).join("usb1/1-2");
    for attribute in ["idVendor", "serial", "uevent"] {
        fs::remove_file(stick.join(attribute)).unwrap();
    }
    made.fifo(&format!("/sys/devices/{CONTROLLER}/usb1/1-2/idVendor"));
    fs::create_dir(stick.join("serial")).unwrap();
    fs::write(stick.join("uevent"), vec![0xff; 1 << 20]).unwrap();
    for class in ["tty", "net", "block", "usb"] {
        let folder = if class == "usb" { "bus/usb/devices".to_owned() } else { format!("class/{class}") };
        made.link(&format!("/sys/{folder}/gone"), "../nothing");
        made.link(&format!("/sys/{folder}/loop"), "loop");
        made.link(&format!("/sys/{folder}/out"), "../../../../../../../../etc");
        made.link(&format!("/sys/{folder}/up"), "..");
        made.fifo(&format!("/sys/{folder}/fifo"));
        let odd = made.at(&format!("/sys/{folder}")).join(OsStr::from_bytes(b"a\nb\xff"));
        fs::create_dir_all(odd).unwrap();
    }
    made.link("/sys/dev/char/188:7", "../../devices").link("/sys/dev/char/x", "x");
    made.fifo("/dev/fifo").link("/dev/serial/by-id/x", "x").fifo("/dev/serial/by-path");
    made.fifo("/dev/disk/by-id/a\nb").link("/dev/self", ".").link("/dev/a/b/c", "../..");
    for selector in SELECTORS {
        let begun = Instant::now();
        let looked = made.look(selector);
        made.watches(selector);
        assert!(begun.elapsed() < Duration::from_secs(5), "{selector}");
        assert!(looked.rejected.len() <= 200);
        let texts = looked.found.iter().flat_map(|found| [&found.identity, &found.name]);
        assert!(texts.chain(looked.rejected.iter().map(|one| &one.what)).all(|t| !t.contains('\n')));
    }
    let found = made.look("usb: {vendor: \"0403\", nodes: [tty]}").found;
    assert_eq!(found.len(), 1, "the other stick is as it was: {found:?}");
}

#[test]
fn a_name_of_the_kernels_cannot_lead_out_of_dev() {
    let made = Made::new();
    for (number, name) in [(0, "../../etc/passwd"), (1, "/etc/passwd"), (2, "a/../../x")] {
        let event = format!("MAJOR=188\nMINOR={number}\nDEVNAME={name}\n");
        made.device(&format!("virtual/tty/t{number}"), "class/tty", &[("uevent", &event)]);
    }
    let found = made.look("sysfs: {subsystem: tty}").found;
    assert!(found.iter().all(|found| found.nodes.is_empty()), "{found:?}");
}

#[test]
fn where_nothing_can_be_read_nothing_is_known_to_be_gone() {
    let made = Made::new();
    made.node("x", false, (1, 3));
    assert_eq!(made.look("path: {glob: [/dev/x]}").failed, None);
    fs::remove_dir_all(made.at("/sys")).unwrap();
    assert_eq!(made.look("path: {glob: [/dev/x]}").failed, None);
    fs::write(made.at("/sys"), "").unwrap();
    assert!(made.look("path: {glob: [/dev/x]}").failed.is_some_and(|why| why.contains("can't be read")));
    assert_eq!(made.look("count: 2").failed, None);
}

#[test]
fn two_with_one_identity_are_told_apart() {
    let made = Made::new();
    for name in ["x/nvme0n1", "y/nvme1n1"] {
        let devname = name.split_once('/').unwrap().1;
        let attributes = [("wwid", "eui.1\n"), ("size", "8\n")];
        let minor = u32::from(name.starts_with('y'));
        made.with_node(&format!("pci0000:00/{name}"), "class/block", &attributes, devname, (259, minor));
    }
    let found = made.look("block: {}").found;
    let identities: Vec<&str> = found.iter().map(|found| found.identity.as_str()).collect();
    assert_eq!(identities, ["block:eui.1@nvme0n1", "block:eui.1@nvme1n1"]);
}

#[test]
fn many_candidates_are_looked_at_in_one_go() {
    const MANY: u16 = 1000;
    let made = Made::new();
    for number in 0..MANY {
        let name = format!("p{number}");
        let folder = format!("virtual/ports/{name}");
        made.with_node(&folder, "class/ports", &[("kind", "x\n")], &name, (240, u32::from(number)));
    }
    // Far more than it takes, in a debug build on a busy machine, too: work that grows with the square shows.
    for selector in [
        "sysfs: {subsystem: ports, attributes: {kind: x}}",
        "path: {glob: ['/dev/p*']}",
        "char: {major: 240}",
    ] {
        let begun = Instant::now();
        assert_eq!(made.look(selector).found.len(), usize::from(MANY), "{selector}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{selector}");
    }
    let looked = made.look("sysfs: {subsystem: ports, attributes: {kind: y}}");
    assert_eq!((looked.found.len(), looked.rejected.len()), (0, 200));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_bytes_as_an_attribute_or_a_pattern_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        glob in "[ -~]{1,30}",
    ) {
        let made = Made::new();
        made.controller().adapter("1-1", "A5", 0);
        for attribute in ["idVendor", "serial", "uevent", "bInterfaceClass", "numa_node"] {
            fs::write(made.at("/sys/devices").join(CONTROLLER).join("usb1/1-1").join(attribute), &bytes).unwrap();
        }
        for selector in SELECTORS {
            made.look(selector);
        }
        for prefix in ["/", "/dev/", ""] {
            let text = serde_json::to_string(&format!("{prefix}{glob}")).unwrap();
            let parsed = crate::config::Config::parse(&format!(
                "resources: [{{name: a.b/c, devices: [{{path: {{glob: [{text}]}}}}]}}]"
            ));
            for selector in parsed.into_iter().flat_map(|config| config.resources).flat_map(|one| one.devices) {
                // What begins at the root would walk through this machine.
                if !glob.contains("**") {
                    super::look(&selector, &made.host());
                    super::watches(&selector, &made.host());
                }
            }
        }
    }
}
