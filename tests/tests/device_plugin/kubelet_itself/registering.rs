//! Register, the watcher, and what is on disk.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use harness::device_manager::{CHECKPOINT, What};
use harness::suite::plain;
use libtest_mimic::Trial;

use super::plugin::{Place, Plugin, RESOURCE};

pub fn trials() -> Vec<Trial> {
    vec![
        plain("the_kubelet_dials_back_and_asks_for_options_inside_register", dials_back_inside_register),
        plain("a_version_or_a_name_that_the_kubelet_does_not_know_is_refused", wrong_requests_are_refused),
        plain("a_plugin_that_does_not_serve_can_not_register", nobody_serves),
        plain("a_plugin_whose_options_fail_is_not_registered", options_fail),
        plain("a_kubelet_that_starts_removes_sockets_and_nothing_else", sockets_go),
        plain("after_a_restart_the_kubelet_knows_resources_without_devices", known_and_empty),
        plain("a_kubelet_that_is_killed_leaves_a_stale_socket", stale_socket),
        plain("the_watcher_asks_who_is_there_and_never_again", watcher),
        plain("the_faults_of_the_kubelet_happen", faults),
    ]
}

fn dials_back_inside_register() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    plugin.list(&["a", "b"], &["c"]);
    plugin.register(&kubelet, RESOURCE).unwrap();
    let offer = kubelet.wait_for(RESOURCE, |offer| offer.capacity() == 3);
    assert_eq!(offer.allocatable(), 2);
    let order: Vec<&str> = kubelet
        .events()
        .iter()
        .filter_map(|event| match event.what {
            What::RegisterCalled { .. } => Some("called"),
            What::Called(name) => Some(name),
            What::RegisterAnswered(Ok(())) => Some("answered"),
            _ => None,
        })
        .collect();
    assert_eq!(order[..2], ["called", "GetDevicePluginOptions"], "{order:?}");
    assert!(order.contains(&"answered"), "{order:?}");
    assert_eq!(order.iter().filter(|o| **o == "ListAndWatch").count(), 1, "{order:?}");
}

fn wrong_requests_are_refused() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    let refused = |version: &str, name: &str| plugin.register_as(&kubelet, version, name).unwrap_err();
    let version =
        "requested API version \"v1\" is not supported by kubelet. Supported version is [\"v1beta1\"]";
    assert_eq!(refused("v1", RESOURCE), version);
    for name in
        ["sample", "kubernetes.io/sample", "requests.example.com/a", "example.com/a/b", "Example.com/a"]
    {
        assert_eq!(refused("v1beta1", name), format!("the ResourceName {name:?} is invalid"));
    }
    assert_eq!(kubelet.calls("GetDevicePluginOptions"), 0);
}

fn nobody_serves() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    // It listens and never speaks.
    fs::remove_file(place.plugins().join("a.sock")).unwrap();
    let _deaf = UnixListener::bind(place.plugins().join("a.sock")).unwrap();
    let start = Instant::now();
    let why = plugin.register(&kubelet, RESOURCE).unwrap_err();
    assert_eq!(why, "failed to dial device plugin: context deadline exceeded");
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
}

fn options_fail() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    plugin.fail_options(true);
    let why = plugin.register(&kubelet, RESOURCE).unwrap_err();
    assert!(why.starts_with("failed to get device plugin options: rpc error: code = Internal"), "{why}");
    assert_eq!(kubelet.calls("ListAndWatch"), 0);
    plugin.fail_options(false);
    plugin.list(&["a"], &[]);
    plugin.register(&kubelet, RESOURCE).unwrap();
    kubelet.wait_for_healthy(RESOURCE, 1);
}

fn sockets_go() {
    let place = Place::new();
    let kubelet = place.kubelet();
    fs::write(place.plugins().join("file"), "").unwrap();
    fs::create_dir(place.plugins().join("folder")).unwrap();
    drop(UnixListener::bind(place.plugins().join("old.sock")).unwrap());
    kubelet.start();
    let mut names: Vec<_> = fs::read_dir(place.plugins())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["file", "folder", "kubelet.sock"]);
}

fn known_and_empty() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a", "b"]);
    let (pod, before) = kubelet.allocate(RESOURCE, 1);
    assert!(place.plugins().join(CHECKPOINT).is_file());
    kubelet.restart();
    assert_eq!(kubelet.node_status()[RESOURCE], (0, 0));
    let held = kubelet.held(&pod, "main").remove(RESOURCE).expect("from the checkpoint");
    assert_eq!(held.answer, before);
    let why = kubelet.admit(&pod).unwrap_err();
    assert!(why.contains("no healthy devices present; cannot allocate unhealthy devices"), "{why}");
    drop(plugin);
    // That pod was refused, as after a reboot: its device is free.
    let _plugin = Plugin::registered(&kubelet, "b.sock", &["a", "b"]);
    kubelet.allocate(RESOURCE, 2);
}

fn stale_socket() {
    let place = Place::new();
    let kubelet = place.started();
    kubelet.stop();
    let socket = kubelet.folders().kubelet_socket();
    assert!(socket.exists());
    let refused = std::os::unix::net::UnixStream::connect(&socket).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    kubelet.start();
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
}

fn watcher() {
    let place = Place::new();
    let kubelet = place.started();
    let folder = kubelet.folders().plugins_registry.clone();
    let hidden = Plugin::serve(&folder, ".hidden.sock");
    let plugin = Plugin::serve(&folder, "a.sock");
    plugin.list(&["a"], &[]);
    kubelet.wait_for_healthy(RESOURCE, 1);
    plugin.end_streams();
    kubelet.wait_for_healthy(RESOURCE, 0);
    // Two rounds of the reconciler: a stream that was lost is not asked for again.
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(kubelet.calls("ListAndWatch"), 1);
    assert_eq!((plugin.notified(), hidden.notified()), (vec![(true, String::new())], Vec::new()));
    // A new socket of the same name is asked.
    drop(plugin);
    let again = Plugin::serve(&folder, "a.sock");
    again.list(&["a"], &[]);
    kubelet.wait_for_healthy(RESOURCE, 1);
    fs::remove_file(folder.join("a.sock")).unwrap();
    kubelet.wait_for_healthy(RESOURCE, 0);
}

fn faults() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    plugin.list(&["a"], &[]);
    kubelet.refuse_registrations(2, "not now");
    for _ in 0..2 {
        assert_eq!(plugin.register(&kubelet, RESOURCE).unwrap_err(), "not now");
    }
    kubelet.lose_options(1);
    assert!(
        plugin.register(&kubelet, RESOURCE).unwrap_err().starts_with("failed to get device plugin options")
    );
    kubelet.lose_streams(1);
    let start = Instant::now();
    plugin.register(&kubelet, RESOURCE).unwrap();
    kubelet.wait_for_event(start, |event| matches!(event.what, What::StreamEnded { .. }));
    assert_eq!(kubelet.node_status().get(RESOURCE).copied().unwrap_or_default(), (0, 0));
    kubelet.dial_slowly(Duration::from_millis(300));
    let start = Instant::now();
    plugin.register(&kubelet, RESOURCE).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    kubelet.wait_for_healthy(RESOURCE, 1);
}
