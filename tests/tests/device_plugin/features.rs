//! The file for node-feature-discovery.

use std::fs;

use harness::device_node::DeviceNode;
use harness::suite::device;
use libtest_mimic::Trial;

use crate::{OTHER, SERIAL, TWO, serial, until, with_other};

pub fn trials() -> Vec<Trial> {
    vec![
        device("the_feature_file_follows_the_devices_and_the_configuration", &[], follows),
        device("the_feature_file_is_right_where_nothing_is_found", &[], nothing),
        device("the_feature_file_is_right_when_the_last_resource_but_one_goes", &[], removed_alone),
    ]
}

const FILE: &str = "/run/node/features.d/nodeplug";

fn with_file(text: &str) -> String {
    format!("featureFile: {FILE}\n{text}")
}

#[track_caller]
fn says(lines: &str) {
    until(|| {
        let text = fs::read_to_string(FILE).unwrap_or_default();
        (text == lines).then_some(()).ok_or_else(|| format!("{text:?} and not {lines:?}"))
    });
}

fn follows(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&with_file(TWO));
    says("nodeplug.example.com.serial=2\n");
    node.unplug("ttyUSB0");
    says("nodeplug.example.com.serial=1\n");
    node.plug("ttyUSB0", 188, 0);
    says("nodeplug.example.com.serial=2\n");
    node.configure(&with_file(&with_other(3)));
    says("nodeplug.example.com.serial=2\nnodeplug.example.com.other=3\n");
    node.configure(&with_file(TWO));
    says("nodeplug.example.com.serial=2\n");
    kubelet.wait_for_healthy(OTHER, 0);
    kubelet.wait_for_healthy(SERIAL, 2);
    let beside: Vec<_> =
        fs::read_dir("/run/node/features.d").unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(beside, ["nodeplug"], "half a file stays");
}

/// What a daemon before wrote is not true any more.
fn nothing(node: &DeviceNode) {
    let kubelet = node.kubelet();
    fs::create_dir_all("/run/node/features.d").unwrap();
    fs::write(FILE, "nodeplug.example.com.serial=5\nnodeplug.example.com.old=1\n").unwrap();
    let _daemon = node.offer(&with_file(TWO));
    kubelet.wait_for_healthy(SERIAL, 0);
    says("nodeplug.example.com.serial=0\n");
}

/// With no device that could change at the same time.
fn removed_alone(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let _daemon = node.offer(&with_file(&with_other(2)));
    says("nodeplug.example.com.serial=0\nnodeplug.example.com.other=2\n");
    node.configure(&with_file(TWO));
    says("nodeplug.example.com.serial=0\n");
    kubelet.wait_for_healthy(OTHER, 0);
}
