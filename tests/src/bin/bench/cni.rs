//! The CNI plugin beside the reference's and the floor's.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use harness::call::{LIMIT, tool};
use harness::kernel::trace;
use harness::measure::{Measure, Row, Sample, Series, once};
use harness::node::{LEASES, Namespace, Node, our_binary};
use harness::runtime::{Call, Flavour, Runtime, flavour};
use serde_json::{Value, json};

use crate::{Group, WARM_UP, all_at_once, settle};

/// What is measured.
pub const GROUPS: [Group; 8] = [
    ("bridge", |rounds| on_node(move |node| bridged(node, rounds))),
    ("routed", |rounds| on_node(move |node| routed(node, rounds))),
    ("pods", |rounds| vec![many_pods(1000, rounds)]),
    ("together", |rounds| on_node(move |node| vec![together(node, 32, (rounds / 10).max(5))])),
    ("leases", |rounds| on_node(move |node| vec![many_leases(node, 60_000, rounds)])),
    ("families", |rounds| on_node(move |node| vec![two_families(node, rounds)])),
    ("log", |rounds| on_node(move |node| logged(node, rounds))),
    ("weight", |_| on_node(weight)),
];

/// Runs `work` on a thread that is a node, to its end.
fn on_node<T: Send + 'static>(work: impl FnOnce(&Node) -> T + Send + 'static) -> T {
    thread::spawn(move || work(&node())).join().expect("a benchmark's thread")
}

fn node() -> Node {
    let floor = std::env::current_exe().expect("my own path").with_file_name("floor");
    let ours: PathBuf = our_binary();
    assert!(floor.is_file(), "no floor at `{}`", floor.display());
    let node = Node::with(&[(&ours, "nodeplug-cni"), (&floor, "floor")]);
    node.install_reference();
    node
}

/// A network as both sides understand it; `name` keeps their stores and bridges apart.
fn network(mode: &str, name: &str, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|s| json!([{ "subnet": s }])).collect();
    let default = |s: &&&str| if s.contains(':') { "::/0" } else { "0.0.0.0/0" };
    let routes: Vec<Value> = subnets.iter().map(|s| json!({"dst": default(&s)})).collect();
    let mut config = json!({
        "cniVersion": "1.0.0", "name": name, "type": "nodeplug-cni", "mode": mode,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
    });
    if mode == "bridge" {
        config["bridge"] = json!(format!("br-{name}"));
        config["isGateway"] = json!(true);
    }
    config
}

/// One side of a comparison: its calls, its pod, what they cost.
struct Side<'a> {
    add: Box<dyn Fn() -> Call + 'a>,
    del: Box<dyn Fn(&Value) -> Call + 'a>,
    adds: Series,
    dels: Series,
    result: Value,
}

fn side<'a>(runtime: &'a Runtime, pod: &'a Namespace) -> Side<'a> {
    // Of the length that runtimes give, and another one for each network.
    let id = format!("{:b<64}", runtime.config["name"].as_str().unwrap_or_default());
    let other = id.clone();
    Side {
        add: Box::new(move || runtime.call("ADD", &id, pod.name(), None)),
        del: Box::new(move |result| runtime.call("DEL", &other, pod.name(), Some(result))),
        adds: Series::default(),
        dels: Series::default(),
        result: Value::Null,
    }
}

/// All ADDs of a round, then all DELs, beginning with another side each time.
fn in_turns(sides: &mut [Side], rounds: usize) {
    for round in 0..rounds + WARM_UP {
        let order: Vec<usize> = (0..sides.len()).map(|n| (n + round) % sides.len()).collect();
        for n in &order {
            let side = &mut sides[*n];
            let (sample, result) = once(&(side.add)());
            side.result = result;
            if round >= WARM_UP {
                side.adds.push(sample);
            }
        }
        for n in &order {
            let side = &mut sides[*n];
            let (sample, _) = once(&(side.del)(&side.result));
            if round >= WARM_UP {
                side.dels.push(sample);
            }
            settle();
        }
    }
}

/// Bridge mode, without masquerade: ours, the reference, the floor.
fn bridged(node: &Node, rounds: usize) -> Vec<Row> {
    let theirs = Runtime::of(Flavour::Reference, network("bridge", "ref", &["10.60.0.0/16"]));
    let ours = Runtime::new(network("bridge", "own", &["10.61.0.0/16"]));
    let pods = [node.pod(), node.pod(), node.pod()];
    tool(&["ip", "link", "add", "br-floor", "type", "bridge"]);
    tool(&["ip", "link", "set", "br-floor", "up"]);
    let call = |command: &str| {
        let call = ours.call(command, "floor", pods[2].name(), None);
        let call = call.env("CNI_ARGS", "vethfloor br-floor 10.62.0.2 16 10.62.0.1").stdin(b"");
        Call { plugin: "floor".to_owned(), ..call }
    };
    let floor = Side {
        add: Box::new(|| call("ADD")),
        del: Box::new(|_| call("DEL")),
        adds: Series::default(),
        dels: Series::default(),
        result: Value::Null,
    };
    let mut sides = [side(&theirs, &pods[0]), side(&ours, &pods[1]), floor];
    in_turns(&mut sides, rounds);
    let [theirs, ours, floor] = &sides;
    let reference = "ADD, bridge mode with IPAM / reference bridge + host-local";
    let mut rows = vec![
        Row::ratio(reference, Measure::Wall, 0.26, &ours.adds, &theirs.adds),
        Row::ratio(reference, Measure::Cpu, 0.20, &ours.adds, &theirs.adds),
    ];
    let bare = "ADD, bridge mode, no masquerade / floor";
    rows.push(Row::ratio(bare, Measure::Wall, 1.6, &ours.adds, &floor.adds));
    let reference = "DEL, bridge mode / reference";
    rows.push(Row::ratio(reference, Measure::Wall, 0.10, &ours.dels, &theirs.dels));
    rows.push(Row::ratio(reference, Measure::Cpu, 0.17, &ours.dels, &theirs.dels));
    for measure in [Measure::Wall, Measure::Cpu] {
        for (what, bare, whole) in [("ADD", &floor.adds, &theirs.adds), ("DEL", &floor.dels, &theirs.dels)] {
            let row = Row::ratio(what, measure, 1.0, bare, whole);
            eprintln!("floor / reference, {} = {:.3} ({})", row.what, row.value, row.detail);
        }
    }
    rows
}

/// Routed mode with masquerade beside ptp with iptables.
fn routed(node: &Node, rounds: usize) -> Vec<Row> {
    let masquerade = |name: &str, subnet: &str| {
        let mut config = network("routed", name, &[subnet]);
        config["ipMasq"] = json!(true);
        config
    };
    let theirs = Runtime::of(Flavour::Reference, masquerade("ref", "10.60.0.0/16"));
    let ours = Runtime::new(masquerade("own", "10.61.0.0/16"));
    let pods = [node.pod(), node.pod()];
    let mut sides = [side(&theirs, &pods[0]), side(&ours, &pods[1])];
    in_turns(&mut sides, rounds);
    let [theirs, ours] = &sides;
    let what = "ADD, routed mode with IPAM and ipMasq / reference ptp + host-local with ipMasq";
    vec![
        Row::ratio(what, Measure::Wall, 0.13, &ours.adds, &theirs.adds),
        Row::ratio(what, Measure::Cpu, 0.11, &ours.adds, &theirs.adds),
    ]
}

/// Two nodes, one of them full, measured in turns.
fn many_pods(count: usize, rounds: usize) -> Row {
    let (full, empty) = (Worker::start(count), Worker::start(0));
    let (mut on_full, mut on_empty) = (Series::default(), Series::default());
    for round in 0..rounds + WARM_UP {
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for crowded in order {
            let sample = if crowded { full.turn() } else { empty.turn() };
            let series = if crowded { &mut on_full } else { &mut on_empty };
            if round >= WARM_UP {
                series.push(sample);
            }
        }
        settle();
    }
    let what = format!("routed ADD with {count} pods on the node / with none");
    Row::ratio(&what, Measure::Wall, 1.3, &on_full, &on_empty)
}

/// A node with pods on it, that makes an ADD and a DEL when it is told to.
struct Worker {
    go: mpsc::Sender<()>,
    done: mpsc::Receiver<Sample>,
}

impl Worker {
    fn start(count: usize) -> Self {
        let (go, told) = mpsc::channel::<()>();
        let (tell, done) = mpsc::channel();
        thread::spawn(move || {
            let node = node();
            let mut config = network("routed", "own", &["10.61.0.0/16"]);
            config["ipMasq"] = json!(true);
            let runtime = Runtime::new(config);
            let pods: Vec<Namespace> = (0..count).map(|_| node.pod()).collect();
            for (n, pod) in pods.iter().enumerate() {
                runtime.added(&format!("{n:064}"), pod);
            }
            let pod = node.pod();
            let mut side = [side(&runtime, &pod)];
            while told.recv().is_ok() {
                let (sample, result) = once(&(side[0].add)());
                side[0].result = result;
                once(&(side[0].del)(&side[0].result));
                if tell.send(sample).is_err() {
                    break;
                }
            }
        });
        Self { go, done }
    }

    fn turn(&self) -> Sample {
        self.go.send(()).expect("a living worker");
        self.done.recv_timeout(LIMIT * 10).expect("a worker's sample")
    }
}

/// The time until the last of `count` concurrent ADDs has answered.
fn together(node: &Node, count: usize, rounds: usize) -> Row {
    let theirs = Runtime::of(Flavour::Reference, network("bridge", "ref", &["10.60.0.0/16"]));
    let ours = Runtime::new(network("bridge", "own", &["10.61.0.0/16"]));
    let sides = [&theirs, &ours];
    let pods: Vec<Vec<Namespace>> = sides.iter().map(|_| (0..count).map(|_| node.pod()).collect()).collect();
    let mut series = [Series::default(), Series::default()];
    for round in 0..=rounds {
        for turn in [0, 1] {
            let n = (turn + round) % 2;
            let calls = |command: &str| -> Vec<Call> {
                let pods = pods[n].iter().enumerate();
                pods.map(|(k, pod)| sides[n].call(command, &format!("{k:064}"), pod.name(), None)).collect()
            };
            let start = Instant::now();
            let samples = all_at_once(&calls("ADD"));
            let cpu = samples.iter().map(|s| s.cpu).sum();
            if round > 0 {
                series[n].push(Sample { wall: start.elapsed(), cpu });
            }
            all_at_once(&calls("DEL"));
            settle();
        }
    }
    let what = format!("{count} concurrent ADDs, makespan / reference");
    Row::ratio(&what, Measure::Wall, 0.20, &series[1], &series[0])
}

/// Two stores, one of them with leases in it as the reference would have left them.
fn many_leases(node: &Node, count: u32, rounds: usize) -> Row {
    let full = Runtime::new(network("routed", "full", &["10.60.0.0/16"]));
    let empty = Runtime::new(network("routed", "empty", &["10.61.0.0/16"]));
    let folder = Path::new(LEASES).join("full");
    std::fs::create_dir_all(&folder).expect("make the store");
    for n in 0..count {
        let ip = std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::new(10, 60, 0, 2)) + n);
        std::fs::write(folder.join(ip.to_string()), format!("{n:064}\r\neth0")).expect("write a lease");
        if n + 1 == count {
            std::fs::write(folder.join("last_reserved_ip.0"), ip.to_string()).expect("write the last");
        }
    }
    let pods = [node.pod(), node.pod()];
    let mut sides = [side(&full, &pods[0]), side(&empty, &pods[1])];
    in_turns(&mut sides, rounds);
    let what = format!("ADD with {count} leases in the store / with none");
    Row::ratio(&what, Measure::Wall, 1.2, &sides[0].adds, &sides[1].adds)
}

fn two_families(node: &Node, rounds: usize) -> Row {
    let dual = Runtime::new(network("routed", "dual", &["10.60.0.0/16", "fd60::/64"]));
    let single = Runtime::new(network("routed", "single", &["10.61.0.0/16"]));
    let pods = [node.pod(), node.pod()];
    let mut sides = [side(&dual, &pods[0]), side(&single, &pods[1])];
    in_turns(&mut sides, rounds);
    let what = "dual-stack ADD / IPv4-only ADD";
    Row::ratio(what, Measure::Wall, 1.3, &sides[0].adds, &sides[1].adds)
}

/// What the log costs beside `"logFile": "none"`.
fn logged(node: &Node, rounds: usize) -> Vec<Row> {
    let with = Runtime::new(network("routed", "with", &["10.60.0.0/16"]));
    let mut config = network("routed", "without", &["10.61.0.0/16"]);
    config["logFile"] = json!("none");
    let without = Runtime::new(config);
    let pods = [node.pod(), node.pod()];
    let mut sides = [side(&with, &pods[0]), side(&without, &pods[1])];
    in_turns(&mut sides, rounds);
    let [with, without] = &sides;
    vec![
        Row::ratio("ADD with its line in the log / without", Measure::Wall, 1.1, &with.adds, &without.adds),
        Row::ratio("ADD with its line in the log / without", Measure::Cpu, 1.1, &with.adds, &without.adds),
    ]
}

/// Peak memory and programs exec'd, both of the costliest ADD: dual-stack with masquerade.
fn weight(node: &Node) -> Vec<Row> {
    let mut rows = Vec::new();
    for mode in ["routed", "bridge"] {
        let mut config = network(mode, "own", &["10.61.0.0/16", "fd61::/64"]);
        config["ipMasq"] = json!(true);
        let runtime = Runtime::new(config);
        let pod = node.pod();
        let call = |command: &str| runtime.call(command, "weight", pod.name(), None);
        once(&call("ADD"));
        once(&call("DEL"));
        let (peak, answer) = trace::peak_memory(&call("ADD"));
        answer.success();
        once(&call("DEL"));
        #[expect(clippy::cast_precision_loss, reason = "a few thousand KiB")]
        let mebibytes = peak as f64 / 1024.0;
        let what = format!("peak memory of ADD, {mode} mode, MiB");
        rows.push(Row::most(what, 4.0, mebibytes, format!("{peak} KiB resident")));
        for command in ["ADD", "DEL"] {
            let count = trace::execs(&call(command));
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            let what = format!("processes exec'd by {command}, {mode} mode");
            rows.push(Row::most(what, 0.0, count, String::new()));
        }
    }
    if flavour() == Flavour::Reference {
        eprintln!("note: `ours` is the reference in this run");
    }
    rows
}
