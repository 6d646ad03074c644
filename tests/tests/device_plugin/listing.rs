//! Devices come and go, and the list follows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use harness::device_manager::{DeviceManager, What};
use harness::device_node::{DEV, DeviceNode, UsbSerial};
use harness::suite::device;
use libtest_mimic::Trial;

use crate::{SERIAL, TWO, serial};

pub fn trials() -> Vec<Trial> {
    vec![
        device("a_device_that_appears_is_listed", &[], appears),
        device("a_device_that_goes_stays_listed_as_unhealthy", &[], goes),
        device("a_device_that_comes_back_has_its_id_again", &[], comes_back),
        device("a_device_in_a_folder_that_comes_later_is_listed", &[], later_folder),
        device("an_adapter_keeps_its_id_at_another_number", &[], another_number),
        device("ids_are_the_same_after_a_restart_of_the_daemon", &[], stable_ids),
        device("ids_are_short_and_unique_over_all_resources", &[], unique_ids),
        device("a_burst_of_events_makes_few_lists", &[], burst),
        device("events_that_change_nothing_make_no_list", &[], no_change),
        device("files_fifos_and_folders_are_devices_where_they_are_meant", &[], kinds),
        device("nothing_is_opened_to_be_found", &[], nothing_is_opened),
        device("replicas_of_a_device_go_and_come_together", &[], replicas),
        device("a_count_from_a_file_follows_the_file", &[], counted_by_file),
        device("a_device_that_ails_is_unhealthy_and_recovers", &[], hysteresis),
        device("a_device_is_unhealthy_until_it_was_checked", &[], checked_first),
        device("where_inotify_is_exhausted_it_is_looked_for_changes", &["setpriv"], without_inotify),
        device("a_list_that_the_kubelet_would_not_take_is_refused_with_its_size", &[], too_large),
        device("the_largest_list_that_the_kubelet_takes_is_taken", &[], large),
    ]
}

fn appears(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let _daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 0);
    for n in 0..5 {
        node.plug(&format!("ttyUSB{n}"), 188, n);
        kubelet.wait_for_healthy(SERIAL, usize::try_from(n).unwrap() + 1);
    }
}

fn goes(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    let before = kubelet.wait_for_healthy(SERIAL, 2);
    node.unplug("ttyUSB0");
    let after = kubelet.wait_for_healthy(SERIAL, 1);
    assert_eq!(after.capacity(), 2, "it is listed");
    assert!(after.unhealthy.is_subset(&before.healthy));
    // Whoever holds it or not: it is not to leave soon, while an answer may be on its way.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(kubelet.offer(SERIAL).unwrap().capacity(), 2);
}

fn comes_back(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    let before = kubelet.wait_for_healthy(SERIAL, 2);
    for _ in 0..3 {
        node.unplug("ttyUSB1");
        kubelet.wait_for_healthy(SERIAL, 1);
        node.plug("ttyUSB1", 188, 1);
        let after = kubelet.wait_for_healthy(SERIAL, 2);
        assert_eq!(after.healthy, before.healthy);
        assert!(after.unhealthy.is_empty());
    }
}

fn later_folder(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let text = "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/serial/by-id/*]}}]}]\n";
    let _daemon = node.offer(text);
    kubelet.wait_for_healthy(SERIAL, 0);
    node.plug("ttyUSB0", 188, 0);
    node.link("serial/by-id/usb-one", "../../ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    fs::remove_dir_all(format!("{DEV}/serial")).unwrap();
    kubelet.wait_for_healthy(SERIAL, 0);
    node.link("serial/by-id/usb-one", "../../ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    // A link to nothing is no device.
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 0);
}

const ADAPTERS: &str = "discovery: {rescan: 1s}\nresources:\n- name: example.com/serial\n  devices: [{usb: {vendor: \"0403\", \
                        nodes: [tty]}}]\n";

fn another_number(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let adapter = UsbSerial {
        port: "1-1",
        vendor: "0403",
        product: "6001",
        serial: "A50285BI",
        tty: "ttyUSB0",
        number: 4,
    };
    let folder = node.sysfs.usb_serial(&adapter);
    node.plug("ttyUSB0", 188, 0);
    let _daemon = node.offer(ADAPTERS);
    let before = kubelet.wait_for_healthy(SERIAL, 1);
    node.sysfs.remove(&folder);
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 0);
    // On another port, under other numbers, and known by its serial number.
    node.plug("ttyUSB7", 188, 7);
    node.sysfs.usb_serial(&UsbSerial { port: "1-2.3", tty: "ttyUSB7", number: 9, ..adapter });
    let after = kubelet.wait_for_healthy(SERIAL, 1);
    assert_eq!((after.healthy, after.unhealthy.len()), (before.healthy, 0));
}

fn stable_ids(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let before = kubelet.wait_for_healthy(SERIAL, 2);
    daemon.stop();
    kubelet.wait_for_healthy(SERIAL, 0);
    // The same links over other numbers, as after a reboot.
    node.unplug("ttyUSB0");
    node.plug("ttyUSB0", 188, 9);
    let _daemon = node.daemon();
    let after = kubelet.wait_for_healthy(SERIAL, 2);
    assert_eq!(after.healthy, before.healthy);
}

fn unique_ids(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let names = ["example.com/a", "example.com/b", "other.example/a"];
    let text: String =
        names.iter().map(|n| format!("- {{name: {n}, devices: [{{count: 30}}], replicas: 3}}\n")).collect();
    let _daemon = node.offer(&format!("resources:\n{text}"));
    let all: Vec<String> = names.iter().flat_map(|name| kubelet.wait_for_healthy(name, 90).healthy).collect();
    let unique: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(unique.len(), 270);
    assert!(all.iter().all(|id| id.len() <= 63 && !id.is_empty()), "{all:?}");
}

fn lists(kubelet: &DeviceManager) -> usize {
    kubelet.events().iter().filter(|e| matches!(e.what, What::Listed { .. })).count()
}

fn burst(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let _daemon = node.offer(&format!("discovery: {{debounce: 200ms}}\n{TWO}"));
    kubelet.wait_for_healthy(SERIAL, 0);
    let before = lists(&kubelet);
    for n in 0..64 {
        node.plug(&format!("ttyUSB{n}"), 188, n);
    }
    kubelet.wait_for_healthy(SERIAL, 64);
    let more = lists(&kubelet) - before;
    assert!(more <= 4, "{more} lists for one burst");
}

fn no_change(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    std::thread::sleep(Duration::from_millis(200));
    let before = lists(&kubelet);
    for n in 0..20 {
        node.plug(&format!("other{n}"), 1, 3);
        node.unplug(&format!("other{n}"));
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lists(&kubelet), before);
}

fn kinds(node: &DeviceNode) {
    let kubelet = node.kubelet();
    node.plug("thing/char", 1, 3);
    node.plug_block("thing/block", 7, 250);
    node.fifo("thing/fifo");
    fs::write(node.dev("thing/file"), "").unwrap();
    fs::create_dir(node.dev("thing/folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(node.dev("thing/socket")).unwrap();
    let kinds = ["char", "block", "fifo", "file", "folder", "socket"];
    let one = |kind: &str| {
        format!(
            "- {{name: example.com/{kind}, devices: [{{path: {{glob: [/dev/thing/*], kinds: [{kind}]}}}}]}}\n"
        )
    };
    let text: String = kinds.iter().map(|kind| one(kind)).collect();
    let plain = "- {name: example.com/plain, devices: [{path: {glob: [/dev/thing/*]}}]}\n";
    let _daemon = node.offer(&format!("resources:\n{text}{plain}"));
    for kind in kinds {
        let offer = kubelet.wait_for_healthy(&format!("example.com/{kind}"), 1);
        assert!(offer.healthy.first().is_some_and(|id| id.contains(kind)), "{:?}", offer.healthy);
    }
    kubelet.wait_for_healthy("example.com/plain", 2);
}

/// A FIFO that nobody writes to would hold whoever opens it.
fn nothing_is_opened(node: &DeviceNode) {
    let kubelet = node.kubelet();
    node.fifo("ttyUSB0");
    // A number without a driver: an open would fail.
    node.plug("ttyUSB1", 188, 200);
    let text = "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*], kinds: [char, fifo]}}]}]\n";
    let _daemon = node.offer(text);
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.allocate(SERIAL, 2);
}

fn replicas(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let text =
        "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*]}}], replicas: 4}]\n";
    let _daemon = node.offer(text);
    kubelet.wait_for_healthy(SERIAL, 8);
    node.unplug("ttyUSB0");
    let offer = kubelet.wait_for_healthy(SERIAL, 4);
    assert_eq!(offer.unhealthy.len(), 4);
    node.plug("ttyUSB0", 188, 0);
    kubelet.wait_for_healthy(SERIAL, 8);
}

fn counted_by_file(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let write = |count: &str| {
        fs::write("/run/node/licences.new", count).unwrap();
        fs::rename("/run/node/licences.new", "/run/node/licences").unwrap();
    };
    write("5\n");
    let _daemon = node
        .offer("resources: [{name: example.com/licence, devices: [{file: {path: /run/node/licences}}]}]\n");
    let five = kubelet.wait_for_healthy("example.com/licence", 5);
    write("3");
    let three = kubelet.wait_for_healthy("example.com/licence", 3);
    assert_eq!(three.capacity(), 5, "fewer: the others are unhealthy, and do not leave at once");
    assert!(three.healthy.is_subset(&five.healthy));
    write("6");
    let six = kubelet.wait_for_healthy("example.com/licence", 6);
    assert!(five.healthy.is_subset(&six.healthy));
}

fn hysteresis(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    fs::write("/run/node/fine", "").unwrap();
    let text = "resources:\n- name: example.com/serial\n  devices: [{path: {glob: [/dev/ttyUSB*]}}]\n  \
                health: {every: 1s, failures: 2, successes: 2, checks: [{command: {run: [/bin/test, -e, /run/node/fine]}}]}\n";
    let _daemon = node.offer(text);
    kubelet.wait_for_healthy(SERIAL, 2);
    fs::remove_file("/run/node/fine").unwrap();
    let offer = kubelet.wait_for_healthy(SERIAL, 0);
    assert_eq!(offer.unhealthy.len(), 2);
    fs::write("/run/node/fine", "").unwrap();
    kubelet.wait_for_healthy(SERIAL, 2);
}

fn checked_first(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let text = "resources:\n- name: example.com/serial\n  devices: [{path: {glob: [/dev/ttyUSB*]}}]\n  \
                health: {every: 1s, checks: [{command: {run: [/bin/false]}}]}\n";
    let _daemon = node.offer(text);
    let offer = kubelet.wait_for(SERIAL, |offer| offer.capacity() == 2);
    assert!(offer.healthy.is_empty());
    let healthy = kubelet.wait_up_to(SERIAL, Duration::from_secs(2), |offer| !offer.healthy.is_empty());
    assert!(healthy.is_none(), "{healthy:?}");
}

/// A user of whose inotify instances none is left. The limit is a user's, so that nobody else notices.
fn without_inotify(node: &DeviceNode) {
    const NOBODY: &str = "64999";
    let kubelet = node.kubelet();
    serial(node);
    for folder in [&kubelet.folders().device_plugins, &kubelet.folders().pod_resources] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(kubelet.folders().kubelet_socket(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir_all("/run/nodeplug").unwrap();
    fs::set_permissions("/run/nodeplug", fs::Permissions::from_mode(0o777)).unwrap();
    let taken = crate::inotify::exhaust(NOBODY);
    node.configure(TWO);
    let daemon = node.daemon_by(&["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    daemon.wait_for_log("changes are noticed late");
    kubelet.wait_for_healthy(SERIAL, 2);
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    node.plug("ttyUSB0", 188, 0);
    kubelet.wait_for_healthy(SERIAL, 2);
    let first = kubelet.offer(SERIAL).unwrap().stream;
    kubelet.stop();
    kubelet.start();
    fs::set_permissions(kubelet.folders().kubelet_socket(), fs::Permissions::from_mode(0o777)).unwrap();
    kubelet.wait_for(SERIAL, |offer| offer.healthy.len() == 2 && offer.stream != first);
    drop(taken);
}

fn too_large(node: &DeviceNode) {
    let _kubelet = node.kubelet();
    node.configure("resources: [{name: example.com/many, devices: [{count: 10000}], replicas: 30}]\n");
    let daemon = node.daemon();
    assert!(!daemon.wait().success());
    let answer = node.command(&["validate"]);
    assert!(!answer.ok(), "{answer:?}");
    assert!(format!("{}{}", answer.stdout, answer.stderr).contains("300000"), "{answer:?}");
}

fn large(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let daemon =
        node.offer("resources: [{name: example.com/many, devices: [{count: 10000}], replicas: 5}]\n");
    kubelet.wait_for_healthy("example.com/many", 50_000);
    kubelet.forget_events();
    kubelet.restart();
    kubelet.wait_for_healthy("example.com/many", 50_000);
    kubelet.forget_events();
    assert!(daemon.is_alive());
}
