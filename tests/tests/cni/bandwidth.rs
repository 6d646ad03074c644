//! Rates: really held in both directions, by the main plugin and behind another one, found and taken away
//! by either program.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::call::{Answer, tool};
use harness::flow::{Flow, Place};
use harness::look;
use harness::node::{Namespace, Node, REFERENCE, our_binary};
use harness::runtime::{Flavour, Runtime};
use harness::suite::ours;
use harness::traffic::Protocol;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::crashes::{Ruins, killed_adds, sweep};
use crate::networks::{MODES, full, host_end, id, ips, network};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("a_routed_pods_rates_are_held", |node| held(node, "routed")),
        ours("a_bridged_pods_rates_are_held", |node| held(node, "bridge")),
        ours("rates_are_held_behind_the_references_bridge", held_behind_the_reference),
        ours("a_rate_is_held_from_the_start_where_nobody_told_a_burst", held_from_the_start),
        ours("a_large_burst_passes_and_then_the_rate_is_held", held_after_the_burst),
        ours("a_rate_above_32_bits_is_what_the_kernel_shows", above_32_bits),
        ours("check_names_what_of_the_rates_is_gone", check_names_what_is_gone),
        ours("the_references_check_and_del_take_our_rates", the_reference_takes_ours),
        ours("our_check_and_del_take_the_references_rates", ours_take_the_references),
        ours("rates_go_with_the_pod_whatever_was_lost", gone_whatever_was_lost),
        ours("rates_go_from_a_link_that_stays", gone_from_a_link_that_stays),
        ours("a_qdisc_of_somebody_else_is_refused_and_stays", strangers),
        ours("rates_that_could_not_work_are_refused_before_anything_is_made", refused),
        ours("gc_takes_pods_with_rates", gc),
        ours("an_add_with_rates_killed_at_any_step_is_undone_by_del", killed),
        ours("a_chained_add_of_rates_killed_at_any_step_is_undone_by_del", killed_behind_another),
        ours("a_del_with_rates_killed_at_any_step_is_finished_by_the_next", del_killed),
    ]
}

const MBIT: u64 = 1_000_000;
const INGRESS: u64 = 40 * MBIT;
const EGRESS: u64 = 20 * MBIT;

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// What the bandwidth plugin reads, with a burst of 10 ms.
fn rates() -> Value {
    json!({
        "ingressRate": INGRESS, "ingressBurst": INGRESS / 100,
        "egressRate": EGRESS, "egressBurst": EGRESS / 100,
    })
}

/// A network of both families whose entry has these keys.
fn with(mode: &str, keys: &Value) -> Value {
    let mut config = full(mode);
    config["ipMasq"] = json!(false);
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

/// containerd's and the kubelet's form of annotations: rates, and the largest burst for "not told".
fn annotated(mode: &str) -> Value {
    let keys = json!({
        "capabilities": {"bandwidth": true},
        "runtimeConfig": {"bandwidth": {
            "IngressRate": INGRESS, "IngressBurst": u32::MAX, "EgressRate": EGRESS, "EgressBurst": i32::MAX,
        }},
    });
    with(mode, &keys)
}

#[track_caller]
fn about(measured: f64, rate: u64, what: &str) {
    let rate = f64::from(u32::try_from(rate).unwrap());
    let ratio = measured / rate;
    assert!((0.85..=1.15).contains(&ratio), "{what}: {ratio:.3} of the rate");
}

/// A pod a protocol and family, all at once; first what they receive, then what they send.
fn measured(pods: &[(Namespace, Value)], gateways: [std::net::IpAddr; 2], what: &str) {
    let kinds = PROTOCOLS.into_iter().flat_map(|p| [(p, 0), (p, 1)]);
    let kinds: Vec<_> = kinds.zip(pods).collect();
    let (rest, time) = (Duration::from_millis(500), Duration::from_secs(2));
    let flows: Vec<Flow> = kinds
        .iter()
        .map(|((p, family), (pod, result))| {
            Flow::start(*p, Place::Node, Place::Inside(pod), ips(result)[*family], INGRESS)
        })
        .collect();
    compare(&flows, rest, time, INGRESS, &format!("{what}, to the pod"));
    drop(flows);
    let flows: Vec<Flow> = kinds
        .iter()
        .map(|((p, family), (pod, _))| {
            Flow::start(*p, Place::Inside(pod), Place::Node, gateways[*family], EGRESS)
        })
        .collect();
    compare(&flows, rest, time, EGRESS, &format!("{what}, from the pod"));
}

fn compare(flows: &[Flow], rest: Duration, time: Duration, rate: u64, what: &str) {
    let all: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = flows.iter().map(|f| scope.spawn(move || f.rate(rest, time))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for (measured, kind) in all.into_iter().zip(["TCP/IPv4", "TCP/IPv6", "UDP/IPv4", "UDP/IPv6"]) {
        about(measured, rate, &format!("{what}, {kind}"));
    }
}

fn gateways(result: &Value) -> [std::net::IpAddr; 2] {
    [0, 1].map(|i| result["ips"][i]["gateway"].as_str().unwrap().parse().unwrap())
}

fn held(node: &Node, mode: &str) {
    let runtime = Runtime::new(with(mode, &rates()));
    let pods: Vec<(Namespace, Value)> = ["a", "b", "c", "d"]
        .map(|word| {
            let pod = node.pod();
            let result = runtime.added(&id(word), &pod);
            runtime.check(&id(word), &pod, &result).success();
            (pod, result)
        })
        .into();
    measured(&pods, gateways(&pods[0].1), mode);
    for (word, (pod, result)) in ["a", "b", "c", "d"].into_iter().zip(&pods) {
        assert!(runtime.del(&id(word), pod, result).ok());
    }
    look::assert_nothing_left(mode);
}

/// The reference's bridge with its host-local.
fn reference_bridge() -> Runtime {
    let mut config = network("bridge", &["10.66.0.0/24", "fd66::/64"]);
    config["cniVersion"] = json!("1.0.0");
    config["ipam"].as_object_mut().unwrap().remove("cooldownSeconds");
    Runtime::of(Flavour::Reference, config)
}

/// A runtime of the plugin `bandwidth`.
fn bandwidth(keys: &Value) -> Runtime {
    let mut config = json!({"cniVersion": "1.0.0", "name": "pods", "type": "bandwidth"});
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Runtime::of(Flavour::Ours, config)
}

fn our_bandwidth(node: &Node) {
    node.install(&our_binary(), "bandwidth");
}

fn their_bandwidth(node: &Node) {
    node.install(&Path::new(REFERENCE).join("bandwidth"), "bandwidth");
}

fn chained(runtime: &Runtime, id: &str, pod: &Namespace, previous: &Value) -> Answer {
    runtime.call("ADD", id, pod.name(), Some(previous)).run()
}

fn held_behind_the_reference(node: &Node) {
    node.install_reference();
    our_bandwidth(node);
    let (bridge, shaper) = (reference_bridge(), bandwidth(&rates()));
    let pods: Vec<(Namespace, Value)> = ["a", "b", "c", "d"]
        .map(|word| {
            let pod = node.pod();
            let result = bridge.added(&id(word), &pod);
            let result = chained(&shaper, &id(word), &pod, &result).success();
            shaper.check(&id(word), &pod, &result).success();
            (pod, result)
        })
        .into();
    measured(&pods, gateways(&pods[0].1), "behind the reference's bridge");
    for (word, (pod, result)) in ["a", "b", "c", "d"].into_iter().zip(&pods) {
        assert!(shaper.del(&id(word), pod, result).ok());
        assert!(bridge.del(&id(word), pod, result).ok());
    }
    look::assert_nothing_left("behind the reference's bridge");
}

fn held_from_the_start(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(annotated(mode));
        let pod = node.pod();
        let result = runtime.added(&id("a"), &pod);
        let to = Flow::start(Protocol::Tcp, Place::Node, Place::Inside(&pod), ips(&result)[0], INGRESS);
        about(
            to.rate(Duration::ZERO, Duration::from_secs(1)),
            INGRESS,
            &format!("{mode}: to the pod, first second"),
        );
        drop(to);
        let gateway = gateways(&result)[0];
        let from = Flow::start(Protocol::Udp, Place::Inside(&pod), Place::Node, gateway, EGRESS);
        about(
            from.rate(Duration::ZERO, Duration::from_secs(1)),
            EGRESS,
            &format!("{mode}: from the pod, first second"),
        );
        drop(from);
        runtime.check(&id("a"), &pod, &result).success();
        assert!(runtime.del(&id("a"), &pod, &result).ok());
        look::assert_nothing_left(mode);
    }
}

fn held_after_the_burst(node: &Node) {
    let burst = INGRESS / 2;
    let keys = json!({"ingressRate": INGRESS, "ingressBurst": burst});
    let runtime = Runtime::new(with("routed", &keys));
    let pod = node.pod();
    let result = runtime.added(&id("a"), &pod);
    let flow = Flow::start(Protocol::Tcp, Place::Node, Place::Inside(&pod), ips(&result)[0], INGRESS);
    let first = flow.rate(Duration::ZERO, Duration::from_secs(1));
    let after = flow.rate(Duration::ZERO, Duration::from_secs(2));
    about(first, INGRESS + burst, "the first second with the burst");
    about(after, INGRESS, "after the burst");
    drop(flow);
    assert!(runtime.del(&id("a"), &pod, &result).ok());
    look::assert_nothing_left("a large burst");
}

fn qdiscs(link: &str) -> Vec<Value> {
    let text = tool(&["tc", "-j", "qdisc", "show", "dev", link]);
    serde_json::from_str(&text).unwrap()
}

fn bwp() -> String {
    look::links().into_iter().find(|l| l.starts_with("bwp")).expect("an ifb")
}

fn above_32_bits(node: &Node) {
    let rate = 100_000 * MBIT;
    let keys = json!({"egressRate": rate, "egressBurst": rate / 100});
    let runtime = Runtime::new(with("routed", &keys));
    let pod = node.pod();
    let result = runtime.added(&id("a"), &pod);
    let found = qdiscs(&bwp());
    assert_eq!(found[0]["kind"], "tbf", "{found:?}");
    assert_eq!(found[0]["options"]["rate"], json!(rate / 8), "{found:?}");
    runtime.check(&id("a"), &pod, &result).success();
    assert!(runtime.del(&id("a"), &pod, &result).ok());
    look::assert_nothing_left("100 Gbit/s");
}

/// What is done to the host link and to the ifb.
type Harm = fn(&str, &str);

fn check_names_what_is_gone(node: &Node) {
    let runtime = Runtime::new(with("bridge", &rates()));
    let harms: [(&str, Harm); 6] = [
        ("has no rate", |host, _| drop(tool(&["tc", "qdisc", "del", "dev", host, "root"]))),
        ("has no rate", |_, ifb| drop(tool(&["tc", "qdisc", "del", "dev", ifb, "root"]))),
        ("sends 8000000 bits a second", |host, _| {
            let words = ["tc", "qdisc", "change", "dev", host, "root", "tbf"];
            let rate = ["rate", "8mbit", "burst", "50000", "latency", "25ms"];
            tool(&[&words[..], &rate].concat());
        }),
        ("the filter that redirects", |host, _| drop(tool(&["tc", "filter", "del", "dev", host, "ingress"]))),
        ("the ingress qdisc of", |host, _| drop(tool(&["tc", "qdisc", "del", "dev", host, "ingress"]))),
        ("the ifb `", |_, ifb| drop(tool(&["ip", "link", "del", ifb]))),
    ];
    for (word, harm) in harms {
        let pod = node.pod();
        let result = runtime.added(&id("a"), &pod);
        runtime.check(&id("a"), &pod, &result).success();
        harm(&host_end(&result), &bwp());
        let answer = runtime.check(&id("a"), &pod, &result);
        answer.refused(102);
        assert!(answer.message().contains(word), "{word}: {}", answer.message());
        assert!(runtime.del(&id("a"), &pod, &result).ok());
        look::assert_nothing_left(word);
    }
}

fn the_reference_takes_ours(node: &Node) {
    node.install_reference();
    let (bridge, shaper) = (reference_bridge(), bandwidth(&rates()));
    let pod = node.pod();
    let first = bridge.added(&id("a"), &pod);
    our_bandwidth(node);
    let result = chained(&shaper, &id("a"), &pod, &first).success();
    their_bandwidth(node);
    shaper.check(&id("a"), &pod, &result).success();
    tool(&["tc", "qdisc", "del", "dev", &bwp(), "root"]);
    let ifb = bwp();
    let words = ["tc", "qdisc", "add", "dev", &ifb, "root", "tbf"];
    tool(&[&words[..], &["rate", "8mbit", "burst", "50000", "latency", "25ms"]].concat());
    assert!(!shaper.check(&id("a"), &pod, &result).ok(), "its CHECK looks at the rate");
    assert!(shaper.del(&id("a"), &pod, &result).ok());
    assert!(!look::links().contains(&ifb), "its DEL takes our ifb");
    // Ours comes after the swap back: the record is still there, and the rest goes.
    our_bandwidth(node);
    assert!(shaper.del(&id("a"), &pod, &result).ok());
    assert!(bridge.del(&id("a"), &pod, &result).ok());
    look::assert_nothing_left("ours, deleted by the reference");
}

fn ours_take_the_references(node: &Node) {
    node.install_reference();
    let (bridge, shaper) = (reference_bridge(), bandwidth(&rates()));
    for lost in [false, true] {
        let pod = node.pod();
        let first = bridge.added(&id("a"), &pod);
        their_bandwidth(node);
        let result = chained(&shaper, &id("a"), &pod, &first).success();
        our_bandwidth(node);
        shaper.check(&id("a"), &pod, &result).success();
        tool(&["tc", "qdisc", "del", "dev", &host_end(&result), "root"]);
        shaper.check(&id("a"), &pod, &result).refused(102);
        let answer = if lost { shaper.del_blind(&id("a")) } else { shaper.del(&id("a"), &pod, &result) };
        assert!(answer.ok(), "{answer:?}");
        assert!(!look::links().iter().any(|l| l.starts_with("bwp")), "{:?}", look::links());
        assert!(bridge.del(&id("a"), &pod, &result).ok());
        look::assert_nothing_left("the reference's, deleted by ours");
    }
}

/// Without namespace and result; then without configuration; then without records.
fn gone_whatever_was_lost(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(annotated(mode));
        for lost in ["namespace", "configuration", "records"] {
            let pod = node.pod();
            runtime.added(&id("a"), &pod);
            // Where the namespace ends, the veth goes and the ifb stays.
            pod.remove();
            let mut call = runtime.call("DEL", &id("a"), "", None);
            match lost {
                "configuration" => {
                    call = call.stdin(b"");
                }
                "records" => fs::remove_dir_all("/var/lib/nodeplug").unwrap(),
                _ => {}
            }
            let answer = call.run();
            assert!(answer.ok(), "{mode}: {lost}: {answer:?}");
            look::assert_nothing_left(&format!("{mode}, without {lost}"));
            assert!(call.run().ok(), "{mode}: {lost}: a second DEL");
        }
    }
}

fn gone_from_a_link_that_stays(node: &Node) {
    node.install_reference();
    our_bandwidth(node);
    let (bridge, shaper) = (reference_bridge(), bandwidth(&rates()));
    let pod = node.pod();
    let first = bridge.added(&id("a"), &pod);
    let host = host_end(&first);
    let before = qdiscs(&host);
    for _ in 0..2 {
        let result = chained(&shaper, &id("a"), &pod, &first).success();
        let names: Vec<_> = result["interfaces"].as_array().unwrap().iter().map(|i| &i["name"]).collect();
        assert_eq!(names.last(), Some(&&json!(bwp())), "the result names the ifb, as the reference's does");
        assert_eq!(qdiscs(&host).len(), 2, "{:?}", qdiscs(&host));
        assert!(shaper.del(&id("a"), &pod, &result).ok());
        assert_eq!(qdiscs(&host), before);
        assert!(shaper.del_blind(&id("a")).ok());
    }
    // Another pod's shaping of a link that by now has the old one's name is not ours to take.
    chained(&shaper, &id("a"), &pod, &first).success();
    tool(&["ip", "link", "del", &host]);
    tool(&["ip", "link", "add", &host, "type", "bridge"]);
    for words in [["root", "handle", "1:", "pfifo"], ["handle", "ffff:", "ingress", ""]] {
        let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
        tool(&[&["tc", "qdisc", "add", "dev", &host][..], &words].concat());
    }
    let other = ["protocol", "all", "u32", "match", "u32", "0", "0", "action", "mirred"];
    let to = ["egress", "redirect", "dev", "lo"];
    tool(&[&["tc", "filter", "add", "dev", &host, "ingress"][..], &other, &to].concat());
    let before = qdiscs(&host);
    assert!(shaper.del_blind(&id("a")).ok());
    assert_eq!(qdiscs(&host), before);
    tool(&["ip", "link", "del", &host]);
    assert!(bridge.del(&id("a"), &pod, &first).ok());
    look::assert_nothing_left("a link that stays");
}

fn strangers(node: &Node) {
    node.install_reference();
    our_bandwidth(node);
    let (bridge, shaper) = (reference_bridge(), bandwidth(&rates()));
    let pod = node.pod();
    let first = bridge.added(&id("a"), &pod);
    let host = host_end(&first);
    for (words, whose) in [
        (["root", "handle", "7:", "pfifo"].as_slice(), "pfifo 7:"),
        (["ingress"].as_slice(), "ingress ffff:"),
        (["clsact"].as_slice(), "clsact ffff:"),
    ] {
        tool(&[&["tc", "qdisc", "add", "dev", &host][..], words].concat());
        let before = qdiscs(&host);
        let answer = chained(&shaper, &id("a"), &pod, &first);
        answer.refused(101);
        assert!(answer.message().contains(whose), "{whose}: {}", answer.message());
        assert_eq!(qdiscs(&host), before, "{whose}");
        assert!(!look::links().iter().any(|l| l.starts_with("bwp")), "{whose}");
        assert_eq!(look::chained_records(), Vec::<String>::new());
        // Of the chain, the runtime deletes all: what is not ours stays.
        assert!(shaper.call("DEL", &id("a"), pod.name(), None).run().ok());
        assert_eq!(qdiscs(&host), before, "{whose}");
        tool(&["tc", "qdisc", "del", "dev", &host, words[0]]);
    }
    assert!(bridge.del(&id("a"), &pod, &first).ok());
    look::assert_nothing_left("strangers");
}

fn refused(node: &Node) {
    let pod = node.pod();
    let cases = [
        (json!({"ingressRate": 1000}), 7, "ingressBurst"),
        (json!({"egressBurst": 1000}), 7, "egressRate"),
        (json!({"egressRate": 4, "egressBurst": 8000}), 7, "8 bits a second are the least"),
        (json!({"egressRate": 8000, "egressBurst": 34_359_738_360_u64}), 7, "4 GiB"),
        (json!({"ingressRate": 10 * MBIT, "ingressBurst": 8000}), 7, "no packet of the MTU"),
        (json!({"ingressRate": "10M", "ingressBurst": 8000}), 7, "not a whole number"),
        (json!({"unshapedSubnets": ["10.0.0.0/8"]}), 2, "unshapedSubnets"),
        (json!({"shapedSubnets": ["10.0.0.0/8"]}), 2, "shapedSubnets"),
        (
            json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1000}}}),
            7,
            "runtimeConfig.bandwidth.ingressBurst",
        ),
    ];
    for (keys, code, word) in cases {
        let answer = Runtime::new(with("routed", &keys)).add(&id("a"), &pod);
        answer.refused(code);
        assert!(answer.message().contains(word), "{word}: {}", answer.message());
        look::assert_nothing_left(word);
    }
    // An interface without a host end.
    our_bandwidth(node);
    pod.tool(&["ip", "link", "add", "eth0", "type", "bridge"]);
    let previous = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": pod.name()}]});
    let answer = chained(&bandwidth(&rates()), &id("a"), &pod, &previous);
    answer.refused(7);
    assert!(answer.message().contains("no veth end on this node"), "{}", answer.message());
    look::assert_nothing_left("an interface without a host end");
}

fn gc(node: &Node) {
    let runtime = Runtime::new(annotated("routed"));
    let pods: Vec<(String, Namespace)> = ["a", "b", "c"].map(|w| (id(w), node.pod())).into();
    for (id, pod) in &pods {
        runtime.added(id, pod);
    }
    let keep = &pods[1].0;
    assert!(runtime.gc(&[(keep, "eth0")], &["cni.dev/valid-attachments"]).ok());
    assert_eq!(look::host_ends().len(), 2, "{:?}", look::host_ends());
    assert!(runtime.gc(&[], &["cni.dev/valid-attachments"]).ok());
    look::assert_nothing_left("gc");
}

fn killed(node: &Node) {
    let mut ruins = Ruins::default();
    for mode in MODES {
        killed_adds(node, &Runtime::new(annotated(mode)), mode, &mut ruins);
    }
    ruins.none();
}

fn killed_behind_another(node: &Node) {
    node.install_reference();
    our_bandwidth(node);
    let (bridge, shaper) = (reference_bridge(), bandwidth(&rates()));
    let (id, mut ruins) = (id("killed"), Vec::new());
    let pod = node.pod();
    let first = bridge.added(&id, &pod);
    let host = host_end(&first);
    let before = qdiscs(&host);
    sweep(
        || ((), shaper.call("ADD", &id, pod.name(), Some(&first))),
        |(), when| {
            let answer = shaper.call("DEL", &id, pod.name(), None).run();
            assert!(answer.ok(), "{when}: {answer:?}");
            let links: Vec<_> = look::links().into_iter().filter(|l| l.starts_with("bwp")).collect();
            if qdiscs(&host) != before || !links.is_empty() || !look::chained_records().is_empty() {
                ruins.push(format!("{when}: {links:?} {:?} {:?}", qdiscs(&host), look::chained_records()));
            }
        },
    );
    assert!(ruins.is_empty(), "{} steps leave something: {ruins:#?}", ruins.len());
    assert!(bridge.del(&id, &pod, &first).ok());
    look::assert_nothing_left("killed behind another");
}

fn del_killed(node: &Node) {
    let (id, mut ruins) = (id("killed"), Ruins::default());
    let runtime = Runtime::new(annotated("routed"));
    let pod = node.pod();
    sweep(
        || {
            let result = runtime.added(&id, &pod);
            ((), runtime.call("DEL", &id, pod.name(), Some(&result)))
        },
        |(), when| {
            let answer = runtime.call("DEL", &id, pod.name(), None).run();
            assert!(answer.ok(), "{when}: {answer:?}");
            ruins.look(&format!("DEL {when}, then DEL"));
        },
    );
    ruins.none();
}
