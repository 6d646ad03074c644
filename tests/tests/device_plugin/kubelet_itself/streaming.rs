//! Lists: what becomes of them, and of a stream that ends.

use std::time::{Duration, Instant};

use harness::device_manager::What;
use harness::suite::plain;
use libtest_mimic::Trial;
use proto::deviceplugin::Device;

use super::plugin::{Place, Plugin, RESOURCE};

pub fn trials() -> Vec<Trial> {
    vec![
        plain("a_stream_that_ends_is_never_asked_for_again", a_lost_stream_is_lost),
        plain("the_end_of_an_old_stream_takes_the_new_plugin_away", overlap),
        plain("a_list_beyond_4_mib_ends_the_stream", too_large),
        plain("only_the_word_healthy_is_healthy", the_word),
        plain("twins_collapse", twins),
    ]
}

fn a_lost_stream_is_lost() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a", "b", "c"]);
    plugin.end_streams();
    kubelet.wait_for_healthy(RESOURCE, 0);
    plugin.list(&["a"], &[]);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(kubelet.calls("ListAndWatch"), 1);
    assert_eq!(kubelet.node_status()[RESOURCE], (3, 0), "all of it is unhealthy");
    let why = kubelet.admit(&harness::device_manager::Pod::wanting(RESOURCE, 1)).unwrap_err();
    assert!(why.contains("no healthy devices present"), "{why}");
    plugin.register(&kubelet, RESOURCE).unwrap();
    kubelet.wait_for_healthy(RESOURCE, 1);
}

fn overlap() {
    let place = Place::new();
    let kubelet = place.started();
    let old = Plugin::registered(&kubelet, "old.sock", &["a", "b"]);
    let new = Plugin::registered(&kubelet, "new.sock", &["a", "b", "c"]);
    // The old instance ends as it should, and the new one is what the kubelet lets go.
    drop(old);
    kubelet.wait_for_healthy(RESOURCE, 0);
    assert_eq!(kubelet.node_status()[RESOURCE], (3, 0));
    let why = kubelet.admit(&harness::device_manager::Pod::wanting(RESOURCE, 1)).unwrap_err();
    assert!(why.contains("no healthy devices"), "{why}");
    drop(new);
}

fn too_large() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    // 40 bytes of ID make 53 of the message: 79,137 devices are the last that pass.
    let devices = |count: usize| {
        let device = |n| Device { id: format!("{n:040}"), health: "Healthy".to_owned(), topology: None };
        (0..count).map(device).collect::<Vec<_>>()
    };
    plugin.list_of(devices(79_137));
    plugin.register(&kubelet, RESOURCE).unwrap();
    kubelet.wait_for_healthy(RESOURCE, 79_137);
    kubelet.forget_events();
    let start = Instant::now();
    plugin.list_of(devices(79_138));
    let ended = kubelet.wait_for_event(start, |event| matches!(event.what, What::StreamEnded { .. }));
    assert!(format!("{:?}", ended.what).contains("too large"), "{ended:?}");
    kubelet.wait_for_healthy(RESOURCE, 0);
}

fn the_word() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::serve(&place.plugins(), "a.sock");
    let words = ["Healthy", "healthy", "HEALTHY", "Unhealthy", "", "Healthy "];
    let device = |word: &&str| Device { id: format!("<{word}>"), health: (*word).to_owned(), topology: None };
    plugin.list_of(words.iter().map(device).collect());
    plugin.register(&kubelet, RESOURCE).unwrap();
    let offer = kubelet.wait_for(RESOURCE, |offer| offer.capacity() == words.len());
    assert_eq!(offer.healthy.into_iter().collect::<Vec<_>>(), ["<Healthy>"]);
}

fn twins() {
    let place = Place::new();
    let kubelet = place.started();
    let plugin = Plugin::registered(&kubelet, "a.sock", &["a"]);
    plugin.list(&["a", "a", "b"], &[]);
    let offer = kubelet.wait_for_healthy(RESOURCE, 2);
    assert_eq!((offer.capacity(), offer.devices.len()), (2, 2));
}
