//! `tuning`: settings of an interface that another plugin made, put back when the pod leaves it; and of
//! one that this plugin makes.

use std::fs;
use std::path::Path;

use harness::call::{Answer, tool};
use harness::kernel::trace::{self, End};
use harness::look;
use harness::node::{Namespace, Node, REFERENCE, our_binary};
use harness::runtime::{Call, Flavour, Runtime};
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask, ask_here};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::networks::{MODES, OUTSIDE, full, host_end, id, ips};

/// Where the reference's plugin keeps what was before.
const KEPT: &str = "/run/cni/tuning";
const CHAINED: &str = "/var/lib/nodeplug/cni/chained";
const MAC: &str = "0a:00:00:00:77:01";
const SOMAXCONN: &str = "net.core.somaxconn";

pub fn trials() -> Vec<Trial> {
    vec![
        ours("every_setting_is_made_checked_and_put_back", every_setting),
        ours("an_interface_of_our_own_is_tuned_from_the_beginning", of_our_own),
        ours("a_pod_is_reached_by_both_families_after_its_mac_changed", reached_after_a_new_mac),
        ours("a_setting_that_is_refused_leaves_everything_as_it_was", refused_settings),
        ours("only_settings_on_the_operators_list_are_set", the_operators_list),
        ours("tuning_of_the_reference_and_ours_is_the_same_and_each_undoes_the_other", as_the_reference),
        ours("a_tuning_killed_at_any_step_is_put_back_by_del", killed_adds),
        ours("a_del_of_a_tuning_killed_at_any_step_is_finished_by_the_next", killed_dels),
        ours("a_tuning_that_fails_at_any_step_changes_nothing", failing_adds),
        ours("a_tuned_interface_that_is_gone_needs_no_putting_back", gone),
    ]
}

/// A runtime of a chained entry.
fn chained(plugin: &str, keys: &Value) -> Runtime {
    let mut config = json!({"cniVersion": "1.0.0", "name": "pods", "type": plugin});
    for (key, value) in keys.as_object().expect("keys") {
        config[key] = value.clone();
    }
    Runtime::of(Flavour::Ours, config)
}

fn every_key() -> Value {
    json!({
        "sysctl": {SOMAXCONN: "500", "net/ipv4/conf/IFNAME/forwarding": "1"},
        "mac": MAC, "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77,
    })
}

/// An interface by hand, which stays when the pod is deleted, and the result that names it.
fn by_hand(node: &Node) -> (Namespace, Value) {
    let pod = node.pod();
    pod.tool(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
    pod.tool(&[
        "ip",
        "link",
        "add",
        "eth0",
        "address",
        "0a:00:00:00:00:05",
        "type",
        "veth",
        "peer",
        "name",
        "x0",
    ]);
    pod.tool(&["ip", "addr", "add", "10.66.0.5/24", "dev", "eth0"]);
    for link in ["eth0", "x0"] {
        pod.tool(&["ip", "link", "set", link, "up"]);
    }
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "eth0", "mac": "11:11:11:11:11:11"},
            {"name": "eth0", "mac": "0a:00:00:00:00:05", "sandbox": pod.name()},
        ],
        "ips": [{"interface": 1, "address": "10.66.0.5/24", "gateway": "10.66.0.1"}],
    });
    (pod, result)
}

/// All that a tuning may change, as the tools say it.
fn state(pod: &Namespace) -> Vec<String> {
    let link = &look::ip_in(pod, &["-d", "link", "show", "dev", "eth0"])[0];
    let flags = link["flags"].to_string();
    let on = |flag: &str| flags.contains(flag);
    let mut all = vec![
        format!("mac {}", link["address"]),
        format!("mtu {}", link["mtu"]),
        format!("promisc {}", on("PROMISC")),
        format!("allmulti {}", on("ALLMULTI")),
        format!("txqlen {}", link["txqlen"]),
    ];
    let names = [
        SOMAXCONN,
        "net.ipv4.conf.eth0.forwarding",
        "net.ipv4.conf.eth0.arp_notify",
        "net.ipv6.conf.eth0.ndisc_notify",
    ];
    all.extend(names.map(|name| pod.tool(&["sysctl", name]).trim().to_owned()));
    all
}

/// Nothing is kept of any pod.
#[track_caller]
fn nothing_kept(when: &str) {
    let mut left = Vec::new();
    for folder in [KEPT.to_owned(), format!("{CHAINED}/tuning"), format!("{CHAINED}/nodeplug-cni")] {
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        left.extend(files.map(|f| f.path().display().to_string()));
    }
    assert_eq!(left, [""; 0], "{when}");
}

fn add(runtime: &Runtime, id: &str, pod: &Namespace, previous: &Value) -> Answer {
    runtime.call("ADD", id, pod.name(), Some(previous)).run()
}

fn every_setting(node: &Node) {
    node.install(&our_binary(), "tuning");
    for plugin in ["tuning", "nodeplug-cni"] {
        let runtime = chained(plugin, &every_key());
        let ((pod, previous), id) = (by_hand(node), id("tuned"));
        let before = state(&pod);
        let result = add(&runtime, &id, &pod, &previous).success();
        assert_eq!(
            state(&pod)[..7],
            [
                format!("mac \"{MAC}\"").as_str(),
                "mtu 1400",
                "promisc true",
                "allmulti true",
                "txqlen 77",
                "net.core.somaxconn = 500",
                "net.ipv4.conf.eth0.forwarding = 1",
            ],
            "{plugin}"
        );
        assert_eq!(result["interfaces"][1]["mac"], MAC, "{plugin}: {result}");
        assert_eq!(
            result["interfaces"][0]["mac"], "11:11:11:11:11:11",
            "the node's own is another: {result}"
        );
        assert_eq!(result["ips"], previous["ips"], "{plugin}");
        runtime.check(&id, &pod, &result).success();
        missed(&runtime, &id, &pod, &result, 0);
        // A second ADD changes nothing, least of all what is kept.
        add(&runtime, &id, &pod, &previous).refused(101);
        assert!(runtime.del(&id, &pod, &result).ok(), "{plugin}");
        assert_eq!(state(&pod), before, "{plugin}");
        nothing_kept(plugin);
        assert!(runtime.del(&id, &pod, &result).ok(), "{plugin}: a second time");
        assert!(runtime.del_blind(&id).ok(), "{plugin}: a third time");
        assert_eq!(state(&pod), before, "{plugin}");
    }
}

/// CHECK names whatever is not as it was asked for; the first cases may be passed over.
fn missed(runtime: &Runtime, id: &str, pod: &Namespace, result: &Value, first: usize) {
    let set = |what: &'static [&'static str]| [&["ip", "link", "set", "eth0"], what].concat();
    let cases = [
        (set(&["address", "0a:00:00:00:77:02"]), set(&["address", MAC]), MAC),
        (set(&["mtu", "1300"]), set(&["mtu", "1400"]), "has the MTU 1300, not 1400"),
        (set(&["promisc", "off"]), set(&["promisc", "on"]), "`eth0` is not promiscuous"),
        (set(&["allmulticast", "off"]), set(&["allmulticast", "on"]), "is not taking all multicast"),
        (set(&["txqueuelen", "5"]), set(&["txqueuelen", "77"]), "has a queue of 5 packets, not 77"),
        (
            vec!["sysctl", "-qw", "net.core.somaxconn=7"],
            vec!["sysctl", "-qw", "net.core.somaxconn=500"],
            "`net/core/somaxconn` is `7`, not `500`",
        ),
    ];
    for (spoil, mend, said) in cases.into_iter().skip(first) {
        pod.tool(&spoil);
        let answer = runtime.check(id, pod, result);
        answer.refused(102);
        assert!(answer.message().contains(said), "{said}: {}", answer.message());
        pod.tool(&mend);
        runtime.check(id, pod, result).success();
    }
}

fn of_our_own(node: &Node) {
    let _outside = node.outside();
    for mode in MODES {
        let mut config = full(mode);
        for (key, value) in every_key().as_object().unwrap() {
            config[key] = value.clone();
        }
        let runtime = Runtime::new(config);
        let (pod, id) = (node.pod(), id("own"));
        let result = runtime.added(&id, &pod);
        let made = state(&pod);
        let expected = ["mtu 1400", "promisc true", "allmulti true", "txqlen 77", "net.core.somaxconn = 500"];
        assert_eq!(made[0], format!("mac \"{MAC}\""), "{mode}");
        assert_eq!(made[1..6], expected, "{mode}");
        runtime.check(&id, &pod, &result).success();
        for address in ips(&result) {
            let server = Echo::inside(&pod, address);
            assert!(ask_here(Protocol::Tcp, server.address).is_ok(), "{mode}: the node reaches {address}");
        }
        // A MAC that is changed by hand makes the kernel forget the gateway: more is amiss than the MAC.
        missed(&runtime, &id, &pod, &result, 1);
        assert!(runtime.del(&id, &pod, &result).ok());
        look::assert_nothing_left(mode);
    }
}

/// The node knows the pod's addresses by its MAC: a later plugin's is told to it.
fn reached_after_a_new_mac(node: &Node) {
    node.install(&our_binary(), "tuning");
    let outside = node.outside();
    // A new bridge's link-local address is tentative for a second or two, and asks for no neighbour.
    tool(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
    outside.tool(&["ip", "route", "add", "10.66.0.0/24", "via", "192.0.2.1"]);
    outside.tool(&["ip", "-6", "route", "add", "fd66::/64", "via", "2001:db8:ff::1"]);
    for mode in MODES {
        for version in ["1.0.0", "1.1.0"] {
            let when = format!("{mode}, {version}");
            let mut config = full(mode);
            config["cniVersion"] = json!(version);
            let main = Runtime::new(config);
            let tuning = chained("tuning", &json!({"cniVersion": version, "mac": MAC, "mtu": 1400}));
            let (pod, id) = (node.pod(), id("mac"));
            let first = main.added(&id, &pod);
            // The node and a pod beside it have talked to this one, and know its old address.
            let (peer, other) = (node.pod(), crate::networks::id("peer"));
            let beside = main.added(&other, &peer);
            for address in ips(&first) {
                let server = Echo::inside(&pod, address);
                assert!(ask_here(Protocol::Tcp, server.address).is_ok(), "{when}: before");
                assert!(ask(&peer, Protocol::Tcp, server.address).is_ok(), "{when}: before");
            }
            let result = add(&tuning, &id, &pod, &first).success();
            let inside = |r: &Value| r["interfaces"].as_array().unwrap().last().unwrap().clone();
            assert_eq!(inside(&result)["mac"], MAC, "{when}");
            if version == "1.1.0" {
                assert_eq!(inside(&result)["mtu"], 1400, "{when}");
            }
            for (address, server) in
                ips(&result).into_iter().zip(OUTSIDE.map(|ip| Echo::inside(&outside, ip)))
            {
                let echo = Echo::inside(&pod, address);
                assert!(ask_here(Protocol::Tcp, echo.address).is_ok(), "{when}: the node reaches {address}");
                let seen = ask(&peer, Protocol::Tcp, echo.address);
                assert!(seen.is_ok(), "{when}: a pod that knew the old MAC reaches {address}: {seen:?}");
                let seen = ask(&outside, Protocol::Udp, echo.address);
                assert!(seen.is_ok(), "{when}: outside reaches {address}: {seen:?}");
                assert!(
                    ask(&pod, Protocol::Tcp, server.address).is_ok(),
                    "{when}: {address} reaches outside"
                );
            }
            for runtime in [&main, &tuning] {
                runtime.check(&id, &pod, &result).success();
            }
            // Beyond the pod's end, the pair is held to what it was.
            let host = host_end(&result);
            tool(&["ip", "link", "set", &host, "mtu", "1350"]);
            assert!(!main.check(&id, &pod, &result).ok(), "{when}: the node's end has another MTU");
            for runtime in [&tuning, &main] {
                assert!(runtime.del(&id, &pod, &result).ok(), "{when}");
            }
            assert!(main.del(&other, &peer, &beside).ok(), "{when}");
            look::assert_nothing_left(&when);
            nothing_kept(&when);
        }
    }
}

fn refused_settings(node: &Node) {
    node.install(&our_binary(), "tuning");
    let (pod, previous) = by_hand(node);
    let before = state(&pod);
    let cases = [
        (json!({"kernel.hostname": "x"}), "kernel.hostname"),
        (json!({"net/../kernel/hostname": "x"}), "net/../kernel/hostname"),
        (json!({"/proc/sys/net/core/somaxconn": "7"}), "absolute"),
        (json!({SOMAXCONN: "7", "net.ipv4.no_such_setting": "1"}), "net/ipv4/no_such_setting"),
        // The kernel says no when everything else is done.
        (json!({SOMAXCONN: "7", "net.ipv4.ip_forward": "many"}), "net/ipv4/ip_forward"),
    ];
    for (sysctl, named) in cases {
        let mut keys = every_key();
        keys["sysctl"] = sysctl.clone();
        for plugin in ["tuning", "nodeplug-cni"] {
            let runtime = chained(plugin, &keys);
            let answer = add(&runtime, &id("refused"), &pod, &previous);
            answer.refused(7);
            assert!(answer.message().contains(named), "{sysctl}: {}", answer.message());
            assert_eq!(state(&pod), before, "{plugin}: {sysctl}");
            nothing_kept(&format!("{plugin}: {sysctl}"));
        }
        // The same where our own interface would have had it.
        let mut config = full("routed");
        config["sysctl"] = sysctl.clone();
        let own = node.pod();
        Runtime::new(config).add(&id("own"), &own).refused(7);
        look::assert_nothing_left(&format!("{sysctl}"));
    }
    // IPv6 would lose its addresses.
    let mut six = previous.clone();
    six["ips"] = json!([{"interface": 1, "address": "fd66::5/64"}]);
    let answer = add(&chained("tuning", &json!({"mtu": 1279})), &id("six"), &pod, &six);
    answer.refused(7);
    assert!(answer.message().contains("1280"), "{}", answer.message());
    assert_eq!(state(&pod), before);
}

fn the_operators_list(node: &Node) {
    const FOLDER: &str = "/etc/cni";
    node.install(&our_binary(), "tuning");
    // This test's own mounts: the host's /etc is as it was.
    let made = Path::new(FOLDER).is_dir();
    let cover = if made { FOLDER } else { "/etc" };
    mount(Some("tmpfs"), cover, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).expect("cover /etc");
    fs::create_dir_all("/etc/cni/tuning").expect("a folder on the tmpfs");
    let list = |text: &str| fs::write("/etc/cni/tuning/allowlist.conf", text).expect("write the list");
    let (pod, previous) = by_hand(node);
    let before = state(&pod);
    let runtime = chained("tuning", &every_key());
    for text in ["", "^net\\.ipv4\\.\n", "^net.core.somaxconn$\n\n", "^net/ipv4/conf/IFNAME/[a-z_]*$"] {
        list(text);
        let answer = add(&runtime, &id("listed"), &pod, &previous);
        answer.refused(7);
        let told = answer.message();
        assert!(told.contains("/etc/cni/tuning/allowlist.conf"), "{text:?}: {told}");
        assert!(told.contains("somaxconn") || told.contains("forwarding"), "{text:?}: {told}");
        assert_eq!(state(&pod), before, "{text:?}");
        nothing_kept(text);
        let mut config = full("routed");
        config["sysctl"] = every_key()["sysctl"].clone();
        Runtime::new(config).add(&id("own"), &node.pod()).refused(7);
        look::assert_nothing_left(text);
    }
    list("(");
    let answer = add(&runtime, &id("listed"), &pod, &previous);
    answer.refused(7);
    assert!(answer.message().contains("`(`"), "{}", answer.message());
    list("  ^net\\.core\\.somaxconn$  \n^net/ipv4/conf/IFNAME/[a-z_]*$\n");
    let result = add(&runtime, &id("listed"), &pod, &previous).success();
    // A list that grew narrower since is no reason to fail, and none to keep anything.
    list("");
    runtime.check(&id("listed"), &pod, &result).success();
    assert!(runtime.del(&id("listed"), &pod, &result).ok());
    assert_eq!(state(&pod), before);
    // What can only be written, and a secret that was never set, have no value to keep.
    list(".");
    let odd = json!({"sysctl": {
        "net.ipv4.route.flush": "1",
        "net.ipv6.conf.IFNAME.stable_secret": "2001:db8::1",
    }});
    let odd = chained("tuning", &odd);
    let result = add(&odd, &id("odd"), &pod, &previous).success();
    let told = odd.check(&id("odd"), &pod, &result).message();
    assert!(!told.contains("flush"), "{told}");
    let secret = pod.tool(&["sysctl", "-n", "net.ipv6.conf.eth0.stable_secret"]);
    assert!(secret.contains("2001:0db8"), "{secret}");
    assert!(odd.del_blind(&id("odd")).ok());
    nothing_kept("after odd settings");
    list("");
    // No sysctl, no list.
    let plain = chained("tuning", &json!({"mtu": 1400}));
    let result = add(&plain, &id("plain"), &pod, &previous).success();
    assert!(plain.del(&id("plain"), &pod, &result).ok());
    nothing_kept("at the end");
}

/// The reference keeps no settings: its file and ours hold the same of the interface.
fn as_the_reference(node: &Node) {
    let reference = Path::new(REFERENCE).join("tuning");
    let mut keys = every_key();
    // Debian's reference knows neither of the two.
    keys["sysctl"] = json!({SOMAXCONN: "500"});
    keys.as_object_mut().unwrap().remove("txQLen");
    let runtime = chained("tuning", &keys);
    let install = |ours: bool| {
        let program = if ours { our_binary() } else { reference.clone() };
        node.install(&program, "tuning");
    };
    let mut seen = Vec::new();
    for (adds, deletes) in [(true, true), (true, false), (false, true), (false, false)] {
        let when = format!("ours adds: {adds}, ours deletes: {deletes}");
        let ((pod, previous), id) = (by_hand(node), id("both"));
        let before = state(&pod);
        install(adds);
        let mut result = add(&runtime, &id, &pod, &previous).success();
        let tuned = state(&pod);
        let file = format!("{KEPT}/{id}_eth0.json");
        let kept: Value = serde_json::from_slice(&fs::read(&file).expect("the file")).expect("JSON");
        // Pods' names differ, and the reference gives the node's interface of that name the MAC, too.
        result["interfaces"][1]["sandbox"] = json!("POD");
        result["interfaces"][0]["mac"] = json!("");
        seen.push((result.clone(), tuned[..6].to_vec(), kept));
        install(true);
        runtime.check(&id, &pod, &result_in(&result, &pod)).success();
        install(deletes);
        assert!(runtime.del(&id, &pod, &result_in(&result, &pod)).ok(), "{when}");
        assert_eq!(state(&pod)[..5], before[..5], "{when}");
        assert!(!Path::new(&file).exists(), "{when}: the file stays");
        if adds && !deletes {
            // Our record is left: the DEL that finds it has nothing to do.
            install(true);
            assert!(runtime.del_blind(&id).ok(), "{when}");
            assert_eq!(state(&pod)[..5], before[..5], "{when}");
        }
        nothing_kept(&when);
    }
    assert!(seen.windows(2).all(|w| w[0] == w[1]), "{seen:#?}");
}

fn result_in(result: &Value, pod: &Namespace) -> Value {
    let mut result = result.clone();
    result["interfaces"][1]["sandbox"] = json!(pod.name());
    result
}

fn killed_at_each(prepare: impl Fn() -> Call, mut after: impl FnMut(&str)) {
    for n in 0..2000 {
        match trace::kill_after(&prepare(), n) {
            End::Killed(number) => after(&format!("killed after system call {n}, of number {number}")),
            End::Finished(answer) => {
                assert!(answer.ok(), "the call that nobody killed: {answer:?}");
                assert!(n > 20, "only {n} system calls were seen");
                return after("finished");
            }
        }
    }
    panic!("a call that never ends");
}

fn killed_adds(node: &Node) {
    node.install(&our_binary(), "tuning");
    let ((pod, previous), id) = (by_hand(node), id("killed"));
    let before = state(&pod);
    let runtime = chained("tuning", &every_key());
    killed_at_each(
        || runtime.call("ADD", &id, pod.name(), Some(&previous)),
        |when| {
            let answer = runtime.call("DEL", &id, pod.name(), None).run();
            assert!(answer.ok(), "{when}: {answer:?}");
            assert_eq!(state(&pod), before, "{when}");
            nothing_kept(when);
        },
    );
}

fn killed_dels(node: &Node) {
    node.install(&our_binary(), "tuning");
    let ((pod, previous), id) = (by_hand(node), id("killed"));
    let before = state(&pod);
    let runtime = chained("tuning", &every_key());
    killed_at_each(
        || {
            let result = add(&runtime, &id, &pod, &previous).success();
            runtime.call("DEL", &id, pod.name(), Some(&result))
        },
        |when| {
            let answer = runtime.call("DEL", &id, pod.name(), None).run();
            assert!(answer.ok(), "{when}: {answer:?}");
            assert_eq!(state(&pod), before, "{when}");
            nothing_kept(when);
        },
    );
}

/// What an ADD may meet a refusal at: files and sockets, not memory.
#[cfg(target_arch = "x86_64")]
const AMONG: [i64; 18] = [
    libc::SYS_openat,
    libc::SYS_write,
    libc::SYS_read,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_mkdir,
    libc::SYS_statx,
    libc::SYS_socket,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_setns,
    libc::SYS_ioctl,
];

#[cfg(target_arch = "x86_64")]
fn failing_adds(node: &Node) {
    node.install(&our_binary(), "tuning");
    let ((pod, previous), id) = (by_hand(node), id("failing"));
    let before = state(&pod);
    let runtime = chained("tuning", &every_key());
    for n in 0..2000 {
        let call = runtime.call("ADD", &id, pod.name(), Some(&previous));
        let (answer, failed) = trace::fail_nth(&call, &AMONG, n, libc::EIO);
        let Some(number) = failed else {
            assert!(answer.ok() && n > 10, "{n}: {answer:?}");
            assert!(runtime.call("DEL", &id, pod.name(), None).run().ok());
            return;
        };
        let when = format!("EIO for system call {number}, the {n}-th: {answer:?}");
        if answer.ok() {
            runtime.check(&id, &pod, &answer.success()).success();
            assert!(runtime.call("DEL", &id, pod.name(), None).run().ok(), "{when}");
        }
        assert_eq!(state(&pod), before, "{when}");
        nothing_kept(&when);
    }
    panic!("a call that never ends");
}

#[cfg(not(target_arch = "x86_64"))]
fn failing_adds(_node: &Node) {
    eprintln!("system calls are made to fail on x86_64 only");
}

fn gone(node: &Node) {
    node.install(&our_binary(), "tuning");
    let runtime = chained("tuning", &every_key());
    for what in ["link", "namespace", "not told"] {
        let ((pod, previous), id) = (by_hand(node), id("gone"));
        let result = add(&runtime, &id, &pod, &previous).success();
        let answer = match what {
            "link" => {
                pod.tool(&["ip", "link", "del", "eth0"]);
                runtime.del(&id, &pod, &result)
            }
            "namespace" => {
                let path = pod.name().to_owned();
                pod.remove();
                runtime.call("DEL", &id, &path, Some(&result)).run()
            }
            _ => {
                pod.remove();
                runtime.del_blind(&id)
            }
        };
        assert!(answer.ok(), "{what}: {answer:?}");
        nothing_kept(what);
    }
    // GC has no namespace, and the record has.
    let ((pod, previous), id) = (by_hand(node), id("stale"));
    let before = state(&pod);
    add(&runtime, &id, &pod, &previous).success();
    assert!(runtime.gc(&[], &["cni.dev/valid-attachments"]).ok());
    assert_eq!(state(&pod), before, "after GC");
    nothing_kept("after GC");
}
