//! `nodeplug-device-plugin` before a kubelet: what happens to a node, and how long until the list is right again.

use std::time::{Duration, Instant};

use harness::device_manager::{DeviceManager, Offer};
use harness::device_node::{Daemon, DeviceNode};

use super::shown::Shown;

const SERIAL: &str = "example.com/serial";
const LICENCE: &str = "example.com/licence";
const CONFIG: &str = "\
resources:
- name: example.com/serial
  devices: [{path: {glob: [/dev/serial/by-id/*]}}]
- name: example.com/licence
  devices: [{count: 3}]
";

/// What a person would call at once.
const SOON: Duration = Duration::from_millis(500);

/// Shows it on a node of its own.
pub fn demonstrate() -> Shown {
    let node = DeviceNode::enter();
    let kubelet = node.kubelet();
    let mut shown = Shown::default();
    let daemon = offered(&mut shown, &node, &kubelet);
    let (id, n) = allocated(&mut shown, &kubelet);
    unplugged(&mut shown, &node, &kubelet, &id, n);
    lost(&mut shown, &kubelet);
    ended(&mut shown, &node, &kubelet, &daemon);
    shown
}

/// Two adapters with the links that udev makes for them, and licences that nothing stands for.
fn offered(shown: &mut Shown, node: &DeviceNode, kubelet: &DeviceManager) -> Daemon {
    shown.title("1. A node with two serial adapters and three licences");
    plug(node, 0);
    plug(node, 1);
    shown.text(CONFIG);
    let start = Instant::now();
    let daemon = node.offer(CONFIG);
    right_again(shown, "start → two serial adapters", kubelet, SERIAL, start, |o| o.healthy.len() == 2);
    right_again(shown, "start → three licences", kubelet, LICENCE, start, |o| o.healthy.len() == 3);
    for (name, (capacity, allocatable)) in kubelet.node_status() {
        shown.text(&format!("{name}: capacity {capacity}, allocatable {allocatable}"));
    }
    daemon
}

fn plug(node: &DeviceNode, n: u64) {
    node.plug(&format!("ttyUSB{n}"), 188, n);
    node.link(&format!("serial/by-id/usb-adapter-{n}"), &format!("../../ttyUSB{n}"));
}

/// How long after `start` the kubelet had what it should have.
fn right_again(
    shown: &mut Shown,
    what: &str,
    kubelet: &DeviceManager,
    resource: &str,
    start: Instant,
    right: impl Fn(&Offer) -> bool,
) {
    match kubelet.wait_up_to(resource, Duration::from_secs(10), right) {
        Some(offer) => {
            let took = offer.at.map(|at| at.saturating_duration_since(start)).unwrap_or_default();
            let seen = format!("{:.1} ms later", took.as_secs_f64() * 1000.0);
            shown.row(what, &seen, took < SOON);
        }
        None => shown.row(what, "not after 10 s", false),
    }
}

/// A pod's adapter: its ID, and its number in the link's name.
fn allocated(shown: &mut Shown, kubelet: &DeviceManager) -> (String, u64) {
    shown.title("2. A pod gets an adapter");
    let (pod, answer) = kubelet.allocate(SERIAL, 1);
    let held = kubelet.held(&pod, "main").remove(SERIAL).map(|held| held.ids()).unwrap_or_default();
    let id = held.into_iter().next().unwrap_or_default();
    let mut n = 0;
    for device in &answer.devices {
        n = u64::from(device.host_path.ends_with('1'));
        let seen = format!("{} {}", device.host_path, device.permissions);
        shown.row("its device, by udev's link", &seen, device.host_path.starts_with("/dev/serial/by-id/"));
    }
    shown.row("its ID", &id, !id.is_empty());
    (id, n)
}

fn unplugged(shown: &mut Shown, node: &DeviceNode, kubelet: &DeviceManager, id: &str, n: u64) {
    shown.title("3. The adapter is unplugged and plugged in again, as another ttyUSB");
    let link = format!("serial/by-id/usb-adapter-{n}");
    let start = Instant::now();
    node.unplug(&format!("ttyUSB{n}"));
    node.unplug(&link);
    right_again(shown, "unplugged → listed as unhealthy", kubelet, SERIAL, start, |o| {
        o.unhealthy.contains(id)
    });
    let start = Instant::now();
    node.plug("ttyUSB7", 188, 7);
    node.link(&link, "../../ttyUSB7");
    right_again(shown, "plugged in → healthy under the same ID", kubelet, SERIAL, start, |o| {
        o.healthy.contains(id) && o.capacity() == 2
    });
}

fn lost(shown: &mut Shown, kubelet: &DeviceManager) {
    shown.title("4. What costs other plugins their resource");
    let before = kubelet.offer(SERIAL).unwrap_or_default().stream;
    let whole = |before: u64| move |o: &Offer| o.healthy.len() == 2 && o.stream != before;
    let start = Instant::now();
    kubelet.drop_stream(SERIAL);
    right_again(shown, "the kubelet drops the stream → list", kubelet, SERIAL, start, whole(before));
    let before = kubelet.offer(SERIAL).unwrap_or_default().stream;
    kubelet.stop();
    std::thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    kubelet.start();
    right_again(shown, "the kubelet is back after 2 s → list", kubelet, SERIAL, start, whole(before));
    right_again(shown, "and the licences", kubelet, LICENCE, start, |o| o.healthy.len() == 3);
}

fn ended(shown: &mut Shown, node: &DeviceNode, kubelet: &DeviceManager, daemon: &Daemon) {
    shown.title("5. SIGTERM");
    let status = daemon.stop();
    shown.row("the daemon ends", &status.to_string(), status.success());
    shown.none("sockets", node.sockets().len());
    let crash = kubelet.crash();
    shown.row("crashes of the kubelet", crash.as_deref().unwrap_or("none"), crash.is_none());
}
