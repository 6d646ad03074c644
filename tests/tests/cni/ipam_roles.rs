//! Called as `host-local` and `static`: the reference's answers and files, for whichever plugin asks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use harness::call::Answer;
use harness::kernel::trace::{self, End};
use harness::look;
use harness::node::{LEASES, Namespace, Node, REFERENCE, our_binary};
use harness::runtime::{Call, Runtime};
use harness::suite::ours;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{NAME, id, ips};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("addresses_are_given_in_the_references_words", answers),
        ours("a_configuration_that_the_reference_refuses_is_refused", refusals),
        ours("the_references_bridge_takes_our_addresses", the_references_bridge),
        ours("thirty_two_pods_of_the_references_bridge_at_once", at_once),
        ours("leases_of_either_host_local_are_released_by_the_other", either_releases),
        ours("a_second_add_of_addresses_is_refused", a_second_add),
        ours("a_full_range_is_told", a_full_range),
        ours("a_del_of_addresses_needs_neither_input_nor_memory", lost),
        ours("gc_of_addresses_keeps_the_valid_ones", gc),
        ours("addresses_of_an_earlier_boot_are_free", reboot),
        ours("giving_addresses_costs_the_same_with_many_pods", flat),
        ours("an_ipam_call_killed_at_any_step_is_finished_by_del", killed),
        ours("our_bridge_deletes_what_the_references_bridge_made_with_our_addresses", crossed),
    ]
}

/// A main plugin's configuration, as its IPAM gets it.
fn config(subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": NAME,
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "keyOfTheMainPlugin": {"any": 1},
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]},
    })
}

fn install(node: &Node) {
    node.install(&our_binary(), "host-local");
    node.install(&our_binary(), "static");
    for name in ["host-local", "static"] {
        node.install(&Path::new(REFERENCE).join(name), &format!("their-{name}"));
    }
    for name in ["bridge", "ptp"] {
        node.install(&Path::new(REFERENCE).join(name), name);
    }
}

fn ask(plugin: &str, verb: &str, config: &Value, id: &str, netns: &str) -> Call {
    let mut call = Runtime::new(config.clone()).call(verb, id, netns, None);
    plugin.clone_into(&mut call.plugin);
    call
}

const NETNS: &str = "/var/run/netns/not-looked-at";

fn add(plugin: &str, config: &Value, id: &str) -> Answer {
    ask(plugin, "ADD", config, id, NETNS).run()
}

fn del(plugin: &str, config: &Value, id: &str) -> Answer {
    ask(plugin, "DEL", config, id, "").run()
}

/// Records of owners whose interface another plugin makes.
fn records() -> Vec<String> {
    let read = fs::read_dir("/var/lib/nodeplug/cni/chained/host-local").into_iter().flatten().flatten();
    read.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[track_caller]
fn nothing_left(when: &str) {
    look::assert_nothing_left(when);
    assert_eq!(records(), Vec::<String>::new(), "{when}");
}

/// The reference leaves its links to the kernel, which takes them when it has time.
#[track_caller]
fn nothing_kept(when: &str) {
    assert_eq!(
        (look::leases(NAME), look::elements(), look::records(), records()),
        Default::default(),
        "{when}"
    );
}

/// Which of the two, its `ipam`, and what stands beside it.
fn cases() -> Vec<(&'static str, Value, Value)> {
    let two = json!([[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd66::/64"}]]);
    vec![
        ("host-local", json!({"subnet": "10.66.0.0/24"}), json!({})),
        (
            "host-local",
            json!({"subnet": "10.66.0.0/24", "rangeStart": "10.66.0.9", "rangeEnd": "10.66.0.12",
            "gateway": "10.66.0.10", "routes": [{"dst": "0.0.0.0/0"}]}),
            json!({}),
        ),
        (
            "host-local",
            json!({"ranges": two, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"},
            {"dst": "10.9.0.0/16", "gw": "10.66.0.7"}]}),
            json!({}),
        ),
        ("host-local", json!({"ranges": two, "resolvConf": "/run/resolv"}), json!({})),
        ("host-local", json!({"ranges": two}), json!({"args": {"cni": {"ips": ["10.66.0.77"]}}})),
        ("host-local", json!({"ranges": two}), json!({"runtimeConfig": {"ips": ["10.66.0.78/24"]}})),
        ("host-local", json!({}), json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.66.3.0/24"}]]}})),
        ("static", json!({"addresses": [{"address": "10.66.0.5/24", "gateway": "10.66.0.1"}]}), json!({})),
        (
            "static",
            json!({"addresses": [{"address": "10.66.0.5/24"}, {"address": "fd66::5/64"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.66.0.1"}], "dns": {"nameservers": ["10.0.0.10"],
            "domain": "a.example", "search": ["b.example"], "options": ["ndots:5"]}}),
            json!({}),
        ),
        (
            "static",
            json!({"addresses": [{"address": "10.66.0.5/24"}]}),
            json!({"runtimeConfig": {"ips": ["10.66.0.6/24"]}}),
        ),
    ]
}

fn answers(node: &Node) {
    install(node);
    fs::write("/run/resolv", "nameserver 10.0.0.10\nsearch a.example b.example\noptions ndots:5\n").unwrap();
    let cases = cases();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        for (plugin, ipam, more) in &cases {
            let when = format!("{version} {plugin} {ipam} {more}");
            same(version, plugin, ipam, more, &when);
        }
    }
    let mut newest = config("10.66.0.0/24");
    newest["cniVersion"] = json!("1.1.0");
    newest["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "mtu": 1400, "priority": 7}]);
    let result = add("host-local", &newest, &id("new")).success();
    assert_eq!(result["routes"][0]["mtu"], 1400, "{result}");
    assert!(result.get("interfaces").is_none(), "{result}");
    assert!(del("host-local", &newest, &id("new")).ok());
    nothing_left("the newest version");
}

/// ADD, CHECK and DEL by both: the same words, the same files.
#[track_caller]
fn same(version: &str, plugin: &str, ipam: &Value, more: &Value, when: &str) {
    let of = |data: &str| {
        let mut config = json!({"cniVersion": version, "name": NAME, "type": "bridge", "ipam": ipam});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config["ipam"]["type"] = json!(plugin);
        if plugin == "host-local" {
            config["ipam"]["dataDir"] = json!(data);
        }
        config
    };
    let (one, two) = (of("/var/lib/ours"), of("/var/lib/theirs"));
    let mine = add(plugin, &one, &id("same"));
    let theirs = add(&format!("their-{plugin}"), &two, &id("same"));
    assert_eq!(mine.success(), theirs.success(), "{when}");
    assert_eq!(
        look::leases_in(&Path::new("/var/lib/ours").join(NAME)),
        look::leases_in(&Path::new("/var/lib/theirs").join(NAME)),
        "{when}: the files"
    );
    if version >= "0.4.0" && plugin == "host-local" {
        let check = Runtime::new(one.clone()).call("CHECK", &id("same"), NETNS, Some(&mine.success()));
        let mut check = check;
        plugin.clone_into(&mut check.plugin);
        check.run().success();
    }
    assert!(del(plugin, &one, &id("same")).ok(), "{when}");
    assert!(del(&format!("their-{plugin}"), &two, &id("same")).ok(), "{when}");
    for folder in ["/var/lib/ours", "/var/lib/theirs"] {
        assert!(look::leases_in(&Path::new(folder).join(NAME)).is_empty(), "{when}");
        drop(fs::remove_dir_all(folder));
    }
    nothing_left(when);
}

fn refusals(node: &Node) {
    install(node);
    let plain = config("10.66.0.0/24");
    for (ipam, code, word) in [
        (json!({"type": "host-local"}), 7, "range"),
        (json!({"type": "host-local", "subnet": "10.66.0.0/24", "rangestart": "10.66.0.9"}), 2, "rangeStart"),
        (json!({"type": "host-local", "subnet": "10.66.0.0/31"}), 7, "small"),
        (json!({"type": "static", "addresses": [{"address": "10.66.0.5"}]}), 7, "address"),
    ] {
        let mut config = plain.clone();
        let plugin = ipam["type"].as_str().unwrap().to_owned();
        config["ipam"] = ipam;
        let answer = add(&plugin, &config, &id("no"));
        answer.refused(code);
        assert!(answer.message().contains(word), "{word} in {answer:?}");
        assert!(del(&plugin, &config, &id("no")).ok());
    }
    let mut two = config("10.66.0.0/24");
    two["cniVersion"] = json!("0.2.0");
    two["ipam"]["ranges"] = json!([[{"subnet": "10.66.0.0/24"}], [{"subnet": "10.67.0.0/24"}]]);
    assert!(!add("host-local", &two, &id("old")).ok(), "0.2.0 has no word for a second address");
    nothing_left("what was refused");
}

fn the_references_bridge(node: &Node) {
    install(node);
    for plugin in ["bridge", "ptp"] {
        let mut config = config("10.66.0.0/24");
        config["type"] = json!(plugin);
        let runtime = Runtime::new(config);
        let (one, two) = (node.pod(), node.pod());
        let (first, second) = (id("one"), id("two"));
        let result = runtime.added(&first, &one);
        let other = runtime.added(&second, &two);
        assert_ne!(ips(&result), ips(&other));
        assert_eq!(records().len(), 2, "{plugin}");
        runtime.check(&first, &one, &result).success();
        assert!(runtime.del(&first, &one, &result).ok());
        assert_eq!(look::leases(NAME).len(), 1, "{plugin}");
        assert!(runtime.del_blind(&first).ok());
        two.remove();
        assert!(runtime.del_blind(&second).ok());
        nothing_kept(plugin);
        let mut fixed = runtime.config.clone();
        fixed["ipam"] =
            json!({"type": "static", "addresses": [{"address": "10.66.0.9/24", "gateway": "10.66.0.1"}]});
        let fixed = Runtime::new(fixed);
        let pod = node.pod();
        let result = fixed.added(&first, &pod);
        assert_eq!(ips(&result), ["10.66.0.9".parse::<std::net::IpAddr>().unwrap()], "{plugin}");
        fixed.check(&first, &pod, &result).success();
        assert!(fixed.del(&first, &pod, &result).ok());
        nothing_kept(plugin);
    }
}

fn at_once(node: &Node) {
    install(node);
    let runtime = Runtime::new(config("10.66.0.0/24"));
    let pods: Vec<(String, Namespace)> = (0..32).map(|n| (id(&format!("pod{n}")), node.pod())).collect();
    let each = |work: &(dyn Fn(&str, &Namespace) -> Answer + Sync)| -> Vec<Answer> {
        thread::scope(|scope| {
            let started: Vec<_> = pods.iter().map(|(id, pod)| scope.spawn(move || work(id, pod))).collect();
            started.into_iter().map(|t| t.join().unwrap()).collect()
        })
    };
    let answers = each(&|id, pod| runtime.add(id, pod));
    let given: BTreeSet<_> = answers.iter().flat_map(|a| ips(&a.success())).collect();
    assert_eq!((given.len(), look::leases(NAME).len(), records().len()), (32, 32, 32));
    for answer in each(&|id, pod| runtime.call("DEL", id, pod.name(), None).run()) {
        assert!(answer.ok(), "{answer:?}");
    }
    nothing_kept("32 pods");
}

fn either_releases(node: &Node) {
    install(node);
    let config = config("10.66.0.0/24");
    for round in 0..3 {
        for (giver, taker) in [("host-local", "their-host-local"), ("their-host-local", "host-local")] {
            let (kept, gone) = (id("kept"), id("gone"));
            add(giver, &config, &kept).success();
            add(giver, &config, &gone).success();
            let when = format!("{giver} gives, {taker} takes, round {round}");
            assert!(!add(taker, &config, &gone).ok(), "{when}: a second ADD by the other one");
            assert!(del(taker, &config, &gone).ok(), "{when}");
            assert_eq!(look::leases(NAME).len(), 1, "{when}");
            // Nothing that either remembers stands in the way.
            add("host-local", &config, &gone).success();
            assert!(del("host-local", &config, &gone).ok(), "{when}");
            assert!(del(taker, &config, &kept).ok(), "{when}");
            add("host-local", &config, &kept).success();
            assert!(del("host-local", &config, &kept).ok(), "{when}");
            nothing_left(&when);
        }
    }
}

fn a_second_add(node: &Node) {
    install(node);
    let config = config("10.66.0.0/24");
    add("host-local", &config, &id("once")).success();
    let before = (look::leases(NAME), records());
    let answer = add("host-local", &config, &id("once"));
    answer.refused(101);
    assert!(answer.message().contains("10.66.0.2"), "{answer:?}");
    assert_eq!((look::leases(NAME), records()), before);
    assert!(del("host-local", &config, &id("once")).ok());
    add("host-local", &config, &id("once")).success();
    assert!(del("host-local", &config, &id("once")).ok());
    nothing_left("once more");
}

fn a_full_range(node: &Node) {
    install(node);
    let mut config = config("10.66.0.0/29");
    let status = |config: &Value| ask("host-local", "STATUS", config, "", "").run();
    for n in 0..5 {
        assert!(status(&config).ok(), "{n} of 5");
        add("host-local", &config, &id(&format!("pod{n}"))).success();
    }
    let answer = add("host-local", &config, &id("more"));
    answer.refused(11);
    assert!(answer.message().contains("10.66.0"), "{answer:?}");
    status(&config).refused(50);
    config["ipam"]["cooldownSeconds"] = json!(0);
    assert!(del("host-local", &config, &id("pod3")).ok());
    assert!(status(&config).ok());
    add("host-local", &config, &id("more")).success();
    for word in ["pod0", "pod1", "pod2", "pod4", "more"] {
        assert!(del("host-local", &config, &id(word)).ok());
    }
    nothing_left("after all");
}

fn lost(node: &Node) {
    install(node);
    let config = config("10.66.0.0/24");
    let silent = |id: &str| ask("host-local", "DEL", &config, id, "").stdin(b"").run();
    assert!(silent(&id("never")).ok());
    add("host-local", &config, &id("silent")).success();
    assert!(silent(&id("silent")).ok());
    nothing_left("without input");
    for refill in [false, true] {
        add("host-local", &config, &id("lost")).success();
        fs::remove_dir_all("/var/lib/nodeplug").unwrap();
        if refill {
            // Its ADD makes the memory anew.
            add("host-local", &config, &id("next")).success();
            assert!(del("host-local", &config, &id("next")).ok());
        }
        assert!(del("host-local", &config, &id("lost")).ok());
        nothing_left(&format!("without memory, a next pod: {refill}"));
    }
}

fn gc(node: &Node) {
    install(node);
    let mut config = config("10.66.0.0/24");
    config["cniVersion"] = json!("1.1.0");
    let mut others = config.clone();
    others["name"] = json!("others");
    for word in ["one", "two"] {
        add("host-local", &config, &id(word)).success();
        add(
            "their-host-local",
            &{
                let mut c = config.clone();
                c["cniVersion"] = json!("1.0.0");
                c
            },
            &id(&format!("their{word}")),
        )
        .success();
        add("host-local", &others, &id(&format!("other{word}"))).success();
    }
    let mut sent = config.clone();
    sent["cni.dev/valid-attachments"] = json!([{"containerID": id("one"), "ifname": "eth0"}, {"containerID": id("theirtwo"), "ifname": "eth0"}]);
    let call = ask("host-local", "GC", &sent, "", "");
    let call =
        ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"].into_iter().fold(call, Call::without);
    assert!(call.run().ok());
    let held: BTreeSet<String> = look::leases(NAME).into_iter().map(|(_, owner)| owner).collect();
    assert_eq!(held, BTreeSet::from([format!("{}:eth0", id("one")), format!("{}:eth0", id("theirtwo"))]));
    assert_eq!(look::leases("others").len(), 2, "another network's stay");
    assert_eq!(records().len(), 3);
    for (config, word) in
        [(&config, "one"), (&config, "theirtwo"), (&others, "otherone"), (&others, "othertwo")]
    {
        assert!(del("host-local", config, &id(word)).ok());
    }
    nothing_left("after GC and DEL");
}

fn reboot(node: &Node) {
    install(node);
    let mut config = config("10.66.0.0/29");
    config["ipam"]["cooldownSeconds"] = json!(0);
    for n in 0..5 {
        add("host-local", &config, &id(&format!("pod{n}"))).success();
    }
    add("host-local", &config, &id("late")).refused(11);
    node.reboot();
    add("host-local", &config, &id("late")).success();
    assert_eq!((look::leases(NAME).len(), records().len()), (1, 1));
    assert!(del("host-local", &config, &id("late")).ok());
    nothing_left("after a boot");
}

fn flat(node: &Node) {
    install(node);
    let config = config("10.66.0.0/16");
    let calls = |verb: &str, word: &str| {
        let (count, answer) = trace::count(&ask("host-local", verb, &config, &id(word), NETNS));
        assert!(answer.ok(), "{answer:?}");
        count
    };
    add("host-local", &config, &id("first")).success();
    let few = (calls("ADD", "probe"), calls("DEL", "probe"), calls("DEL", "never"));
    for n in 0..200 {
        add("host-local", &config, &id(&format!("p{n}"))).success();
    }
    let many = (calls("ADD", "again"), calls("DEL", "again"), calls("DEL", "never"));
    assert_eq!(few, many, "system calls of ADD, DEL, DEL of nobody with 1 pod and with 201");
}

fn killed(node: &Node) {
    install(node);
    let mut config = config("10.66.0.0/24");
    config["ipam"]["ranges"] = json!([[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd66::/64"}]]);
    let owner = id("killed");
    for verb in ["ADD", "DEL"] {
        for n in 0..2000 {
            if verb == "DEL" {
                add("host-local", &config, &owner).success();
            }
            let end = trace::kill_after(&ask("host-local", verb, &config, &owner, NETNS), n);
            let when = format!("{verb} killed after {n} system calls: {end:?}");
            let over = match end {
                End::Killed(_) => false,
                End::Finished(answer) => {
                    assert!(answer.ok(), "{answer:?}");
                    assert!(n > 20, "only {n} system calls were seen");
                    true
                }
            };
            // The reference reads what is there at any time.
            for (address, holder) in look::leases(NAME) {
                assert_eq!(holder, format!("{owner}:eth0"), "{when}: the lease of {address}");
            }
            assert!(del("host-local", &config, &owner).ok(), "{when}");
            nothing_left(&when);
            if over {
                break;
            }
        }
    }
    assert!(Path::new(LEASES).join(NAME).is_dir());
}

fn crossed(node: &Node) {
    install(node);
    let runtime = Runtime::new({
        let mut config = config("10.66.0.0/24");
        config.as_object_mut().unwrap().remove("keyOfTheMainPlugin");
        config
    });
    for blind in [false, true] {
        node.install(&Path::new(REFERENCE).join("bridge"), "bridge");
        let (pod, owner) = (node.pod(), id("crossed"));
        let result = runtime.added(&owner, &pod);
        node.install(&our_binary(), "bridge");
        let answer = if blind {
            pod.remove();
            runtime.del_blind(&owner)
        } else {
            runtime.del(&owner, &pod, &result)
        };
        assert!(answer.ok(), "{answer:?}");
        nothing_kept(&format!("blind: {blind}"));
    }
}
