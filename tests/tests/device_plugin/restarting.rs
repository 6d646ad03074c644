//! One daemon ends and another begins.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::device_manager::{DeviceManager, Event, Pod, What};
use harness::device_node::{Daemon, DeviceNode};
use harness::suite::device;
use libtest_mimic::Trial;

use crate::{SERIAL, TWO, serial};

pub fn trials() -> Vec<Trial> {
    vec![
        device("what_a_pod_holds_is_listed_by_the_daemon_after_a_kill", &[], held_after_kill),
        device("what_a_pod_holds_is_listed_by_the_daemon_after_a_stop", &[], held_after_stop),
        device("what_a_pod_holds_and_comes_back_after_a_restart_is_healthy", &[], held_comes_back),
        device("a_daemon_that_registers_otherwise_waits_for_the_first", &[], other_registration),
    ]
}

const QUICK: &str = "discovery: {rescan: 1s, forgetAfter: 1s}\n";

/// A pod holds a device that is unplugged, and another daemon takes over: the pod, the device's IDs and its node.
fn unplugged(
    node: &DeviceNode,
    kubelet: &DeviceManager,
    end: impl Fn(&Daemon),
) -> (Daemon, Pod, BTreeSet<String>, String) {
    serial(node);
    let daemon = node.offer(&format!("{QUICK}{TWO}"));
    kubelet.wait_for_healthy(SERIAL, 2);
    let (pod, answer) = kubelet.allocate(SERIAL, 1);
    let tty = answer.devices[0].host_path.trim_start_matches("/dev/").to_owned();
    node.unplug(&tty);
    let before = kubelet.wait_for_healthy(SERIAL, 1);
    let ids = kubelet.held(&pod, "main")[SERIAL].ids();
    assert_eq!(before.unhealthy, ids);
    let start = Instant::now();
    end(&daemon);
    let daemon = node.daemon();
    let after = kubelet.wait_for(SERIAL, |o| o.stream != before.stream && o.healthy.len() == 1);
    assert_eq!(after.unhealthy, ids);
    let of = |event: &Event| match &event.what {
        What::Listed { stream, devices } if *stream == after.stream => Some(devices.clone()),
        _ => None,
    };
    let first = of(&kubelet.wait_for_event(start, |event| of(event).is_some())).expect("a list");
    let first: BTreeSet<String> = first.into_iter().map(|device| device.id).collect();
    assert!(first.is_superset(&ids), "the first list lacks it: {first:?}");
    (daemon, pod, ids, tty)
}

fn held_after(node: &DeviceNode, end: impl Fn(&Daemon)) {
    let kubelet = node.kubelet();
    let (_daemon, pod, ids, _) = unplugged(node, &kubelet, end);
    // It is asked again and again who holds it.
    let lost = kubelet.wait_up_to(SERIAL, Duration::from_secs(4), |offer| offer.unhealthy != ids);
    assert!(lost.is_none(), "it is held: {lost:?}");
    kubelet.end(&pod);
    let after = kubelet.wait_for(SERIAL, |offer| offer.capacity() == 1);
    assert_eq!(after.healthy.len(), 1);
    assert_eq!(kubelet.crash(), None);
}

fn held_after_kill(node: &DeviceNode) {
    held_after(node, Daemon::kill);
}

fn held_after_stop(node: &DeviceNode) {
    held_after(node, |daemon| assert!(daemon.stop().success()));
}

fn held_comes_back(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let (_daemon, pod, ids, tty) = unplugged(node, &kubelet, Daemon::kill);
    node.plug(&tty, 188, 7);
    let after = kubelet.wait_for_healthy(SERIAL, 2);
    assert!(after.healthy.is_superset(&ids) && after.unhealthy.is_empty(), "{after:?}");
    kubelet.start_container(&pod, "main").expect("its device is there again");
}

fn other_registration(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let watched = format!("kubelet: {{registration: watcher}}\n{TWO}");
    let mut before = node.offer(TWO);
    let mut stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    for text in [watched.as_str(), TWO] {
        // The first one refuses it: that is not for a daemon that runs.
        node.configure(text);
        let next = node.daemon();
        next.wait_for_log("another daemon serves this node");
        let taken = kubelet.wait_up_to(SERIAL, Duration::from_secs(3), |offer| offer.stream != stream);
        assert!(taken.is_none(), "{taken:?}");
        assert!(before.stop().success());
        let offer = kubelet.wait_for(SERIAL, |offer| offer.stream != stream && offer.healthy.len() == 2);
        stream = offer.stream;
        let (pod, _) = kubelet.allocate(SERIAL, 1);
        kubelet.end(&pod);
        before = next;
    }
}
