//! Pods: which devices they get, and what may go wrong on the way.

use std::time::{Duration, Instant};

use harness::device_manager::{Pod, Role, What};
use harness::suite::plain;
use libtest_mimic::Trial;
use proto::deviceplugin::DevicePluginOptions;

use super::plugin::{Place, Plugin, RESOURCE, near};

pub fn trials() -> Vec<Trial> {
    vec![
        plain("a_device_that_leaves_the_list_during_its_allocate_is_a_crash", removal_crashes),
        plain("a_device_that_becomes_unhealthy_during_its_allocate_is_none", unhealthy_does_not),
        plain("a_plugin_that_stops_during_allocate_refuses_the_pod", stop_during_allocate),
        plain("a_container_that_has_its_devices_is_not_asked_for_again", once_for_each_container),
        plain("init_containers_hand_their_devices_on", init_containers),
        plain("preferred_devices_are_asked_for_and_intersected", preferred),
        plain("near_devices_come_first", numa),
        plain("a_resource_that_nobody_registered_is_left_out_in_silence", unregistered),
        plain("an_answer_without_a_container_is_refused", empty_answer),
        plain("what_is_held_can_be_asked", pod_resources),
        plain("a_container_does_not_start_when_its_check_refuses", pre_start),
    ]
}

/// Waits until the plugin has its Allocate.
fn asked(kubelet: &harness::device_manager::DeviceManager, since: Instant) {
    kubelet.wait_for_event(since, |event| event.what == What::Called("Allocate"));
}

fn removal_crashes() {
    let place = Place::new();
    let kubelet = place.kubelet().that_may_crash();
    kubelet.start();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a"]);
    plugin.slow(true);
    let start = Instant::now();
    let pending = kubelet.admit_later(&Pod::wanting(RESOURCE, 1));
    asked(&kubelet, start);
    plugin.list(&[], &[]);
    kubelet.wait_for(RESOURCE, |offer| offer.capacity() == 0);
    plugin.slow(false);
    assert!(pending.wait().is_err());
    let why = kubelet.crash().expect("a crash");
    assert!(why.contains("left the list while its Allocate was under way"), "{why}");
    assert_eq!(kubelet.crash(), None);
}

fn unhealthy_does_not() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a"]);
    plugin.slow(true);
    let start = Instant::now();
    let pending = kubelet.admit_later(&Pod::wanting(RESOURCE, 1));
    asked(&kubelet, start);
    plugin.list(&[], &["a"]);
    kubelet.wait_for_healthy(RESOURCE, 0);
    plugin.slow(false);
    pending.wait().unwrap();
}

fn stop_during_allocate() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a"]);
    plugin.slow(true);
    let start = Instant::now();
    let pending = kubelet.admit_later(&Pod::wanting(RESOURCE, 1));
    asked(&kubelet, start);
    drop(plugin);
    let why = pending.wait().unwrap_err();
    assert!(why.contains("rpc error"), "{why}");
    // What was being allocated is free again.
    let _plugin = Plugin::registered(&kubelet, "b.sock", &["a"]);
    kubelet.allocate(RESOURCE, 1);
}

fn once_for_each_container() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a", "b"]);
    let (pod, _) = kubelet.allocate(RESOURCE, 2);
    kubelet.admit(&pod).unwrap();
    assert_eq!(kubelet.calls("Allocate"), 1);
    let why = kubelet.admit(&Pod::wanting(RESOURCE, 1)).unwrap_err();
    assert!(why.contains("requested number of devices unavailable"), "{why}");
    kubelet.end(&pod);
    kubelet.allocate(RESOURCE, 1);
    drop(plugin);
}

fn init_containers() {
    let place = Place::new();
    let kubelet = place.started();
    let _plugin = Plugin::registered(&kubelet, "a.sock", &["a", "b"]);
    let one = [(RESOURCE, 1)];
    let pod = Pod::new("p").with("main", Role::Main, &one).with("setup", Role::Init, &one);
    let pod = pod.with("beside", Role::Sidecar, &one);
    kubelet.admit(&pod).unwrap();
    let ids = |name: &str| kubelet.held(&pod, name)[RESOURCE].ids();
    // The sidecar takes over the init container's device, and keeps it.
    assert_eq!(ids("setup"), ids("beside"));
    assert_ne!(ids("beside"), ids("main"));
    assert_eq!(kubelet.calls("Allocate"), 3);
}

fn preferred() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    plugin
        .options(DevicePluginOptions { get_preferred_allocation_available: true, pre_start_required: false });
    plugin.list(&["a", "b", "c", "d"], &["e"]);
    plugin.register(&kubelet, RESOURCE).unwrap();
    kubelet.wait_for_healthy(RESOURCE, 4);
    // What does not exist or is not healthy is no advice.
    plugin.advise(Ok(&["c", "e", "nonsense", "d"]));
    let pod = Pod::wanting(RESOURCE, 2);
    kubelet.admit(&pod).unwrap();
    let ids: Vec<String> = kubelet.held(&pod, "main")[RESOURCE].ids().into_iter().collect();
    assert_eq!(ids, ["c", "d"]);
    let asked = plugin.asked().remove(0);
    assert_eq!((asked.allocation_size, asked.available_device_i_ds.len()), (2, 4));
    // Those of an init container have to be among them.
    let pod =
        Pod::new("p").with("setup", Role::Init, &[(RESOURCE, 1)]).with("main", Role::Main, &[(RESOURCE, 2)]);
    plugin.advise(Ok(&["a"]));
    kubelet.admit(&pod).unwrap();
    let asked = plugin.asked().remove(2);
    assert_eq!((asked.allocation_size, asked.must_include_device_i_ds), (2, vec!["a".to_owned()]));
    kubelet.end(&pod);
    plugin.advise(Err("no idea"));
    let why = kubelet.admit(&Pod::wanting(RESOURCE, 1)).unwrap_err();
    assert!(why.contains("GetPreferredAllocation rpc failed"), "{why}");
}

fn numa() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    plugin.list_of(vec![near("far1", 0), near("far2", 0), near("near1", 1), near("near2", 1)]);
    plugin.register(&kubelet, RESOURCE).unwrap();
    kubelet.wait_for_healthy(RESOURCE, 4);
    let pod = Pod::wanting(RESOURCE, 2).on_numa(&[1]);
    kubelet.admit(&pod).unwrap();
    let held = kubelet.held(&pod, "main").remove(RESOURCE).unwrap();
    assert_eq!(held.devices.keys().collect::<Vec<_>>(), [&1]);
}

fn unregistered() {
    let place = Place::new();
    let kubelet = place.started();
    let pod = Pod::wanting(RESOURCE, 1);
    kubelet.admit(&pod).unwrap();
    assert!(kubelet.held(&pod, "main").is_empty());
}

fn empty_answer() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a"]);
    plugin.answer_nothing();
    let why = kubelet.admit(&Pod::wanting(RESOURCE, 1)).unwrap_err();
    assert!(why.contains("no containers return in allocation response"), "{why}");
}

fn pod_resources() {
    let place = Place::new();
    let kubelet = place.started();
    let _plugin = Plugin::registered(&kubelet, "a.sock", &["a", "b"]);
    let (pod, _) = kubelet.allocate(RESOURCE, 2);
    let ids = |kubelet: &harness::device_manager::DeviceManager| {
        let all = kubelet.pod_resources().unwrap().pod_resources.into_iter().flat_map(|p| p.containers);
        let devices = all.flat_map(|c| c.devices).filter(|d| d.resource_name == RESOURCE);
        devices.flat_map(|d| d.device_ids).collect::<Vec<_>>()
    };
    assert_eq!(ids(&kubelet), ["a", "b"]);
    kubelet.end(&pod);
    assert!(ids(&kubelet).is_empty());
}

fn pre_start() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    plugin
        .options(DevicePluginOptions { get_preferred_allocation_available: false, pre_start_required: true });
    plugin.list(&["refused"], &[]);
    plugin.register(&kubelet, RESOURCE).unwrap();
    kubelet.wait_for_healthy(RESOURCE, 1);
    let (pod, _) = kubelet.allocate(RESOURCE, 1);
    let start = Instant::now();
    let why = kubelet.start_container(&pod, "main").unwrap_err();
    assert!(why.contains("PreStartContainer rpc failed"), "{why}");
    assert!(start.elapsed() < Duration::from_secs(10));
    kubelet.end(&pod);
    plugin.list(&["fine"], &[]);
    kubelet.wait_for(RESOURCE, |offer| offer.healthy.contains("fine"));
    let (pod, _) = kubelet.allocate(RESOURCE, 1);
    assert_eq!(kubelet.start_container(&pod, "main").unwrap().envs["DEVICES"], "fine");
}
