//! The devices that every machine has, and what the kernel tells of them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::call::{tool, try_tool};
use harness::device_node::DeviceNode;
use harness::suite::device;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        device("real_character_devices_are_offered", &[], characters),
        device("a_real_disk_comes_and_goes", &["losetup"], disks),
        device("a_network_interface_comes_and_goes", &[], interface),
        device("the_kernel_s_announcement_is_a_reason_to_look", &[], uevent),
    ]
}

fn characters(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let mut text = "resources:\n- {name: example.com/null, devices: [{path: {glob: [/dev/null]}}]}\n\
                    - {name: example.com/zero, devices: [{char: {major: 1, minor: 5}}]}\n\
                    - {name: example.com/mem, devices: [{sysfs: {subsystem: mem, name: full}}]}\n"
        .to_owned();
    let mut wanted = vec![("null", "/dev/null"), ("zero", "/dev/zero"), ("mem", "/dev/full")];
    for (name, path) in [("fuse", "/dev/fuse"), ("tun", "/dev/net/tun"), ("kvm", "/dev/kvm")] {
        if Path::new(path).exists() {
            let devices = format!("devices: [{{path: {{glob: [{path}]}}}}], replicas: 10");
            text = format!("{text}- {{name: example.com/{name}, {devices}}}\n");
            wanted.push((name, path));
        }
    }
    node.configure_real(&text);
    let _daemon = node.daemon();
    for (name, path) in wanted {
        let resource = format!("example.com/{name}");
        kubelet.wait_for(&resource, |offer| !offer.healthy.is_empty());
        let (_, answer) = kubelet.allocate(&resource, 1);
        assert_eq!(answer.devices[0].host_path, path, "{answer:?}");
    }
}

/// A loop device of this machine, while the test has it.
struct Loop(String);

impl Loop {
    fn attach() -> Self {
        tool(&["truncate", "-s", "8M", "/run/node/disk.img"]);
        Self(tool(&["losetup", "--find", "--show", "/run/node/disk.img"]).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(try_tool(&["losetup", "-d", &self.0]));
    }
}

fn disks(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let disk = Loop::attach();
    let path = disk.0.clone();
    let name = path.trim_start_matches("/dev/");
    let text = format!(
        "resources:\n- {{name: example.com/loop, devices: [{{block: {{name: {name}, minSize: 4Mi}}}}]}}\n\
         - {{name: example.com/none, devices: [{{block: {{name: \"no-such-disk*\"}}}}]}}\n"
    );
    node.configure_real(&text);
    let _daemon = node.daemon();
    kubelet.wait_for_healthy("example.com/none", 0);
    kubelet.wait_for_healthy("example.com/loop", 1);
    let (pod, answer) = kubelet.allocate("example.com/loop", 1);
    assert_eq!(answer.devices[0].host_path, path);
    kubelet.end(&pod);
    // A disk without a size is no disk; the kernel tells.
    drop(disk);
    kubelet.wait_for_healthy("example.com/loop", 0);
}

fn interface(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let text = "resources:\n- {name: example.com/nic, devices: [{net: {name: \"test*\", virtual: true}}]}\n\
                - {name: example.com/wired, devices: [{net: {name: \"test*\", virtual: true, needsCarrier: true}}]}\n";
    node.configure_real(text);
    let _daemon = node.daemon();
    kubelet.wait_for_healthy("example.com/nic", 0);
    tool(&["ip", "link", "add", "test0", "type", "veth", "peer", "name", "peer0"]);
    kubelet.wait_for_healthy("example.com/nic", 1);
    let wired = kubelet.wait_for("example.com/wired", |offer| offer.capacity() == 1);
    assert!(wired.healthy.is_empty(), "no carrier yet");
    let (_, answer) = kubelet.allocate("example.com/nic", 1);
    assert!(answer.devices.is_empty(), "it has no node");
    tool(&["ip", "link", "del", "test0"]);
    kubelet.wait_for_healthy("example.com/nic", 0);
}

/// A made sysfs tells nobody of changes: only the kernel's announcement of a real device of the same subsystem
/// makes the daemon look again before its next round.
fn uevent(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let file = Path::new("/sys/devices/virtual/mem/null/uevent");
    let add = |n: u32| {
        let (dev, uevent) = (format!("1:{n}"), format!("MAJOR=1\nMINOR={n}\nDEVNAME=made{n}"));
        node.plug(&format!("made{n}"), 1, n.into());
        std::thread::sleep(Duration::from_millis(300));
        node.sysfs.device(
            &format!("devices/virtual/mem/made{n}"),
            "class/mem",
            &[("dev", &dev), ("uevent", &uevent)],
        );
    };
    let text = "discovery: {rescan: 1h}\nresources: [{name: example.com/mem, devices: [{sysfs: {subsystem: mem}}]}]\n";
    let daemon = node.offer(text);
    kubelet.wait_for_healthy("example.com/mem", 0);
    add(3);
    let start = Instant::now();
    fs::write(file, "change").expect("ask the kernel to announce a device");
    kubelet.wait_for_healthy("example.com/mem", 1);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!node.http("/metrics").1.contains("uevents_total 0"), "{}", daemon.log());
}
