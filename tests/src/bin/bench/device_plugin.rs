//! The device plugin's daemon before a kubelet. There is no program to compare it with in Debian, so the bars are
//! absolute, and the machine is part of the result.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::device_manager::DeviceManager;
use harness::device_node::{Daemon, DeviceNode, our_daemon};
use harness::measure::{Row, percentile};

use crate::Group;

/// What is measured.
pub const GROUPS: [Group; 8] = [
    ("devices", |rounds| on_node(move |node| devices(node, rounds))),
    ("restart", |rounds| on_node(move |node| restart(node, (rounds / 20).max(5)))),
    ("stream", |rounds| on_node(move |node| stream(node, (rounds / 20).max(5)))),
    ("start", |rounds| on_node(move |node| start(node, (rounds / 4).max(10)))),
    ("allocate", |rounds| on_node(move |node| allocate(node, rounds * 10))),
    ("idle", |_| on_node(idle)),
    ("memory", |_| on_node(memory)),
    ("binary", |_| vec![binary()]),
];

/// Everything is measured so many times; the value is the median, and the spread is told.
const SERIES: usize = 5;

/// Whatever ends again sooner is a storm, for which the daemon has its back-off.
const APART: Duration = Duration::from_millis(1200);

const SERIAL: &str = "example.com/serial";
const PORTS: &str = "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*]}}]}]\n";

/// Runs on a thread that ends with its node.
fn on_node(work: impl FnOnce(&DeviceNode) -> Vec<Row> + Send + 'static) -> Vec<Row> {
    let done = thread::spawn(move || work(&DeviceNode::enter())).join();
    done.expect("a measurement that ends")
}

/// The median of the series' values, with their spread.
fn row(what: &str, bar: f64, values: &[f64], detail: &str) -> Row {
    let (low, high) = (percentile(values, 0.0), percentile(values, 1.0));
    let spread = format!("{} times: {low:.3} to {high:.3}{detail}", values.len());
    Row::most(what.to_owned(), bar, percentile(values, 0.5), spread)
}

/// The 99th percentile of each series; the median of all is told beside it.
fn slowest(what: &str, bar: f64, series: &[Vec<f64>]) -> Row {
    let all: Vec<f64> = series.iter().flatten().copied().collect();
    let slow: Vec<f64> = series.iter().map(|one| percentile(one, 0.99)).collect();
    let detail = format!("; median of all {} is {:.3}", all.len(), percentile(&all, 0.5));
    row(what, bar, &slow, &detail)
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// What `once` takes, in milliseconds, in five series of so many rounds.
fn in_series(rounds: usize, mut once: impl FnMut() -> f64) -> Vec<Vec<f64>> {
    once();
    (0..SERIES).map(|_| (0..rounds).map(|_| once()).collect()).collect()
}

fn ports(node: &DeviceNode, count: u64) {
    for n in 0..count {
        node.plug(&format!("ttyUSB{n}"), 188, n);
    }
}

/// Time since `start` at which the kubelet had so many healthy devices.
fn until(kubelet: &DeviceManager, count: usize, start: Instant) -> f64 {
    let offer = kubelet.wait_for_healthy(SERIAL, count);
    millis(offer.at.expect("a list").saturating_duration_since(start))
}

fn devices(node: &DeviceNode, rounds: usize) -> Vec<Row> {
    let kubelet = node.kubelet();
    ports(node, 9);
    let _daemon = node.offer(PORTS);
    kubelet.wait_for_healthy(SERIAL, 9);
    let mut gone = Vec::new();
    let appears = in_series(rounds, || {
        thread::sleep(Duration::from_millis(3));
        let start = Instant::now();
        node.plug("ttyUSB9", 188, 9);
        let appeared = until(&kubelet, 10, start);
        thread::sleep(Duration::from_millis(3));
        let start = Instant::now();
        node.unplug("ttyUSB9");
        gone.push(until(&kubelet, 9, start));
        kubelet.forget_events();
        appeared
    });
    let goes: Vec<Vec<f64>> = gone[1..].chunks(rounds).map(<[f64]>::to_vec).collect();
    vec![
        slowest("device appears → list at the kubelet, p99, ms", 10.0, &appears),
        slowest("device goes → list at the kubelet, p99, ms", 10.0, &goes),
    ]
}

fn restart(node: &DeviceNode, rounds: usize) -> Vec<Row> {
    let kubelet = node.kubelet();
    ports(node, 10);
    let _daemon = node.offer(PORTS);
    kubelet.wait_for_healthy(SERIAL, 10);
    let series = in_series(rounds, || {
        thread::sleep(APART);
        kubelet.stop();
        thread::sleep(Duration::from_millis(30));
        kubelet.forget_events();
        let start = Instant::now();
        kubelet.start();
        until(&kubelet, 10, start)
    });
    vec![slowest("kubelet restarts → list, p99, ms", 20.0, &series)]
}

fn stream(node: &DeviceNode, rounds: usize) -> Vec<Row> {
    let kubelet = node.kubelet();
    ports(node, 10);
    let _daemon = node.offer(PORTS);
    kubelet.wait_for_healthy(SERIAL, 10);
    let series = in_series(rounds, || {
        thread::sleep(APART);
        let before = kubelet.offer(SERIAL).expect("a list").stream;
        let start = Instant::now();
        kubelet.drop_stream(SERIAL);
        let offer = kubelet.wait_for(SERIAL, |o| o.healthy.len() == 10 && o.stream != before);
        kubelet.forget_events();
        millis(offer.at.expect("a list").saturating_duration_since(start))
    });
    vec![slowest("kubelet drops the stream → list, p99, ms", 100.0, &series)]
}

fn start(node: &DeviceNode, rounds: usize) -> Vec<Row> {
    let kubelet = node.kubelet();
    ports(node, 10);
    node.configure(PORTS);
    let series = in_series(rounds, || {
        let start = Instant::now();
        let daemon = node.daemon();
        let took = until(&kubelet, 10, start);
        daemon.stop();
        kubelet.wait_for_healthy(SERIAL, 0);
        kubelet.forget_events();
        took
    });
    let medians: Vec<f64> = series.iter().map(|one| percentile(one, 0.5)).collect();
    vec![row("start → first list, 10 devices, median, ms", 10.0, &medians, "")]
}

fn allocate(node: &DeviceNode, calls: usize) -> Vec<Row> {
    let kubelet = node.kubelet();
    ports(node, 10);
    let daemon = node.offer(PORTS);
    let ids = kubelet.wait_for_healthy(SERIAL, 10).healthy;
    let id = ids.first().expect("a device").as_str();
    kubelet.call_allocate(SERIAL, &[id], 1000, 1);
    let (mut half, mut slow, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SERIES {
        let before = daemon.cpu();
        let times = kubelet.call_allocate(SERIAL, &[id], calls, 1);
        let spent = daemon.cpu().saturating_sub(before);
        let micros: Vec<f64> = times.iter().map(|t| millis(*t) * 1000.0).collect();
        half.push(percentile(&micros, 0.5));
        slow.push(percentile(&micros, 0.99));
        #[expect(clippy::cast_precision_loss, reason = "a few thousand calls")]
        cpu.push(millis(spent) * 1000.0 / calls as f64);
    }
    vec![
        row("Allocate, one client, p50, µs", 100.0, &half, ""),
        row("Allocate, one client, p99, µs", 300.0, &slow, ""),
        row("Allocate, the daemon's CPU for each call, µs", 40.0, &cpu, ""),
    ]
}

/// Memory after a moment of rest, in MiB.
fn resident(daemon: &Daemon) -> f64 {
    thread::sleep(Duration::from_millis(300));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand KiB")]
    let resident = daemon.resident() as f64;
    resident / 1024.0
}

fn idle(node: &DeviceNode) -> Vec<Row> {
    let kubelet = node.kubelet();
    ports(node, 10);
    let daemon = node.offer(PORTS);
    kubelet.wait_for_healthy(SERIAL, 10);
    let (mut wakes, mut memory) = (Vec::new(), vec![resident(&daemon)]);
    // What began with the start has come to rest: threads without work end after ten seconds.
    thread::sleep(Duration::from_secs(12));
    for _ in 0..SERIES {
        let before = daemon.wake_ups();
        thread::sleep(Duration::from_secs(4));
        #[expect(clippy::cast_precision_loss, reason = "a few wake-ups")]
        wakes.push((daemon.wake_ups() - before) as f64 / 4.0);
    }
    drop(daemon);
    while memory.len() < SERIES {
        let daemon = node.daemon();
        kubelet.wait_for_healthy(SERIAL, 10);
        memory.push(resident(&daemon));
    }
    vec![
        row("idle, wake-ups a second", 0.0, &wakes, ""),
        row("idle, 10 devices, resident, MiB", 6.0, &memory, ""),
    ]
}

fn memory(node: &DeviceNode) -> Vec<Row> {
    let kubelet = node.kubelet();
    let (mut many, mut wide, mut grown) = (Vec::new(), Vec::new(), Vec::new());
    let large = "resources: [{name: example.com/serial, devices: [{count: 10000}]}]\n";
    let resources: Vec<String> = (0..200).map(|n| format!("example.com/r{n}")).collect();
    let lines = resources.iter().map(|name| format!("- {{name: {name}, devices: [{{count: 5}}]}}\n"));
    let wide_text = format!("resources:\n{}", lines.collect::<Vec<_>>().concat());
    for _ in 0..SERIES {
        let daemon = node.offer(large);
        kubelet.wait_for_healthy(SERIAL, 10_000);
        many.push(resident(&daemon));
        let id = kubelet.offer(SERIAL).and_then(|o| o.healthy.first().cloned()).expect("a device");
        drop(daemon);
        kubelet.wait_for_healthy(SERIAL, 0);
        let daemon = node.offer(&wide_text);
        for name in &resources {
            kubelet.wait_for_healthy(name, 5);
        }
        wide.push(resident(&daemon));
        drop(daemon);
        let daemon = node.offer(large);
        kubelet.wait_for_healthy(SERIAL, 10_000);
        kubelet.call_allocate(SERIAL, &[&id], 1000, 1);
        let before = resident(&daemon);
        kubelet.call_allocate(SERIAL, &[&id], 10_000, 1);
        grown.push(resident(&daemon) - before);
        drop(daemon);
        kubelet.forget_events();
    }
    vec![
        row("10,000 devices, resident, MiB", 16.0, &many, ""),
        row("200 resources of 5 devices, resident, MiB", 20.0, &wide, ""),
        row("10,000 allocations after the first 1,000, growth, MiB", 0.1, &grown, ""),
    ]
}

fn binary() -> Row {
    #[expect(clippy::cast_precision_loss, reason = "a few million bytes")]
    let size = fs::metadata(our_daemon()).expect("the daemon's program").len() as f64 / 1_048_576.0;
    Row::most("the program, stripped, MiB".to_owned(), 6.0, size, machine())
}

/// What all this was measured on.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("a CPU");
    let cores = info.lines().filter(|l| l.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("measured on {cores} × {}, Linux {}", model.trim_matches([' ', '\t', ':']), kernel.trim())
}
