//! What pods get, and what may happen meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use harness::device_manager::{DeviceManager, Pod, Role, What};
use harness::device_node::DeviceNode;
use harness::suite::device;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::{SERIAL, TWO, serial};

pub fn trials() -> Vec<Trial> {
    vec![
        device("a_pod_gets_its_device_by_the_stable_link", &[], stable_link),
        device("a_pod_gets_what_the_configuration_says", &[], everything),
        device("the_same_devices_get_the_same_answer_again", &[], idempotent),
        device("init_containers_hand_their_devices_on_to_the_pod", &[], init_containers),
        device("a_container_that_restarts_keeps_its_devices", &[], container_restart),
        device("a_device_that_goes_during_its_allocate_stays_listed", &[], removal_during_allocate),
        device("a_race_of_allocate_and_unplugging_crashes_nothing", &[], race),
        device("a_reload_during_an_allocate_takes_nothing_off_the_list", &[], reload_during_allocate),
        device(
            "a_daemon_that_stops_during_an_allocate_refuses_the_pod_and_no_more",
            &[],
            stop_during_allocate,
        ),
        device("a_daemon_that_is_killed_during_an_allocate_costs_one_pod", &[], kill_during_allocate),
        device("a_device_that_has_just_gone_is_refused_with_a_reason", &[], gone_just_now),
        device("what_is_unknown_is_refused", &[], unknown_ids),
        device("packed_replicas_come_from_one_device", &[], packed),
        device("spread_replicas_come_from_different_devices", &[], spread),
        device("preferred_devices_have_those_that_must_be_among_them", &[], must_include),
        device("devices_near_one_numa_node_are_preferred", &[], numa),
        device("a_check_before_the_start_holds_the_container_back", &[], before_start),
        device("what_nobody_holds_is_forgotten_after_a_while", &[], forgotten),
        device("what_a_pod_holds_is_not_forgotten", &[], held),
        device("ten_thousand_allocations_cost_no_memory", &[], no_growth),
    ]
}

fn stable_link(node: &DeviceNode) {
    let kubelet = node.kubelet();
    node.plug("ttyUSB0", 188, 0);
    node.link("serial/by-id/usb-one", "../../ttyUSB0");
    let text = "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/serial/by-id/*]}}]}]\n";
    let _daemon = node.offer(text);
    kubelet.wait_for_healthy(SERIAL, 1);
    let (_, answer) = kubelet.allocate(SERIAL, 1);
    let [device] = answer.devices.try_into().expect("one device");
    assert_eq!(device.host_path, "/dev/serial/by-id/usb-one", "what is true after a re-plugging, too");
    assert_eq!(device.permissions, "rw");
    assert!(answer.mounts.is_empty() && answer.cdi_devices.is_empty());
}

fn everything(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    fs::create_dir_all("/run/node/etc/adapters").unwrap();
    node.plug("extra", 1, 5);
    let text = "resources:\n- name: example.com/serial\n  devices: [{path: {glob: [/dev/ttyUSB*]}}]\n  allocate:\n    \
                node: {permissions: r, containerPath: \"/dev/serial${index}\"}\n    \
                devices: [{hostPath: /dev/extra, containerPath: /dev/ex, permissions: rw}, {hostPath: /dev/none, optional: true}]\n    \
                mounts: [{hostPath: /run/node/etc/adapters, containerPath: /etc/adapters}, \
                {hostPath: /nowhere, containerPath: /no, optional: true}]\n    \
                env: {SERIAL_DEVICES: \"${path}\", SERIAL_NAMES: \"${name}\"}\n    \
                annotations: {example.com/devices: \"${name}\"}\n";
    let _daemon = node.offer(text);
    kubelet.wait_for_healthy(SERIAL, 2);
    let (_, answer) = kubelet.allocate(SERIAL, 2);
    let devices: Vec<(&str, &str, &str)> = answer
        .devices
        .iter()
        .map(|d| (d.host_path.as_str(), d.container_path.as_str(), d.permissions.as_str()))
        .collect();
    for expect in [
        ("/dev/ttyUSB0", "/dev/serial0", "r"),
        ("/dev/ttyUSB1", "/dev/serial1", "r"),
        ("/dev/extra", "/dev/ex", "rw"),
    ] {
        assert!(devices.contains(&expect), "{expect:?}: {devices:?}");
    }
    assert_eq!(devices.len(), 3);
    let [mount] = answer.mounts.try_into().expect("one mount");
    assert_eq!(
        (mount.host_path.as_str(), mount.container_path.as_str()),
        ("/run/node/etc/adapters", "/etc/adapters")
    );
    assert!(mount.read_only);
    assert_eq!(answer.envs["SERIAL_DEVICES"], "/dev/ttyUSB0,/dev/ttyUSB1");
    assert_eq!(answer.envs["SERIAL_NAMES"], "ttyUSB0,ttyUSB1");
    assert_eq!(answer.annotations["example.com/devices"], "ttyUSB0,ttyUSB1");
}

fn idempotent(node: &DeviceNode) {
    let kubelet = node.kubelet();
    node.plug("ttyUSB0", 188, 0);
    let _daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 1);
    let mut answers = Vec::new();
    for _ in 0..5 {
        let (pod, answer) = kubelet.allocate(SERIAL, 1);
        answers.push(answer);
        // No Deallocate exists: the plugin is not told.
        kubelet.end(&pod);
    }
    assert_eq!(kubelet.calls("Allocate"), 5);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

fn init_containers(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    let pod =
        Pod::new("p").with("setup", Role::Init, &[(SERIAL, 1)]).with("main", Role::Main, &[(SERIAL, 2)]);
    kubelet.admit(&pod).unwrap();
    let ids = |name: &str| kubelet.held(&pod, name)[SERIAL].ids();
    assert!(ids("setup").is_subset(&ids("main")));
}

fn container_restart(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    let (pod, answer) = kubelet.allocate(SERIAL, 2);
    kubelet.restart();
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.admit(&pod).expect("its devices are healthy and known by the same IDs");
    assert_eq!(kubelet.start_container(&pod, "main").unwrap(), answer);
}

/// Begins an allocation whose answer is on its way to the kubelet while something happens.
fn meanwhile(kubelet: &DeviceManager, happens: impl FnOnce()) {
    let start = Instant::now();
    kubelet.hold_answers(true);
    let pod = Pod::wanting(SERIAL, 2);
    let pending = kubelet.admit_later(&pod);
    kubelet.wait_for_event(start, |event| event.what == What::Called("Allocate"));
    // The daemon has answered by now, most of the times.
    std::thread::sleep(Duration::from_millis(50));
    happens();
    kubelet.hold_answers(false);
    pending.wait().expect("both devices were healthy when they were asked for");
    kubelet.end(&pod);
}

fn removal_during_allocate(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    // The kubelet's pod-resources know nothing yet of what is being allocated.
    let _daemon = node.offer(&format!("discovery: {{rescan: 1s}}\n{TWO}"));
    let all = kubelet.wait_for_healthy(SERIAL, 2).healthy;
    meanwhile(&kubelet, || {
        node.unplug("ttyUSB0");
        node.unplug("ttyUSB1");
        let offer = kubelet.wait_for_healthy(SERIAL, 0);
        assert_eq!(offer.unhealthy, all);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(kubelet.offer(SERIAL).unwrap().unhealthy, all);
    });
    assert_eq!(kubelet.crash(), None);
}

fn race(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let all = kubelet.wait_for_healthy(SERIAL, 2).healthy;
    for round in 0..10 {
        let start = Instant::now();
        // The call and the change wait for the daemon together.
        daemon.signal(Signal::SIGSTOP);
        let pod = Pod::wanting(SERIAL, 2);
        let pending = kubelet.admit_later(&pod);
        kubelet.wait_for_event(start, |event| event.what == What::Called("Allocate"));
        node.unplug("ttyUSB0");
        daemon.signal(Signal::SIGCONT);
        // Either came first.
        if let Err(why) = pending.wait() {
            assert!(!why.contains("crashed"), "round {round}: {why}");
        }
        let offer = kubelet.wait_for_healthy(SERIAL, 1);
        assert_eq!(offer.capacity(), 2);
        kubelet.end(&pod);
        node.plug("ttyUSB0", 188, 0);
        assert_eq!(kubelet.wait_for_healthy(SERIAL, 2).healthy, all);
    }
}

fn reload_during_allocate(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let all = kubelet.wait_for_healthy(SERIAL, 2).healthy;
    for text in [
        // Other devices, and the same devices under other IDs.
        "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyACM*]}}]}]\n",
        "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*]}}], replicas: 2}]\n",
    ] {
        node.configure(TWO);
        kubelet.wait_for(SERIAL, |offer| offer.healthy == all);
        let before = daemon.log().matches("the configuration was read").count();
        meanwhile(&kubelet, || {
            node.configure(text);
            let start = Instant::now();
            while daemon.log().matches("the configuration was read").count() == before {
                assert!(start.elapsed() < Duration::from_secs(20), "{}", daemon.log());
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(500));
            let known: BTreeSet<String> = kubelet.offer(SERIAL).unwrap().devices.into_keys().collect();
            assert!(known.is_superset(&all), "{text}: {known:?} lacks some of {all:?}");
        });
    }
}

fn stop_during_allocate(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    for round in 0..5 {
        let start = Instant::now();
        daemon.signal(Signal::SIGSTOP);
        let pod = Pod::wanting(SERIAL, 1);
        let pending = kubelet.admit_later(&pod);
        kubelet.wait_for_event(start, |event| event.what == What::Called("Allocate"));
        if round == 4 {
            daemon.signal(Signal::SIGTERM);
        }
        daemon.signal(Signal::SIGCONT);
        let done = pending.wait();
        assert!(round == 4 || done.is_ok(), "{done:?}");
        kubelet.end(&pod);
    }
    assert!(daemon.wait().success());
    assert!(node.sockets().is_empty());
    let _daemon = node.daemon();
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.allocate(SERIAL, 2);
}

fn kill_during_allocate(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    let start = Instant::now();
    daemon.signal(Signal::SIGSTOP);
    let pending = kubelet.admit_later(&Pod::wanting(SERIAL, 1));
    kubelet.wait_for_event(start, |event| event.what == What::Called("Allocate"));
    daemon.kill();
    pending.wait().unwrap_err();
    assert_eq!(node.sockets().len(), 1, "a stale socket");
    let _daemon = node.daemon();
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.allocate(SERIAL, 2);
}

fn gone_just_now(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    // So long that the kubelet asks before it is told.
    let _daemon = node.offer(&format!("discovery: {{debounce: 1s}}\n{TWO}"));
    kubelet.wait_for_healthy(SERIAL, 2);
    node.unplug("ttyUSB0");
    let why = kubelet.admit(&Pod::wanting(SERIAL, 2)).unwrap_err();
    assert!(why.contains("/dev/ttyUSB0"), "it says which: {why}");
    kubelet.wait_for_healthy(SERIAL, 1);
}

fn unknown_ids(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    let [socket] = node.sockets().try_into().expect("one socket");
    let asked = |ids: &[&str]| crate::nonsense::allocate(&socket, ids);
    let why = asked(&["no-such-device"]).unwrap_err();
    assert!(why.contains("no-such-device"), "{why}");
    drop(asked(&[]));
    drop(asked(&[""]));
    let twice = kubelet.offer(SERIAL).unwrap().healthy.into_iter().next().unwrap();
    drop(asked(&[&twice, &twice]));
    assert!(daemon.is_alive());
    kubelet.allocate(SERIAL, 2);
}

/// Which devices these replicas are of.
fn devices(kubelet: &DeviceManager, pod: &Pod) -> BTreeSet<String> {
    let answer = kubelet.held(pod, "main").remove(SERIAL).expect("what was allocated").answer;
    answer.devices.into_iter().map(|device| device.host_path).collect()
}

fn preferring(how: &str) -> String {
    format!(
        "resources: [{{name: example.com/serial, devices: [{{path: {{glob: [/dev/ttyUSB*]}}}}], replicas: 4, prefer: {how}}}]\n"
    )
}

fn four(node: &DeviceNode) {
    for n in 0..4 {
        node.plug(&format!("ttyUSB{n}"), 188, n);
    }
}

fn packed(node: &DeviceNode) {
    let kubelet = node.kubelet();
    four(node);
    let _daemon = node.offer(&preferring("packed"));
    kubelet.wait_for_healthy(SERIAL, 16);
    let mut used = BTreeSet::new();
    for pod in 0..4 {
        let pods = [Pod::wanting(SERIAL, 2), Pod::wanting(SERIAL, 2)];
        for pod in &pods {
            kubelet.admit(pod).unwrap();
            used.extend(devices(&kubelet, pod));
        }
        assert_eq!(used.len(), pod + 1, "{used:?}");
    }
}

fn spread(node: &DeviceNode) {
    let kubelet = node.kubelet();
    four(node);
    let _daemon = node.offer(&preferring("spread"));
    kubelet.wait_for_healthy(SERIAL, 16);
    let pod = Pod::wanting(SERIAL, 4);
    kubelet.admit(&pod).unwrap();
    assert_eq!(devices(&kubelet, &pod).len(), 4);
    let two = [Pod::wanting(SERIAL, 2), Pod::wanting(SERIAL, 2)];
    let mut used = BTreeSet::new();
    for pod in &two {
        kubelet.admit(pod).unwrap();
        used.extend(devices(&kubelet, pod));
    }
    assert_eq!(used.len(), 4);
}

fn must_include(node: &DeviceNode) {
    let kubelet = node.kubelet();
    four(node);
    let _daemon = node.offer(&preferring("packed"));
    kubelet.wait_for_healthy(SERIAL, 16);
    for _ in 0..3 {
        let pod =
            Pod::new("p").with("setup", Role::Init, &[(SERIAL, 1)]).with("main", Role::Main, &[(SERIAL, 3)]);
        kubelet.admit(&pod).unwrap();
        let ids = |name: &str| kubelet.held(&pod, name)[SERIAL].ids();
        assert!(ids("setup").is_subset(&ids("main")));
        assert_eq!(devices(&kubelet, &pod).len(), 1, "the others are of the same device");
        kubelet.end(&pod);
    }
}

fn numa(node: &DeviceNode) {
    let kubelet = node.kubelet();
    for n in 0..4 {
        let function = format!("devices/pci0000:00/0000:00:0{n}.0");
        let near = if n == 3 {
            "-1"
        } else if n < 1 {
            "0"
        } else {
            "1"
        };
        node.sysfs.device(
            &function,
            "bus/pci",
            &[("vendor", "0x1234"), ("device", "0x5678"), ("class", "0x120000"), ("numa_node", near)],
        );
        let dev = format!("240:{n}");
        let uevent = format!("MAJOR=240\nMINOR={n}\nDEVNAME=accel{n}");
        node.sysfs.device(
            &format!("{function}/accel/accel{n}"),
            "class/accel",
            &[("dev", &dev), ("uevent", &uevent)],
        );
        node.plug(&format!("accel{n}"), 240, u64::try_from(n).unwrap());
    }
    let text =
        "resources: [{name: example.com/serial, devices: [{pci: {vendor: \"1234\"}}], prefer: numa}]\n";
    let _daemon = node.offer(text);
    let offer = kubelet.wait_for_healthy(SERIAL, 4);
    let mut nodes: Vec<Option<i64>> =
        offer.devices.values().map(|d| d.topology.as_ref().map(|t| t.nodes[0].id)).collect();
    nodes.sort();
    assert_eq!(nodes, [None, Some(0), Some(1), Some(1)], "-1 is none");
    let pod = Pod::wanting(SERIAL, 2);
    kubelet.admit(&pod).unwrap();
    assert_eq!(devices(&kubelet, &pod), ["/dev/accel1".to_owned(), "/dev/accel2".to_owned()].into());
}

fn before_start(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    fs::write("/run/node/fine", "").unwrap();
    let text = "resources:\n- name: example.com/serial\n  devices: [{path: {glob: [/dev/ttyUSB*]}}]\n  \
                health: {every: 1h, beforeStart: true, checks: [{exists: /run/node/fine}]}\n";
    let _daemon = node.offer(text);
    kubelet.wait_for_healthy(SERIAL, 2);
    let (pod, _) = kubelet.allocate(SERIAL, 1);
    kubelet.start_container(&pod, "main").unwrap();
    fs::remove_file("/run/node/fine").unwrap();
    let why = kubelet.start_container(&pod, "main").unwrap_err();
    assert!(why.contains("/run/node/fine"), "{why}");
    fs::write("/run/node/fine", "").unwrap();
    kubelet.start_container(&pod, "main").unwrap();
}

const FORGETFUL: &str = "discovery: {forgetAfter: 1s}\n";

fn forgotten(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&format!("{FORGETFUL}{TWO}"));
    kubelet.wait_for_healthy(SERIAL, 2);
    node.unplug("ttyUSB0");
    let unhealthy = kubelet.wait_for_healthy(SERIAL, 1);
    let gone = kubelet.wait_for(SERIAL, |offer| offer.capacity() == 1);
    assert!(gone.at.unwrap() - unhealthy.at.unwrap() >= Duration::from_millis(900));
}

fn held(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&format!("{FORGETFUL}{TWO}"));
    kubelet.wait_for_healthy(SERIAL, 2);
    let (pod, _) = kubelet.allocate(SERIAL, 2);
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    let early = kubelet.wait_up_to(SERIAL, Duration::from_secs(4), |offer| offer.capacity() == 1);
    assert!(early.is_none(), "a pod holds it");
    assert!(kubelet.calls("List") > 0);
    kubelet.end(&pod);
    kubelet.wait_for(SERIAL, |offer| offer.capacity() == 1);
}

fn no_growth(node: &DeviceNode) {
    let kubelet = node.kubelet();
    four(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 4);
    let id = kubelet.offer(SERIAL).unwrap().healthy.into_iter().next().unwrap();
    kubelet.call_allocate(SERIAL, &[&id], 1000, 1);
    let before = daemon.resident();
    kubelet.call_allocate(SERIAL, &[&id], 9000, 4);
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB");
}
