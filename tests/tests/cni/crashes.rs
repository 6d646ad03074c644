//! `kill -9` and refused system calls at every step, then DEL or a reboot: nothing is left.

use std::fs;
use std::path::Path;

use harness::call::try_tool;
use harness::kernel::trace::{self, End};
use harness::look;
use harness::node::{Namespace, Node, RECORDS};
use harness::runtime::{Call, Runtime};
use harness::suite::ours;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, full, id, ips};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("an_add_killed_at_any_step_is_undone_by_del", an_add_killed_is_undone_by_del),
        ours("an_add_killed_at_any_step_is_undone_without_its_namespace", an_add_killed_is_undone_blindly),
        ours("an_add_of_everything_killed_at_any_step_is_undone", |node| {
            everything_killed(node, killed_adds);
        }),
        ours("a_del_of_everything_killed_at_any_step_is_finished", |node| {
            everything_killed(node, killed_dels);
        }),
        ours("a_del_killed_at_any_step_is_finished_by_the_next", a_del_killed_is_finished),
        ours("a_del_killed_at_any_step_is_finished_without_its_namespace", a_del_killed_is_finished_blindly),
        ours("an_add_killed_at_any_step_costs_nothing_after_a_reboot", a_reboot_makes_the_range_whole),
        ours("pods_of_an_earlier_boot_cost_nothing", pods_of_an_earlier_boot_cost_nothing),
        ours("a_routed_add_that_fails_at_any_step_leaves_nothing", |node| failures(node, "routed")),
        ours("a_bridged_add_that_fails_at_any_step_leaves_nothing", |node| failures(node, "bridge")),
        ours("an_add_after_a_killed_one_succeeds", an_add_after_a_killed_one_succeeds),
    ]
}

/// Every n from 0 up to the last system call of what `call` does. `prepare` gives the call and what it
/// needs to live; `after` looks at the ruins.
pub fn sweep<T>(prepare: impl Fn() -> (T, Call), mut after: impl FnMut(T, &str)) {
    let mut n = 0;
    loop {
        let (kept, call) = prepare();
        let end = trace::kill_after(&call, n);
        match end {
            End::Killed(number) => after(kept, &format!("killed after system call {n}, of number {number}")),
            End::Finished(answer) => {
                assert!(answer.ok(), "the call that nobody killed: {answer:?}");
                assert!(n > 20, "only {n} system calls were seen");
                after(kept, "finished");
                return;
            }
        }
        n += 1;
        assert!(n < 2000, "a call that never ends");
    }
}

/// What was found at all steps of a sweep: one wrong step should not hide the next.
#[derive(Default)]
pub struct Ruins(Vec<String>);

impl Ruins {
    /// Notes what is left, and takes it away, so that the next step starts from nothing.
    pub fn look(&mut self, when: &str) {
        let left = look::leftovers();
        if left.is_empty() {
            return;
        }
        for record in look::records() {
            drop(fs::remove_file(Path::new(RECORDS).join(record)));
        }
        let ifbs = look::links().into_iter().filter(|l| l.starts_with("bwp"));
        for link in look::host_ends().into_iter().chain(ifbs) {
            try_tool(&["ip", "link", "del", &link]);
        }
        drop(fs::remove_dir_all(Path::new(RECORDS).with_file_name("ports")));
        // The next ADD makes it again.
        try_tool(&["nft", "delete", "table", "inet", "nodeplug"]);
        self.0.push(format!("{when}: {left:?}"));
    }

    #[track_caller]
    pub fn none(self) {
        let count = self.0.len();
        let some: Vec<_> = self.0.into_iter().take(12).collect();
        assert!(count == 0, "{count} steps leave something, the first of them: {some:#?}");
    }
}

fn an_add_killed_is_undone_by_del(node: &Node) {
    let (id, mut ruins) = (id("killed"), Ruins::default());
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let pod = node.pod();
        sweep(
            || ((), runtime.call("ADD", &id, pod.name(), None)),
            |(), when| {
                let answer = runtime.call("DEL", &id, pod.name(), None).run();
                assert!(answer.ok(), "{mode} {when}: {answer:?}");
                ruins.look(&format!("{mode} ADD {when}, then DEL"));
                assert!(look::addresses(&pod, "eth0").is_empty(), "{mode} {when}: eth0 stays in the pod");
            },
        );
    }
    ruins.none();
}

fn an_add_killed_is_undone_blindly(node: &Node) {
    let mut ruins = Ruins::default();
    for mode in MODES {
        killed_adds(node, &Runtime::new(full(mode)), mode, &mut ruins);
    }
    ruins.none();
}

/// ADDs that are killed at each step; the pod's namespace is gone by the DEL, which is told nothing.
pub fn killed_adds(node: &Node, runtime: &Runtime, what: &str, ruins: &mut Ruins) {
    let id = id("killed");
    sweep(
        || {
            let pod = node.pod();
            let call = runtime.call("ADD", &id, pod.name(), None);
            (pod, call)
        },
        |pod, when| {
            pod.remove();
            let answer = runtime.del_blind(&id);
            assert!(answer.ok(), "{what} {when}: {answer:?}");
            ruins.look(&format!("{what} ADD {when}, then DEL without namespace"));
        },
    );
}

fn a_del_killed_is_finished(node: &Node) {
    let (id, mut ruins) = (id("killed"), Ruins::default());
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let pod = node.pod();
        sweep(
            || {
                let result = runtime.added(&id, &pod);
                ((), runtime.call("DEL", &id, pod.name(), Some(&result)))
            },
            |(), when| {
                let answer = runtime.call("DEL", &id, pod.name(), None).run();
                assert!(answer.ok(), "{mode} {when}: {answer:?}");
                ruins.look(&format!("{mode} DEL {when}, then DEL"));
            },
        );
    }
    ruins.none();
}

fn a_del_killed_is_finished_blindly(node: &Node) {
    let mut ruins = Ruins::default();
    for mode in MODES {
        killed_dels(node, &Runtime::new(full(mode)), mode, &mut ruins);
    }
    ruins.none();
}

/// DELs that are killed at each step; the next one is told nothing.
pub fn killed_dels(node: &Node, runtime: &Runtime, what: &str, ruins: &mut Ruins) {
    let id = id("killed");
    sweep(
        || {
            let pod = node.pod();
            let result = runtime.added(&id, &pod);
            let call = runtime.call("DEL", &id, pod.name(), Some(&result));
            (pod, call)
        },
        |pod, when| {
            pod.remove();
            let answer = runtime.del_blind(&id);
            assert!(answer.ok(), "{what} {when}: {answer:?}");
            ruins.look(&format!("{what} DEL {when}, then DEL without namespace"));
        },
    );
}

/// An interface with everything that a pod can get beside it.
fn everything(mode: &str) -> Runtime {
    let mut config = full(mode);
    config["firewall"] = json!(true);
    config["ingressPolicy"] = json!("isolated");
    config["sysctl"] = json!({"net.core.somaxconn": "500"});
    config["capabilities"] = json!({"portMappings": true, "bandwidth": true});
    config["runtimeConfig"] = json!({
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
        ],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 8_000_000, "egressBurst": 800_000},
    });
    Runtime::new(config)
}

fn everything_killed(node: &Node, sweep: fn(&Node, &Runtime, &str, &mut Ruins)) {
    let mut ruins = Ruins::default();
    for mode in MODES {
        sweep(node, &everything(mode), mode, &mut ruins);
    }
    ruins.none();
}

/// Three addresses: one that leaked would be missed.
fn small(mode: &str) -> Value {
    let mut config = full(mode);
    config["ipam"]["ranges"] = json!([
        [{"subnet": "10.66.0.0/24", "rangeStart": "10.66.0.10", "rangeEnd": "10.66.0.12"}],
        [{"subnet": "fd66::/64", "rangeStart": "fd66::10", "rangeEnd": "fd66::12"}],
    ]);
    config["ipam"]["cooldownSeconds"] = json!(30);
    config
}

fn a_reboot_makes_the_range_whole(node: &Node) {
    let mut ruins = Ruins::default();
    for mode in MODES {
        let runtime = Runtime::new(small(mode));
        sweep(
            || {
                let pod = node.pod();
                let call = runtime.call("ADD", &id("killed"), pod.name(), None);
                (pod, call)
            },
            |pod, when| {
                drop(pod);
                node.reboot();
                whole(node, &runtime, &mut ruins, &format!("{mode} {when}, then a reboot"));
            },
        );
    }
    ruins.none();
}

fn pods_of_an_earlier_boot_cost_nothing(node: &Node) {
    let mut ruins = Ruins::default();
    for mode in MODES {
        let runtime = Runtime::new(small(mode));
        let pods: Vec<(String, Namespace)> = ["a", "b", "c"].map(|w| (id(w), node.pod())).into();
        for (id, pod) in &pods {
            runtime.added(id, pod);
        }
        drop(pods);
        node.reboot();
        whole(node, &runtime, &mut ruins, &format!("{mode}: a full range, then a reboot"));
        // The runtime may still ask for the pods of before: that must not hurt those of now.
        let (pod, new) = (node.pod(), id("new"));
        let result = runtime.added(&new, &pod);
        assert!(runtime.del_blind(&id("a")).ok());
        runtime.check(&new, &pod, &result).success();
        assert!(runtime.del(&new, &pod, &result).ok());
    }
    ruins.none();
}

/// Every address of the small range can be had, from the first ADD on.
fn whole(node: &Node, runtime: &Runtime, ruins: &mut Ruins, when: &str) {
    let pods: Vec<(String, Namespace)> = ["x", "y", "z"].map(|w| (id(w), node.pod())).into();
    let mut given = Vec::new();
    for (id, pod) in &pods {
        let answer = runtime.add(id, pod);
        assert!(answer.ok(), "{when}: ADD {} of 3: {answer:?}", given.len() + 1);
        given.push(ips(&answer.success()));
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 3, "{when}: {given:?}");
    assert_eq!(look::leases(NAME).len(), 6, "{when}: {:?}", look::leases(NAME));
    for (id, pod) in &pods {
        assert!(runtime.call("DEL", id, pod.name(), None).run().ok(), "{when}");
    }
    ruins.look(when);
}

/// A crashed ADD's container gets its DEL late or never; the next container must not feel it.
fn an_add_after_a_killed_one_succeeds(node: &Node) {
    let mut ruins = Ruins::default();
    let runtime = Runtime::new(full("routed"));
    let (killed, next) = (id("killed"), id("next"));
    sweep(
        || {
            let pod = node.pod();
            let call = runtime.call("ADD", &killed, pod.name(), None);
            (pod, call)
        },
        |pod, when| {
            let second = node.pod();
            let answer = runtime.add(&next, &second);
            assert!(answer.ok(), "{when}: {answer:?}");
            let result = answer.success();
            runtime.check(&next, &second, &result).success();
            assert!(runtime.del(&next, &second, &result).ok(), "{when}");
            assert!(runtime.call("DEL", &killed, pod.name(), None).run().ok(), "{when}");
            ruins.look(when);
        },
    );
    ruins.none();
}

/// What an ADD may meet a refusal at: files and sockets, not memory.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const AMONG: [i64; 29] = [
    libc::SYS_openat, libc::SYS_write, libc::SYS_read, libc::SYS_rename, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_link, libc::SYS_linkat, libc::SYS_symlink, libc::SYS_symlinkat,
    libc::SYS_unlink, libc::SYS_unlinkat, libc::SYS_mkdir, libc::SYS_mkdirat, libc::SYS_flock,
    libc::SYS_getdents64, libc::SYS_statx, libc::SYS_newfstatat, libc::SYS_socket, libc::SYS_bind,
    libc::SYS_setsockopt, libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_recvfrom, libc::SYS_recvmsg,
    libc::SYS_setns, libc::SYS_ioctl, libc::SYS_readlink, libc::SYS_readlinkat, 
];

#[cfg(target_arch = "x86_64")]
fn failures(node: &Node, mode: &str) {
    use libc as c;
    let mut ruins = Ruins::default();
    let runtime = Runtime::new(full(mode));
    let (pod, id) = (node.pod(), id("failing"));
    for errno in [c::EIO, c::EPERM] {
        for n in 0.. {
            let call = runtime.call("ADD", &id, pod.name(), None);
            let (answer, failed) = trace::fail_nth(&call, &AMONG, n, errno);
            let Some(number) = failed else {
                assert!(n > 10, "only {n} system calls could fail");
                assert!(answer.ok(), "{answer:?}");
                assert!(runtime.call("DEL", &id, pod.name(), None).run().ok());
                break;
            };
            let said = format!("exit {:?}, code {}, {}", answer.exit, answer.code(), answer.message());
            let when = format!("{mode}: errno {errno} for system call {number}, the {n}-th: {said}");
            assert!(answer.signal.is_none(), "{when}");
            if answer.ok() && answer.json.is_none() {
                ruins.0.push(format!("{when}: exit 0 without an answer"));
            } else if answer.ok() {
                runtime.check(&id, &pod, &answer.success()).success();
            } else if answer.json.is_none() {
                // What cannot be written cannot be told: only the answer's own write may take it away.
                assert_eq!(i64::try_from(number), Ok(c::SYS_write), "{when}");
            } else {
                assert!(answer.code() > 0, "{when}");
            }
            if !answer.ok() {
                ruins.look(&when);
            }
            assert!(runtime.call("DEL", &id, pod.name(), None).run().ok(), "{when}");
            ruins.look(&format!("{when}, then DEL"));
        }
    }
    ruins.none();
}

#[cfg(not(target_arch = "x86_64"))]
fn failures(_node: &Node, _mode: &str) {
    eprintln!("system calls are made to fail on x86_64 only");
}
