//! What an operator does: configure, reload, stop, look.

use std::fs;
use std::time::{Duration, Instant};

use harness::device_manager::What;
use harness::device_node::{CONFIG, DeviceNode, HTTP};
use harness::suite::device;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::{OTHER, SERIAL, TWO, serial, with_other};

pub fn trials() -> Vec<Trial> {
    vec![
        device("a_reload_adds_and_removes_and_leaves_the_rest_alone", &[], reload),
        device("a_config_map_s_swap_is_a_reload", &[], config_map),
        device("sighup_is_a_reload", &[], sighup),
        device("a_configuration_that_is_wrong_changes_nothing", &[], bad_reload),
        device("a_configuration_that_is_gone_changes_nothing", &[], config_gone),
        device("a_resource_whose_options_change_is_registered_again", &[], changed_options),
        device("a_wrong_configuration_stops_the_start_with_a_suggestion", &[], bad_start),
        device("sigterm_leaves_no_socket", &[], sigterm),
        device("sigterm_is_obeyed_without_a_kubelet_and_while_it_dials", &[], sigterm_any_time),
        device("after_kill_9_the_next_one_takes_over_the_socket", &[], kill_9),
        device("two_daemons_of_one_node_do_not_meet", &[], two_daemons),
        device("a_rolling_update_with_an_overlap_ends_well", &[], rolling_update),
        device("metrics_tell_what_is", &[], metrics),
        device("readyz_and_healthz_tell_how_it_stands", &[], readyz),
        device("wait_registered_waits", &[], wait_registered),
        device("no_capability_is_needed", &["setpriv"], unprivileged),
        device("clocks_may_be_anything", &["unshare"], other_clocks),
        device("a_node_that_slept_is_right_when_it_wakes", &[], slept),
        device("descriptors_and_threads_do_not_grow", &[], no_leaks),
    ]
}

fn reload(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    node.configure(&with_other(3));
    let other = kubelet.wait_for_healthy(OTHER, 3).stream;
    node.configure(&with_other(5));
    let changed = kubelet.wait_for_healthy(OTHER, 5);
    assert_eq!(changed.stream, other, "a changed one needs no other stream");
    node.configure(TWO);
    kubelet.wait_for_healthy(OTHER, 0);
    assert_eq!(node.sockets().len(), 1);
    // It comes back.
    node.configure(&with_other(1));
    kubelet.wait_for_healthy(OTHER, 1);
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream, "the untouched one kept its stream");
    assert!(daemon.is_alive());
}

fn config_map(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    node.configure_as_config_map(TWO, 1);
    let _daemon = node.daemon();
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    for version in 2..5 {
        node.configure_as_config_map(&with_other(version), version);
        kubelet.wait_for_healthy(OTHER, usize::try_from(version).unwrap());
    }
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
}

fn sighup(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    // Written in place, as careless editors do.
    fs::write(
        CONFIG,
        format!("host: {{dev: /run/node/dev, sys: /run/node/sys, cdi: /run/cdi}}\n{}", with_other(2)),
    )
    .unwrap();
    daemon.signal(Signal::SIGHUP);
    kubelet.wait_for_healthy(OTHER, 2);
    for _ in 0..20 {
        daemon.signal(Signal::SIGHUP);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(daemon.is_alive());
    assert_eq!(kubelet.calls("ListAndWatch"), 2);
}

fn bad_reload(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    for (n, wrong) in [
        "resources: [{name: example.com/serial, devises: []}]\n",
        "resources: [",
        "resources: [{name: kubernetes.io/a, devices: [{count: 1}]}]\n",
        "resources: [{name: a/b, devices: [{count: 1}]}, {name: a/b, devices: [{count: 2}]}]\n",
        "resources: [{name: a/b, devices: [{count: 10000}], replicas: 100}]\n",
        "\u{0}\u{1}\u{2}",
    ]
    .into_iter()
    .enumerate()
    {
        node.configure(wrong);
        let start = Instant::now();
        while daemon.log().matches("the configuration stays as it was").count() <= n {
            assert!(start.elapsed() < Duration::from_secs(20), "{wrong:?}: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
    assert_eq!(node.sockets().len(), 1);
    assert!(node.http("/metrics").1.contains("nodeplug_device_plugin_config_good 0"));
    node.configure(&with_other(2));
    kubelet.wait_for_healthy(OTHER, 2);
    assert!(node.http("/metrics").1.contains("nodeplug_device_plugin_config_good 1"));
}

fn config_gone(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    fs::remove_file(CONFIG).unwrap();
    daemon.wait_for_log("the configuration stays as it was");
    node.configure(&with_other(2));
    kubelet.wait_for_healthy(OTHER, 2);
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
}

fn changed_options(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    let first = kubelet.wait_for_healthy(SERIAL, 2).stream;
    node.configure(&TWO.replace("}]}]", "}], prefer: spread}]"));
    kubelet.wait_for(SERIAL, |offer| offer.healthy.len() == 2 && offer.stream != first);
    kubelet.allocate(SERIAL, 1);
    assert_eq!(kubelet.calls("GetPreferredAllocation"), 1);
}

fn bad_start(node: &DeviceNode) {
    let _kubelet = node.kubelet();
    node.configure("resources:\n- name: example.com/serial\n  devices: [{path: {globs: [/dev/ttyUSB*]}}]\n");
    let daemon = node.daemon();
    assert!(!daemon.wait().success());
    let log = daemon.wait_for_log("glob");
    assert!(log.contains("globs"), "{log}");
    assert!(node.sockets().is_empty());
}

fn sigterm(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(&with_other(3));
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.wait_for_healthy(OTHER, 3);
    assert_eq!(node.sockets().len(), 2);
    let start = Instant::now();
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(node.sockets().is_empty());
    assert!(!std::path::Path::new(HTTP).exists());
    kubelet.wait_for_healthy(SERIAL, 0);
}

fn sigterm_any_time(node: &DeviceNode) {
    let kubelet = node.late_kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    std::thread::sleep(Duration::from_millis(200));
    assert!(daemon.stop().success());
    assert!(node.sockets().is_empty());
    kubelet.start();
    kubelet.dial_slowly(Duration::from_secs(30));
    let start = Instant::now();
    let daemon = node.daemon();
    kubelet.wait_for_event(start, |event| matches!(event.what, What::RegisterCalled { .. }));
    let start = Instant::now();
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(node.sockets().is_empty());
}

fn kill_9(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let mut daemon = node.offer(TWO);
    for _ in 0..3 {
        let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
        daemon.kill();
        let stale = node.sockets();
        assert_eq!(stale.len(), 1);
        daemon = node.daemon();
        kubelet.wait_for(SERIAL, |offer| offer.healthy.len() == 2 && offer.stream != stream);
        assert_eq!(node.sockets(), stale, "under the same name");
    }
}

fn two_daemons(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let first = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    let second = node.daemon();
    second.wait_for_log("another daemon serves this node");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
    first.kill();
    kubelet.wait_for(SERIAL, |offer| offer.healthy.len() == 2 && offer.stream != stream);
    assert_eq!(node.http("/readyz").0, 200, "the second one answers now");
    assert!(second.stop().success());
    // One that waits can be stopped.
    let first = node.daemon();
    kubelet.wait_for_healthy(SERIAL, 2);
    let second = node.daemon();
    second.wait_for_log("another daemon serves this node");
    assert!(second.stop().success());
    assert!(first.is_alive());
    assert_eq!(node.http("/readyz").0, 200);
}

fn rolling_update(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let mut old = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    for _ in 0..3 {
        let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
        let new = node.daemon();
        new.wait_for_log("another daemon serves this node");
        assert!(old.stop().success());
        kubelet.wait_for(SERIAL, |offer| offer.healthy.len() == 2 && offer.stream != stream);
        kubelet.allocate(SERIAL, 1).0.containers.clear();
        old = new;
        for pod in kubelet.pods() {
            kubelet.end(&pod);
        }
    }
}

fn metrics(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&format!("http: {{listen: \"127.0.0.1:9808\"}}\n{TWO}"));
    kubelet.wait_for_healthy(SERIAL, 2);
    let (_pod, _) = kubelet.allocate(SERIAL, 1);
    node.unplug("ttyUSB0");
    let first = kubelet.wait_for_healthy(SERIAL, 1).stream;
    kubelet.drop_stream(SERIAL);
    kubelet.wait_for(SERIAL, |offer| offer.healthy.len() == 1 && offer.stream != first);
    let (status, text) = node.http("/metrics");
    assert_eq!(status, 200);
    let resource = format!("resource=\"{SERIAL}\"");
    for (name, labels, value) in [
        ("devices", vec![resource.as_str(), "health=\"healthy\""], "1"),
        ("devices", vec![&resource, "health=\"unhealthy\""], "1"),
        ("allocations_total", vec![&resource, "result=\"ok\""], "1"),
        ("allocate_duration_seconds_count", vec![&resource], "1"),
        ("registrations_total", vec![&resource, "reason=\"start\""], "1"),
        ("registrations_total", vec![&resource, "reason=\"stream ended\""], "1"),
        ("stream_connected", vec![&resource], "1"),
        ("in_use", vec![&resource], "1"),
    ] {
        let line = text.lines().find(|line| {
            line.starts_with(&format!("nodeplug_device_plugin_{name}{{"))
                && labels.iter().all(|l| line.contains(l))
        });
        let found = line.and_then(|line| line.rsplit(' ').next());
        assert_eq!(found, Some(value), "{name} {labels:?}:\n{text}");
    }
    for name in [
        "list_updates_total",
        "list_bytes",
        "discovery_duration_seconds",
        "uevents_total",
        "config_reloads_total",
    ] {
        assert!(text.contains(&format!("nodeplug_device_plugin_{name}")), "{name}:\n{text}");
    }
    // The port answers as the socket does.
    let mut stream = std::net::TcpStream::connect("127.0.0.1:9808").unwrap();
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}

fn readyz(node: &DeviceNode) {
    let kubelet = node.late_kubelet();
    serial(node);
    let daemon = node.offer(&with_other(1));
    let start = Instant::now();
    while !std::path::Path::new(HTTP).exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, text) = node.http("/readyz");
    assert_eq!(status, 503);
    assert!(text.contains(SERIAL) && text.contains(OTHER), "{text}");
    assert_eq!(node.http("/healthz").0, 200);
    kubelet.start();
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.wait_for_healthy(OTHER, 1);
    assert_eq!(node.http("/readyz").0, 200);
    assert_eq!(node.http("/readyz?resource=example.com/none").0, 404);
    assert_eq!(node.http("/nothing").0, 404);
    kubelet.stop();
    let start = Instant::now();
    while node.http("/readyz").0 != 503 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_registered(node: &DeviceNode) {
    let kubelet = node.late_kubelet();
    serial(node);
    node.configure(&with_other(1));
    let answer = node.command(&["wait-registered", "--timeout", "100ms"]);
    assert_eq!(answer.exit, Some(1), "nobody is there: {answer:?}");
    let _daemon = node.daemon();
    let answer = node.command(&["wait-registered", "--timeout", "300ms"]);
    assert_eq!(answer.exit, Some(1), "no kubelet is there: {answer:?}");
    assert!(answer.stderr.contains(SERIAL), "{answer:?}");
    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| node.command(&["wait-registered", "--timeout", "20s", SERIAL]));
        std::thread::sleep(Duration::from_millis(300));
        kubelet.start();
        waiting.join().unwrap()
    });
    assert_eq!(waited.exit, Some(0), "{waited:?}");
    kubelet.wait_for_healthy(OTHER, 1);
    assert_eq!(node.command(&["wait-registered"]).exit, Some(0));
    assert_eq!(node.command(&["wait-registered", "--timeout", "100ms", "example.com/none"]).exit, Some(1));
    assert_eq!(node.command(&["wait-registered", "--timeout", "soon"]).exit, Some(2));
    assert_eq!(node.command(&["wait-registered", "noname"]).exit, Some(2));
}

fn unprivileged(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    node.configure(TWO);
    let daemon = node.daemon_by(&[
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--no-new-privs",
    ]);
    kubelet.wait_for_healthy(SERIAL, 2);
    assert_eq!(daemon.capabilities(), "0000000000000000");
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    node.plug("ttyUSB0", 188, 0);
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.restart();
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.allocate(SERIAL, 2);
    assert_eq!(node.http("/readyz").0, 200);
    assert!(daemon.stop().success());
    assert!(node.sockets().is_empty());
}

/// Monotonic clocks of another age than the machine's. Its wall clock is the machine's own and not to be touched.
fn other_clocks(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    node.configure(TWO);
    let year = (400 * 24 * 3600).to_string();
    let clocks = ["unshare", "--time", "--monotonic", &year, "--boottime", &year];
    let daemon = node.daemon_by(&clocks);
    kubelet.wait_for_healthy(SERIAL, 2);
    kubelet.drop_stream(SERIAL);
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    kubelet.restart();
    kubelet.wait_for_healthy(SERIAL, 1);
    assert!(daemon.stop().success());
}

/// To a process a jump of its clocks looks like this: all of its timers are long over.
fn slept(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(&format!("discovery: {{rescan: 1s, debounce: 500ms}}\n{TWO}"));
    kubelet.wait_for_healthy(SERIAL, 2);
    node.plug("ttyUSB2", 188, 2);
    daemon.signal(Signal::SIGSTOP);
    kubelet.restart();
    node.unplug("ttyUSB0");
    std::thread::sleep(Duration::from_secs(3));
    daemon.signal(Signal::SIGCONT);
    kubelet.wait_for(SERIAL, |offer| {
        offer.healthy.len() == 2 && offer.healthy.iter().all(|id| !id.contains("ttyUSB0"))
    });
    kubelet.allocate(SERIAL, 2);
}

fn no_leaks(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let round = |n: u32| {
        let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
        match n % 3 {
            0 => kubelet.restart(),
            1 => kubelet.drop_stream(SERIAL),
            _ => node.configure(&with_other(n + 1)),
        }
        if n % 3 < 2 {
            kubelet.wait_for(SERIAL, |offer| offer.healthy.len() == 2 && offer.stream != stream);
        } else {
            kubelet.wait_for_healthy(OTHER, usize::try_from(n + 1).unwrap());
        }
        node.unplug("ttyUSB0");
        kubelet.wait_for_healthy(SERIAL, 1);
        node.plug("ttyUSB0", 188, 0);
        kubelet.wait_for_healthy(SERIAL, 2);
    };
    (0..6).for_each(round);
    let before = (daemon.descriptors(), daemon.resident());
    (6..36).for_each(round);
    let (descriptors, resident) = (daemon.descriptors(), daemon.resident());
    assert!(descriptors <= before.0 + 3, "{descriptors} descriptors after {}", before.0);
    assert!(resident <= before.1 + 2048, "{resident} KiB after {}", before.1);
    assert!(daemon.threads() <= 8, "{}", daemon.threads());
}
