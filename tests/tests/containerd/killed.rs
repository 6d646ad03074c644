//! Somebody kills what runs: the runtime, a pod's process, a pod's namespace.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use harness::call::tool;
use harness::container_node::ContainerNode;
use harness::containerd::v1::PodSandboxState;
use harness::containerd::{Containerd, Pod, Sandbox, at_once, meanwhile};
use harness::look;
use harness::node::Namespace;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::crowd::{AT_ONCE, pods};
use crate::networks::{SUBNETS, chain, containerd, whole};

pub fn trials() -> Vec<Trial> {
    vec![
        containerd("containerd_killed_while_it_starts_pods", killed_at_starts),
        containerd("containerd_killed_while_it_ends_pods", killed_at_ends),
        containerd(
            "plugins_killed_at_any_moment_leave_nothing_that_the_kubelet_does_not_end",
            plugins_killed,
        ),
        containerd("pods_live_on_while_containerd_is_away", away),
        containerd("a_pod_whose_process_was_killed_is_made_again", pod_killed),
        containerd("a_pod_whose_namespace_is_gone_is_removed", space_gone),
        containerd("pods_of_before_a_reboot_take_nothing_of_those_after_it", rebooted),
    ]
}

fn killed_at_starts(node: &ContainerNode) {
    node.network("10-pods", &whole("routed", &SUBNETS));
    let containerd = Containerd::start(node);
    containerd.kubelet().wait_for_network();
    for attached in [1, 3, 5, 8, 11] {
        let kubelet = containerd.kubelet();
        let started = killed_during(
            &containerd,
            || look::records().len() >= attached,
            || at_once(AT_ONCE, &pods(16), |pod| kubelet.run(pod).is_ok()),
        );
        assert!(started.contains(&false), "killed before the last of {started:?}");
        goes_on(node, &containerd, &format!("killed when {attached} were attached"));
    }
}

fn killed_at_ends(node: &ContainerNode) {
    node.network("10-pods", &whole("routed", &SUBNETS));
    let containerd = Containerd::start(node);
    containerd.kubelet().wait_for_network();
    for attached in [15, 11, 7] {
        let kubelet = containerd.kubelet();
        let ids =
            at_once(AT_ONCE, &pods(16), |pod| kubelet.run(pod).unwrap_or_else(|e| panic!("{pod:?}: {e}")));
        let ended = killed_during(
            &containerd,
            || look::records().len() <= attached,
            || at_once(AT_ONCE, &ids, |id| kubelet.stop(id).is_ok()),
        );
        assert!(ended.contains(&false), "killed before the last of {ended:?}");
        goes_on(node, &containerd, &format!("killed when {attached} were still attached"));
    }
}

/// Kills containerd in the midst of the work, at a moment.
fn killed_during<T>(
    containerd: &Containerd,
    moment: impl Fn() -> bool + Send,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        scope.spawn(move || {
            wait_until("pods are attached, or no longer", moment);
            containerd.kill();
        });
        work()
    })
}

/// The next containerd knows the pods whose network was asked for, and the kubelet ends them as any other. No GC and no
/// `ipam check --fix` is needed.
fn goes_on(node: &ContainerNode, containerd: &Containerd, when: &str) {
    containerd.start_again();
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let refused = kubelet.end_all();
    assert!(refused.is_empty(), "{when}: {refused:#?}");
    node.assert_nothing_left_but(when, is_the_runtimes);
    for space in spaces() {
        let links = look::ip_in(&space, &["link"]);
        assert!(links.iter().all(|l| l["ifname"] == "lo"), "{when}: {space:?}: {links:?}");
    }
}

/// What containerd itself forgets with a kill, and would with any plugin: shims, and what they run and hold.
fn is_the_runtimes(what: &str) -> bool {
    const PROGRAMS: [&str; 3] = ["containerd-shim-runc-v2", "runc", "sleep"];
    if ["cgroup ", "mount ", "network namespace "].iter().any(|kind| what.starts_with(kind)) {
        return true;
    }
    let process = what.starts_with("process ");
    let program = what.split('`').nth(1).and_then(|line| line.split(' ').next()).unwrap_or_default();
    process && PROGRAMS.iter().any(|name| Path::new(program).ends_with(name))
}

/// ADDs and DELs end at any of their steps; the kubelet tries again, and ends what the runtime lists.
fn plugins_killed(node: &ContainerNode) {
    node.install(&["--as-reference"]);
    node.network("10-pods", &chain(SUBNETS[0]));
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let start_and_stop = |pod: &Pod| match kubelet.run(pod) {
        Ok(id) => usize::from(kubelet.stop(&id).is_err()),
        Err(_) => 1,
    };
    let (failed, killed) =
        meanwhile(|| kill_plugin(node), || at_once(AT_ONCE, &pods(40), start_and_stop).iter().sum::<usize>());
    assert!(killed > 5 && failed > 0, "{killed} killed, {failed} pods failed by that");
    let refused = kubelet.end_all();
    assert!(refused.is_empty(), "{refused:#?}");
    node.assert_nothing_left(&format!("{killed} killed, {failed} pods failed by that"));
}

/// Kills a plugin that is at work, if there is one, and lets those that follow live for a moment.
fn kill_plugin(node: &ContainerNode) -> bool {
    const NAMES: [&str; 4] = ["bridge", "portmap", "bandwidth", "firewall"];
    let plugin = node.cgroups().processes().into_iter().find(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        NAMES.contains(&comm.trim())
    });
    let killed = plugin.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
    thread::sleep(if killed { Duration::from_millis(40) } else { Duration::from_micros(200) });
    killed
}

fn spaces() -> Vec<Namespace> {
    let files = fs::read_dir("/run/netns").unwrap().flatten();
    files.map(|e| Namespace::of_runtime(e.path())).collect()
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        thread::sleep(Duration::from_micros(500));
    }
}

fn away(node: &ContainerNode) {
    let outside = node.node.outside();
    node.network("10-pods", &whole("routed", &SUBNETS));
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let sandbox = kubelet.sandbox(&Pod::named("web").host_port(8080, 80));
    let server = Echo::at(&sandbox.space, SocketAddr::new(sandbox.ip(), 80));
    let door = "192.0.2.1:8080".parse().unwrap();
    containerd.kill();
    ask(&outside, Protocol::Tcp, door).unwrap_or_else(|e| panic!("without containerd: {e}"));
    containerd.start_again();
    let kubelet = containerd.kubelet();
    let told = kubelet.told(&sandbox.id).unwrap().status.unwrap();
    assert_eq!(told.network.unwrap().ip, sandbox.ip().to_string(), "by the next containerd");
    ask(&outside, Protocol::Tcp, door).unwrap_or_else(|e| panic!("with the next containerd: {e}"));
    drop(server);
    assert!(kubelet.end(&sandbox.id).is_empty());
    node.assert_nothing_left("when the pod is gone");
}

/// The kubelet stops what is left, makes a new sandbox, and removes the old one after that.
fn pod_killed(node: &ContainerNode) {
    let outside = node.node.outside();
    node.network("10-pods", &whole("routed", &SUBNETS));
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let pod = Pod::named("web").host_port(8080, 80).rates("20M", "10M");
    let sandbox = kubelet.sandbox(&pod);
    kubelet.container(&sandbox, "main", &["/bin/sleep", "1000"]);
    kill(Pid::from_raw(sandbox.pid), Signal::SIGKILL).unwrap();
    wait_until("the sandbox is no longer ready", || {
        kubelet.list()[0].state() == PodSandboxState::SandboxNotready
    });
    kubelet.stop(&sandbox.id).unwrap();
    let next = kubelet.sandbox(&pod.again());
    kubelet.remove(&sandbox.id).unwrap();
    let _server = Echo::at(&next.space, SocketAddr::new(next.ip(), 80));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        ask(&outside, protocol, "192.0.2.1:8080".parse().unwrap()).unwrap();
    }
    assert!(kubelet.end(&next.id).is_empty());
    node.assert_nothing_left("when both are gone");
}

/// Unmounted and deleted by somebody else. The one's process was killed before, and its namespace is no more; the
/// other's still is in it.
fn space_gone(node: &ContainerNode) {
    for mode in ["routed", "bridge"] {
        node.network("10-pods", &whole(mode, &SUBNETS));
        let containerd = Containerd::start(node);
        let kubelet = containerd.kubelet();
        kubelet.wait_for_network();
        let pods = [Pod::named("web").host_port(8080, 80).rates("20M", "10M"), Pod::named("db")];
        let sandboxes = pods.map(|pod| kubelet.sandbox(&pod));
        let ends = look::host_ends().len();
        kill(Pid::from_raw(sandboxes[0].pid), Signal::SIGKILL).unwrap();
        for sandbox in &sandboxes {
            let path = sandbox.space.name();
            tool(&["umount", "--lazy", path]);
            fs::remove_file(path).unwrap();
        }
        wait_until("the kernel takes the namespace apart", || look::host_ends().len() < ends);
        // The killed one's shim may be about to end, which containerd refuses itself: not the network's doing.
        let mut refused = kubelet.end(&sandboxes[0].id);
        refused.retain(|refusal| !refusal.message().starts_with("failed to stop sandbox container"));
        refused.extend(kubelet.end(&sandboxes[1].id));
        assert!(refused.is_empty(), "{refused:#?}");
        node.assert_nothing_left(mode);
    }
}

/// The kubelet starts new pods before it has removed those of the earlier boot. They have the same addresses.
fn rebooted(node: &ContainerNode) {
    let outside = node.node.outside();
    let mut list = whole("routed", &SUBNETS[..1]);
    let range = json!({"subnet": SUBNETS[0], "rangeStart": "10.66.0.10", "rangeEnd": "10.66.0.11"});
    list["plugins"][0]["ipam"]["ranges"] = json!([[range]]);
    node.network("10-pods", &list);
    let pods = [Pod::named("web").host_port(8080, 80).rates("90M", "90M"), Pod::named("db")];
    let before = {
        let containerd = Containerd::start(node);
        let kubelet = containerd.kubelet();
        kubelet.wait_for_network();
        pods.clone().map(|pod| kubelet.sandbox(&pod))
    };
    outside.remove();
    node.reboot();
    let outside = node.node.outside();
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let after = pods.map(|pod| kubelet.sandbox(&pod.again()));
    let addresses = |all: &[Sandbox]| all.iter().map(Sandbox::ip).collect::<BTreeSet<_>>();
    assert_eq!(addresses(&before), addresses(&after), "the leases of the earlier boot are given back");
    for sandbox in &before {
        let refused = kubelet.end(&sandbox.id);
        assert!(refused.is_empty(), "{refused:?}");
    }
    let [web, db] = &after;
    let server = Echo::at(&web.space, SocketAddr::new(web.ip(), 80));
    ask(&db.space, Protocol::Tcp, server.address).unwrap();
    ask(&outside, Protocol::Tcp, "192.0.2.1:8080".parse().unwrap()).unwrap();
    let beyond = Echo::inside(&outside, "192.0.2.2".parse().unwrap());
    assert_eq!(
        ask(&db.space, Protocol::Tcp, beyond.address),
        Ok("192.0.2.1".parse().unwrap()),
        "masqueraded"
    );
    for sandbox in &after {
        assert!(kubelet.end(&sandbox.id).is_empty());
    }
    node.assert_nothing_left("when all pods are gone");
}
