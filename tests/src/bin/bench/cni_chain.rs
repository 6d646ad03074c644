//! Everything that a usual conflist asks for, beside the reference's chain of plugins. Each side has a node of its
//! own, so that neither walks through the other's rules.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use harness::call::tool;
use harness::chain::{Chain, Plugins, our_plugin};
use harness::measure::{Measure, Row, Sample, Series, attempt, once, percentile};
use harness::node::{Namespace, Node, REFERENCE, our_binary};
use harness::runtime::{Flavour, flavour};
use harness::traffic::Flood;
use serde_json::{Value, json};

use crate::{Group, WARM_UP, settle};

/// Rounds before the measured ones where a round takes seconds.
const FEW: usize = 2;

/// What is measured.
pub const GROUPS: [Group; 6] = [
    ("chain", chain),
    ("chain-500", |rounds| vec![beside_pods(500, rounds.div_ceil(4))]),
    ("chain-pods", |rounds| vec![many_pods(1000, rounds)]),
    ("chain-together", |rounds| together(32, (rounds / 10).max(5))),
    ("host-ports", |rounds| vec![host_ports(1000, (rounds / 5).max(10))]),
    ("loopback", |rounds| vec![loopback(rounds)]),
];

/// Whose plugins a node has, and how they are called.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// The reference's four.
    Reference,
    /// Ours in bridge mode, under its own name: one call.
    Whole,
    /// Ours under the reference's names: four calls.
    Names,
    /// Ours in routed mode: one call.
    Routed,
}

impl Form {
    fn chain(self) -> Chain {
        let plugins = match self {
            // Shows that the benchmark itself is right.
            _ if flavour() == Flavour::Reference => Plugins::mixed("reference", |_| false),
            Self::Reference => Plugins::mixed("reference", |_| false),
            Self::Names => Plugins::mixed("names", |_| true),
            Self::Whole | Self::Routed => Plugins::new("ours", [("nodeplug-cni", our_plugin())]),
        };
        let list = match self {
            Self::Routed if flavour() == Flavour::Reference => four("ptp"),
            Self::Routed => json!([whole("routed")]),
            Self::Whole if flavour() == Flavour::Ours => json!([whole("bridge")]),
            _ => four("bridge"),
        };
        Chain::new(json!({"cniVersion": "1.0.0", "name": "pods", "plugins": list}), &plugins)
    }
}

fn ipam() -> Value {
    json!({
        "type": "host-local", "ranges": [[{"subnet": "10.60.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
    })
}

/// A usual conflist of the reference's plugins.
pub(crate) fn four(main: &str) -> Value {
    let mut first = json!({"type": main, "ipMasq": true, "ipam": ipam()});
    if main == "bridge" {
        first["bridge"] = json!("cni0");
        first["isGateway"] = json!(true);
    }
    json!([
        first,
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        {"type": "firewall"},
    ])
}

/// The same in one plugin of ours.
pub(crate) fn whole(mode: &str) -> Value {
    let mut config = json!({
        "type": "nodeplug-cni", "mode": mode, "ipMasq": true, "firewall": true,
        "capabilities": {"portMappings": true, "bandwidth": true}, "ipam": ipam(),
    });
    if mode == "bridge" {
        config["bridge"] = json!("cni0");
        config["isGateway"] = json!(true);
    }
    config
}

/// What the runtime asks for: one host port, and 100 Mbit/s both ways with bursts of 1 MB.
fn offered(port: usize) -> Value {
    let (rate, burst) = (100_000_000, 8_000_000);
    json!({
        "portMappings": mappings([port]),
        "bandwidth": {"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst},
    })
}

fn mappings(ports: impl IntoIterator<Item = usize>) -> Value {
    let one = |port| {
        let protocol = if port < UDP_PORTS { "tcp" } else { "udp" };
        json!({"hostPort": port, "containerPort": 80, "protocol": protocol})
    };
    ports.into_iter().map(one).collect()
}

/// The first of the host ports that are for UDP.
const UDP_PORTS: usize = 20_000;

fn id(n: usize) -> String {
    format!("{n:064x}")
}

/// What a node does when it is told to; an order is a CNI command, or a word of the group's own.
type Work<'a> = Box<dyn FnMut(&'static str) -> Sample + 'a>;

/// A node on a thread of its own, that does one thing at a time and tells what it cost.
struct Worker {
    go: mpsc::Sender<&'static str>,
    done: mpsc::Receiver<Sample>,
}

impl Worker {
    /// Makes the node, and waits until it is prepared.
    fn start(prepare: impl for<'a> FnOnce(&'a Node) -> Work<'a> + Send + 'static) -> Self {
        let (go, told) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        thread::spawn(move || {
            let ours: PathBuf = our_binary();
            let node = Node::with(&[(&ours, "nodeplug-cni")]);
            let mut work = prepare(&node);
            let mut ready = tell.send(Sample::default());
            while ready.is_ok() {
                let Ok(order) = told.recv() else { break };
                ready = tell.send(work(order));
            }
        });
        let worker = Self { go, done };
        worker.finished();
        worker
    }

    fn turn(&self, order: &'static str) -> Sample {
        self.go.send(order).expect("a living worker");
        self.finished()
    }

    fn finished(&self) -> Sample {
        self.done.recv_timeout(Duration::from_mins(20)).expect("a worker's sample")
    }
}

/// A node with so many pods on it, that makes one more and takes it away again.
fn pods(form: Form, count: usize) -> Worker {
    Worker::start(move |node| {
        let chain = form.chain();
        let start = Instant::now();
        let others: Vec<Namespace> = (0..count).map(|_| node.pod()).collect();
        for (n, other) in others.iter().enumerate() {
            chain.offering(offered(10_000 + n)).added(&id(n), other);
        }
        if count > 0 {
            eprintln!("{count} pods by {form:?} took {:.0} s", start.elapsed().as_secs_f64());
        }
        let (pod, chain) = (node.pod(), chain.offering(offered(8080)));
        let mut result = Value::Null;
        Box::new(move |command| {
            // The pods last as long as the work.
            let _ = &others;
            let previous = (command == "DEL").then_some(&result);
            let (sample, last) = costs(&chain, command, &id(count), pod.name(), previous);
            result = last.unwrap_or_else(|said| panic!("{command} by {form:?}: {said}"));
            sample
        })
    })
}

/// What the calls of a chain cost together, up to one that is refused.
fn costs(
    chain: &Chain,
    command: &str,
    id: &str,
    netns: &str,
    previous: Option<&Value>,
) -> (Sample, Result<Value, String>) {
    let mut sum = Sample::default();
    let last = chain.walk(command, id, netns, previous, |call| {
        let (sample, result) = attempt(call);
        sum.wall += sample.wall;
        sum.cpu += sample.cpu;
        result
    });
    (sum, last)
}

/// What ADD and DEL cost, a series for each worker; all ADDs of a round, then all DELs, beginning with another worker
/// each time.
fn in_turns<const N: usize>(workers: &[Worker; N], rounds: usize, warm_up: usize) -> [[Series; N]; 2] {
    let mut series: [[Series; N]; 2] = std::array::from_fn(|_| std::array::from_fn(|_| Series::default()));
    for round in 0..rounds + warm_up {
        for (series, command) in series.iter_mut().zip(["ADD", "DEL"]) {
            for n in (0..N).map(|n| (n + round) % N) {
                let sample = workers[n].turn(command);
                if round >= warm_up {
                    series[n].push(sample);
                }
                settle();
            }
        }
    }
    series
}

fn chain(rounds: usize) -> Vec<Row> {
    let workers = [pods(Form::Reference, 0), pods(Form::Whole, 0), pods(Form::Names, 0)];
    let [[theirs, whole, names], [their_dels, dels, _]] = in_turns(&workers, rounds, WARM_UP);
    let full = "ADD, ipMasq + one hostPort + bandwidth + firewall / reference's chain of four";
    vec![
        Row::ratio(full, Measure::Wall, 0.05, &whole, &theirs),
        Row::ratio(full, Measure::Cpu, 0.05, &whole, &theirs),
        Row::ratio("the same by the reference's names / reference's", Measure::Wall, 0.15, &names, &theirs),
        Row::ratio("DEL of the full set / reference's chain", Measure::Wall, 0.03, &dels, &their_dels),
    ]
}

/// The same as the first of [`chain`] on nodes with pods that each side has made itself.
fn beside_pods(count: usize, rounds: usize) -> Row {
    let workers = [pods(Form::Reference, count), pods(Form::Whole, count)];
    let [[theirs, ours], [their_dels, dels]] = in_turns(&workers, rounds, FEW);
    let at = |what: &str| format!("{what}, full set at {count} pods / reference's chain at {count} pods");
    let del = Row::ratio(&at("DEL"), Measure::Wall, 1.0, &dels, &their_dels);
    eprintln!("{} = {:.3} ({})", del.what, del.value, del.detail);
    Row::ratio(&at("ADD"), Measure::Wall, 0.02, &ours, &theirs)
}

fn many_pods(count: usize, rounds: usize) -> Row {
    let workers = [pods(Form::Routed, count), pods(Form::Routed, 0)];
    let [[full, empty], _] = in_turns(&workers, rounds, WARM_UP);
    let what = format!("routed ADD of the full set with {count} pods on the node / with none");
    Row::ratio(&what, Measure::Wall, 1.3, &full, &empty)
}

/// The time until the last of `count` concurrent chains has answered.
fn together(count: usize, rounds: usize) -> Vec<Row> {
    let (tell, refused) = mpsc::channel();
    let workers = [Form::Reference, Form::Whole].map(|form| crowd(form, count, tell.clone()));
    drop(tell);
    let [[theirs, ours], _] = in_turns(&workers, rounds, FEW);
    drop(workers);
    let (ours_refused, theirs_refused): (Vec<_>, Vec<_>) =
        refused.iter().partition(|(form, _)| matches!(form, Form::Whole));
    for (form, said) in ours_refused.iter().take(3).chain(theirs_refused.iter().take(3)) {
        eprintln!("refused of {count} at once by {form:?}: {said}");
    }
    let errors = f64::from(u32::try_from(ours_refused.len()).unwrap_or(u32::MAX));
    let of = count * (rounds + FEW);
    let detail = format!("of {of}; reference: {}", theirs_refused.len());
    let what = format!("{count} concurrent full ADDs");
    vec![
        Row::ratio(&format!("{what}, makespan / reference"), Measure::Wall, 0.05, &ours, &theirs),
        Row::most(format!("{what}, refused"), 0.0, errors, detail),
    ]
}

/// A node that makes and takes away so many pods at once. A refused ADD is told, and gets its DEL as every other.
fn crowd(form: Form, count: usize, refused: mpsc::Sender<(Form, String)>) -> Worker {
    Worker::start(move |node| {
        let chain = form.chain();
        let spaces: Vec<Namespace> = (0..count).map(|_| node.pod()).collect();
        let mut results = vec![None; count];
        Box::new(move |command| {
            let start = Instant::now();
            let one = |(n, (space, result)): (usize, (&Namespace, &Option<Value>))| {
                costs(&chain.offering(offered(10_000 + n)), command, &id(n), space.name(), result.as_ref())
            };
            let turns: Vec<_> = thread::scope(|scope| {
                let each = spaces.iter().zip(&results).enumerate();
                let running: Vec<_> = each
                    .map(|of| {
                        scope.spawn({
                            let one = &one;
                            move || one(of)
                        })
                    })
                    .collect();
                running.into_iter().map(|turn| turn.join().expect("a concurrent chain")).collect()
            });
            let sample = Sample { wall: start.elapsed(), cpu: turns.iter().map(|(s, _)| s.cpu).sum() };
            for ((_, last), result) in turns.into_iter().zip(&mut results) {
                *result = match last {
                    Ok(last) => (command == "ADD").then_some(last),
                    Err(said) => {
                        drop(refused.send((form, format!("{command}: {said}"))));
                        None
                    }
                };
            }
            sample
        })
    })
}

/// Datagrams of a burst, each the first of a flow.
const BURST: u16 = 20_000;

/// New flows a second from outside through a host port to a pod. Only a flow's first packet is looked up in the maps,
/// so each packet comes from a port or an address of its own.
fn host_ports(count: usize, rounds: usize) -> Row {
    let workers = [flooded(count), flooded(1)];
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for round in 0..rounds + FEW {
        for n in (0..2).map(|n| (n + round) % 2) {
            let sample = workers[n].turn("burst");
            if round >= FEW {
                rates[n].push(f64::from(BURST) / sample.wall.as_secs_f64());
            }
        }
    }
    let [many, one] = &rates;
    let pairs: Vec<f64> = many.iter().zip(one).map(|(a, b)| a / b).collect();
    let (a, b) = (percentile(many, 0.5), percentile(one, 0.5));
    let (low, high) = (percentile(&pairs, 0.1), percentile(&pairs, 0.9));
    let detail = format!("{a:.0} / {b:.0} new flows a second; pairs {low:.3} to {high:.3}");
    let what = format!("packets a second through a hostPort with {count} mappings / with 1, new flows");
    Row::least(what, 0.9, a / b, detail)
}

/// A node with so many pods of one host port each, the last of which is flooded from outside.
fn flooded(count: usize) -> Worker {
    Worker::start(move |node| {
        let outside = node.outside();
        let chain = Form::Routed.chain();
        let spaces: Vec<Namespace> = (0..count).map(|_| node.pod()).collect();
        for (n, space) in spaces.iter().enumerate() {
            // No bandwidth: the shaper would be what is measured.
            let offered = json!({"portMappings": mappings([UDP_PORTS + n])});
            chain.offering(offered).added(&id(n), space);
        }
        let port = u16::try_from(UDP_PORTS + count - 1).expect("a port");
        let last = spaces.last().expect("a pod");
        let mut flood = Flood::new(&outside, last, 80, (std::net::Ipv4Addr::new(192, 0, 2, 1), port));
        Box::new(move |_| {
            let _ = (&outside, &spaces);
            tool(&["conntrack", "-F"]);
            let (arrived, wall) = flood.burst(BURST);
            assert_eq!(arrived, BURST, "datagrams that arrived through the host port");
            Sample { wall, cpu: Duration::ZERO }
        })
    })
}

fn loopback(rounds: usize) -> Row {
    let workers = [true, false].map(|ours| {
        Worker::start(move |node| {
            let program = if ours && flavour() == Flavour::Ours {
                our_plugin()
            } else {
                Path::new(REFERENCE).join("loopback")
            };
            let plugins = Plugins::new("loopback", [("loopback", program)]);
            let list =
                json!({"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]});
            let (chain, pod) = (Chain::new(list, &plugins), node.pod());
            let mut result = Value::Null;
            Box::new(move |command| {
                let previous = (command == "DEL").then_some(&result);
                let plugin = &chain.list["plugins"][0];
                let call = chain.call(command, plugin, &id(0), pod.name(), previous).env("CNI_IFNAME", "lo");
                let (sample, answer) = once(&call);
                result = answer;
                sample
            })
        })
    });
    let [[ours, theirs], _] = in_turns(&workers, rounds, WARM_UP);
    Row::ratio("loopback ADD / reference's", Measure::Cpu, 0.25, &ours, &theirs)
}
