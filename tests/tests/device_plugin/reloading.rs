//! A configuration that changes while the daemon runs, and what of it is not for then.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::device_node::{Daemon, DeviceNode, HTTP};
use harness::suite::device;
use libtest_mimic::Trial;

use crate::{OTHER, SERIAL, TWO, serial, until, with_other};

pub fn trials() -> Vec<Trial> {
    vec![
        device("a_mistake_that_is_taken_back_is_over", &[], taken_back),
        device("what_is_for_the_next_start_is_refused_as_a_whole", &[], for_the_next_start),
        device("a_reload_is_noticed_without_inotify", &["setpriv"], without_inotify),
    ]
}

fn is_good(node: &DeviceNode) -> bool {
    let text = node.http("/metrics").1;
    let good = text.lines().find_map(|line| line.strip_prefix("nodeplug_device_plugin_config_good "));
    good.expect("a metric of the configuration") == "1"
}

/// Waits until so many files were refused.
#[track_caller]
fn refused(daemon: &Daemon, count: usize) -> String {
    const WORDS: &str = "the configuration stays as it was";
    until(|| {
        let log = daemon.log();
        (log.matches(WORDS).count() >= count).then_some(()).ok_or(log)
    });
    let log = daemon.log();
    log.lines().filter(|line| line.contains(WORDS)).nth(count - 1).expect("a line").to_owned()
}

fn taken_back(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    assert!(is_good(node));
    for round in 1..3 {
        node.configure("resources: [{nam: example.com/serial}]\n");
        refused(&daemon, round);
        assert!(!is_good(node));
        // The very text that is in force.
        node.configure(TWO);
        until(|| is_good(node).then_some(()).ok_or_else(|| daemon.log()));
    }
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream, "nothing else came of it");
    assert_eq!(kubelet.calls("ListAndWatch"), 1);
}

fn for_the_next_start(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    let elsewhere = "/run/node/elsewhere.sock";
    let made = "host: {dev: /run/node/dev, sys: /run/node/sys, cdi: /run/cdi}\n";
    let changes = [
        ("http", format!("{made}http: {{socket: {elsewhere}}}\n")),
        ("http", format!("{made}http: {{listen: \"127.0.0.1:9477\"}}\n")),
        ("kubelet", format!("{made}kubelet: {{registration: watcher}}\n")),
        ("host", "host: {dev: /run/node, sys: /run/node/sys, cdi: /run/cdi}\n".to_owned()),
    ];
    for (n, (key, change)) in changes.iter().enumerate() {
        // With a change that could be made.
        node.configure_real(&format!("{change}{}", with_other(2)));
        let line = refused(&daemon, n + 1);
        assert!(line.contains(&format!("`{key}`")) && line.contains("restart"), "{line}");
        assert!(!is_good(node));
    }
    assert!(kubelet.offer(OTHER).is_none(), "it is refused as a whole");
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
    assert_eq!(node.sockets().len(), 1);
    assert!(Path::new(HTTP).exists() && !Path::new(elsewhere).exists());
    assert!(std::net::TcpStream::connect("127.0.0.1:9477").is_err());
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    node.configure(&with_other(2));
    kubelet.wait_for_healthy(OTHER, 2);
    assert!(is_good(node));
}

/// A user of whose inotify instances none is left.
fn without_inotify(node: &DeviceNode) {
    const NOBODY: &str = "64998";
    let kubelet = node.kubelet();
    serial(node);
    fs::create_dir_all("/run/nodeplug").unwrap();
    let (folders, run) = (kubelet.folders(), Path::new("/run/nodeplug"));
    for path in [&*folders.device_plugins, &*folders.pod_resources, &folders.kubelet_socket(), run] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let taken = crate::inotify::exhaust(NOBODY);
    node.configure(TWO);
    let daemon = node.daemon_by(&["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    daemon.wait_for_log("changes are noticed late");
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    node.configure(&with_other(2));
    kubelet.wait_for_healthy(OTHER, 2);
    node.configure("resources: [");
    refused(&daemon, 1);
    node.configure(&with_other(3));
    kubelet.wait_for_healthy(OTHER, 3);
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
    drop(taken);
}
