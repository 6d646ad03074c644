//! A resource is before the kubelet whatever the kubelet does.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use harness::call::tool;
use harness::device_manager::{DeviceManager, Offer, What};
use harness::device_node::{DeviceNode, KUBELET};
use harness::suite::device;
use libtest_mimic::Trial;

use crate::kubelet_itself::plugin::Plugin;
use crate::{SERIAL, TWO, serial, until};

pub fn trials() -> Vec<Trial> {
    vec![
        device("a_kubelet_that_comes_late_is_met", &[], late_kubelet),
        device("a_kubelet_s_folder_that_comes_late_is_met", &[], late_folder),
        device("a_kubelet_that_restarts_is_met_again", &[], restart),
        device("a_kubelet_that_was_killed_is_met_when_it_is_back", &[], killed_kubelet),
        device("a_stream_that_the_kubelet_drops_is_made_again", &[], dropped_stream),
        device("a_kubelet_that_ends_every_stream_is_not_stormed", &[], streams_that_end_at_once),
        device("options_that_the_kubelet_can_not_get_are_offered_again", &[], options_error),
        device("a_registration_that_is_refused_is_tried_again", &[], register_error),
        device("a_kubelet_that_dials_slowly_is_waited_for", &[], slow_dial),
        device("a_resource_is_registered_once_while_all_is_well", &[], registered_once),
        device("the_end_of_an_older_plugin_of_the_same_name_is_survived", &[], overlap),
        device("a_socket_that_somebody_deletes_is_made_again", &[], own_socket_deleted),
        device("a_folder_that_somebody_empties_is_served_again", &[], folder_emptied),
        device("a_folder_that_somebody_makes_anew_is_served_again", &[], folder_made_anew),
        device("a_folder_that_somebody_mounts_over_is_served_again", &[], folder_mounted_over),
        device("the_longest_names_are_offered", &[], long_names),
        device("two_hundred_resources_are_offered", &[], two_hundred),
        device("options_are_sent_and_answered", &[], options_in_both_places),
        device("the_watcher_finds_a_resource", &[], by_the_watcher),
        device("the_watcher_s_stream_is_made_again", &[], watcher_stream),
        device("a_kubelet_that_restarts_finds_the_watcher_s_socket", &[], watcher_restart),
    ]
}

fn right(offer: &Offer) -> bool {
    offer.healthy.len() == 2 && offer.unhealthy.is_empty()
}

/// What has to hold after whatever happened: the list is right, and a pod gets a device.
#[track_caller]
fn all_is_well(kubelet: &DeviceManager) {
    kubelet.wait_for(SERIAL, right);
    let (pod, _) = kubelet.allocate(SERIAL, 1);
    kubelet.end(&pod);
}

fn late_kubelet(node: &DeviceNode) {
    let kubelet = node.late_kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    std::thread::sleep(Duration::from_millis(300));
    assert!(daemon.is_alive());
    let lines = daemon.log_lines();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(daemon.log_lines(), lines, "waiting says nothing: {}", daemon.log());
    kubelet.start();
    all_is_well(&kubelet);
}

fn late_folder(node: &DeviceNode) {
    serial(node);
    let _daemon = node.offer(TWO);
    std::thread::sleep(Duration::from_millis(200));
    let kubelet = node.kubelet();
    all_is_well(&kubelet);
}

fn restart(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    let before = kubelet.wait_for(SERIAL, right);
    for _ in 0..5 {
        kubelet.restart();
        all_is_well(&kubelet);
    }
    assert_eq!(kubelet.offer(SERIAL).unwrap().healthy, before.healthy, "the IDs are the same");
}

fn killed_kubelet(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for(SERIAL, right);
    kubelet.stop();
    assert!(kubelet.folders().kubelet_socket().exists(), "it is stale");
    std::thread::sleep(Duration::from_millis(500));
    let (cpu, lines) = (daemon.cpu(), daemon.log_lines());
    std::thread::sleep(Duration::from_secs(1));
    assert!(daemon.cpu().saturating_sub(cpu) < Duration::from_millis(100), "it waits and does not spin");
    assert!(daemon.log_lines() <= lines + 1, "{}", daemon.log());
    kubelet.start();
    all_is_well(&kubelet);
}

fn dropped_stream(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    let mut last = kubelet.wait_for(SERIAL, right).stream;
    for _ in 0..5 {
        kubelet.drop_stream(SERIAL);
        let offer = kubelet.wait_for(SERIAL, |offer| right(offer) && offer.stream != last);
        last = offer.stream;
    }
    all_is_well(&kubelet);
}

fn streams_that_end_at_once(node: &DeviceNode) {
    let kubelet = node.kubelet();
    kubelet.lose_streams(usize::MAX);
    serial(node);
    let daemon = node.offer(TWO);
    std::thread::sleep(Duration::from_secs(2));
    let asked = kubelet.calls("ListAndWatch");
    assert!((2..=40).contains(&asked), "{asked} tries in two seconds");
    assert!(daemon.log_lines() <= asked * 2 + 20, "{}", daemon.log());
    kubelet.lose_streams(0);
    all_is_well(&kubelet);
}

fn options_error(node: &DeviceNode) {
    let kubelet = node.kubelet();
    kubelet.lose_options(3);
    serial(node);
    let _daemon = node.offer(TWO);
    all_is_well(&kubelet);
    assert_eq!(kubelet.calls("ListAndWatch"), 1);
}

fn register_error(node: &DeviceNode) {
    let kubelet = node.kubelet();
    kubelet.refuse_registrations(4, "the kubelet is not in the mood");
    serial(node);
    let daemon = node.offer(TWO);
    all_is_well(&kubelet);
    daemon.wait_for_log("the kubelet is not in the mood");
    let said = daemon.log().matches("not in the mood").count();
    assert_eq!(said, 1, "the same again and again is said once: {}", daemon.log());
}

fn slow_dial(node: &DeviceNode) {
    let kubelet = node.kubelet();
    kubelet.dial_slowly(Duration::from_secs(2));
    serial(node);
    let _daemon = node.offer(TWO);
    kubelet.wait_for(SERIAL, right);
    let calls = kubelet.events().iter().filter(|e| matches!(e.what, What::RegisterCalled { .. })).count();
    assert_eq!(calls, 1, "whoever is slow is not called twice");
}

fn registered_once(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for(SERIAL, right);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    // Noise in the kubelet's folder is none of ours.
    let folder = &kubelet.folders().device_plugins;
    fs::write(folder.join("noise"), "").unwrap();
    drop(UnixListener::bind(folder.join("other.sock")).unwrap());
    fs::remove_file(folder.join("other.sock")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((kubelet.calls("ListAndWatch"), kubelet.calls("GetDevicePluginOptions")), (1, 1));
}

fn overlap(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let old = Plugin::serve(&kubelet.folders().device_plugins, "old.sock");
    old.list(&["x", "y", "z"], &[]);
    old.register(&kubelet, SERIAL).unwrap();
    kubelet.wait_for_healthy(SERIAL, 3);
    serial(node);
    let _daemon = node.offer(TWO);
    let first = kubelet.wait_for(SERIAL, right).stream;
    drop(old);
    // The kubelet lets our stream go in its place.
    kubelet.wait_for(SERIAL, |offer| right(offer) && offer.stream != first);
    all_is_well(&kubelet);
}

fn own_socket_deleted(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    kubelet.wait_for(SERIAL, right);
    let [socket] = node.sockets().try_into().expect("one socket");
    let start = Instant::now();
    fs::remove_file(&socket).unwrap();
    kubelet.wait_for_event(start, |event| matches!(event.what, What::RegisterAnswered(Ok(()))));
    assert!(socket.exists());
    all_is_well(&kubelet);
}

fn folder_emptied(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    kubelet.wait_for(SERIAL, right);
    kubelet.stop();
    let folder = kubelet.folders().device_plugins.clone();
    fs::rename(&folder, folder.with_extension("old")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    fs::create_dir(&folder).unwrap();
    kubelet.start();
    all_is_well(&kubelet);
}

/// Nothing tells of it in time where the folder that is watched is not the folder any more: the next look at
/// everything is soon enough.
fn folder_changes(node: &DeviceNode, change: impl Fn(&str)) {
    let kubelet = node.late_kubelet();
    serial(node);
    let daemon = node.offer(&format!("discovery: {{rescan: 1s}}\n{TWO}"));
    let folder = kubelet.folders().device_plugins.to_str().expect("a path of text").to_owned();
    until(|| (node.sockets().len() == 1).then_some(()).ok_or_else(|| daemon.log()));
    // First with a kubelet that was never there, whose end no stream tells of.
    for round in 0..3 {
        if round > 0 {
            kubelet.stop();
        }
        change(&folder);
        kubelet.start();
        all_is_well(&kubelet);
        assert_eq!(node.sockets().len(), 1);
    }
}

fn folder_made_anew(node: &DeviceNode) {
    folder_changes(node, |folder| {
        // The daemon may make its socket there at this moment.
        until(|| fs::remove_dir_all(folder).map_err(|e| e.to_string()));
        fs::create_dir_all(folder).unwrap();
    });
}

fn folder_mounted_over(node: &DeviceNode) {
    folder_changes(node, |folder| drop(tool(&["mount", "-t", "tmpfs", "tmpfs", folder])));
}

fn long_names(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let label = "d".repeat(60);
    let domain = format!("{label}.{label}.{label}.{}", "e".repeat(61));
    assert_eq!(domain.len(), 244);
    let names = [format!("{domain}/{}", "n".repeat(63)), "a/b".to_owned(), "x.y/A.b_c-D".to_owned()];
    let text: String =
        names.iter().map(|name| format!("- {{name: {name}, devices: [{{count: 2}}]}}\n")).collect();
    let _daemon = node.offer(&format!("resources:\n{text}"));
    for name in &names {
        kubelet.wait_for_healthy(name, 2);
        kubelet.allocate(name, 1);
    }
    for socket in node.sockets() {
        assert!(socket.file_name().unwrap().len() <= 75, "{}", socket.display());
    }
}

fn two_hundred(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let names: Vec<String> = (0..200).map(|n| format!("example.com/r{n}")).collect();
    let text: String =
        names.iter().map(|name| format!("- {{name: {name}, devices: [{{count: 3}}]}}\n")).collect();
    let daemon = node.offer(&format!("resources:\n{text}"));
    for round in 0..2 {
        for name in &names {
            kubelet.wait_for_healthy(name, 3);
        }
        assert_eq!(node.sockets().len(), 200);
        if round == 0 {
            kubelet.restart();
        }
    }
    assert!(daemon.stop().success());
    assert!(node.sockets().is_empty());
}

fn options_in_both_places(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let text = "resources:\n- {name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*]}}], prefer: packed, \
                health: {beforeStart: true, checks: [{exists: /run/node}]}}\n";
    let start = Instant::now();
    let _daemon = node.offer(text);
    let call = kubelet.wait_for_event(start, |event| matches!(event.what, What::RegisterCalled { .. }));
    assert!(matches!(call.what, What::RegisterCalled { options: Some((true, true)), .. }), "{call:?}");
    kubelet.wait_for(SERIAL, right);
    let (pod, _) = kubelet.allocate(SERIAL, 1);
    kubelet.start_container(&pod, "main").unwrap();
    assert_eq!((kubelet.calls("GetPreferredAllocation"), kubelet.calls("PreStartContainer")), (1, 1));
}

const WATCHED: &str = "kubelet: {registration: watcher}\n";

fn by_the_watcher(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(&format!("{WATCHED}{TWO}"));
    all_is_well(&kubelet);
    assert!(node.sockets().is_empty(), "never both ways for one resource");
    let calls = kubelet.events().iter().filter(|e| matches!(e.what, What::RegisterCalled { .. })).count();
    assert_eq!(calls, 0);
    assert!(daemon.stop().success());
    let left = fs::read_dir(format!("{KUBELET}/plugins_registry")).unwrap().flatten();
    let sockets: Vec<_> =
        left.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "sock")).collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    kubelet.wait_for_healthy(SERIAL, 0);
}

fn watcher_stream(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&format!("{WATCHED}{TWO}"));
    let first = kubelet.wait_for(SERIAL, right).stream;
    kubelet.drop_stream(SERIAL);
    kubelet.wait_for(SERIAL, |offer| right(offer) && offer.stream != first);
    all_is_well(&kubelet);
}

fn watcher_restart(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&format!("{WATCHED}{TWO}"));
    kubelet.wait_for(SERIAL, right);
    kubelet.restart();
    all_is_well(&kubelet);
}
