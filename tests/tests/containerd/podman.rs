//! podman with its CNI backend: another caller, which has no sandbox, writes its own configuration, and hands host ports
//! over as the engine before Kubernetes did.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use harness::call::{self, Answer};
use harness::container_node::{ContainerNode, IMAGE, archive};
use harness::node::Namespace;
use harness::suite::pods;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{SUBNETS, list, whole};

pub fn trials() -> Vec<Trial> {
    vec![
        podman("podman_publishes_a_port_and_leaves_nothing_routed", |node| {
            publishes(node, &whole("routed", &SUBNETS));
        }),
        podman("podman_publishes_a_port_and_leaves_nothing_bridged", |node| {
            publishes(node, &whole("bridge", &SUBNETS));
        }),
        podman("podmans_own_network_by_the_references_names", own_network),
    ]
}

fn podman(name: &'static str, body: fn(&ContainerNode)) -> Trial {
    pods(name, &["podman", "conmon", "runc", "busybox"], body)
}

/// All that is not the node's own already: events and log without a journal, cgroups without systemd.
const CONFIGURATION: &str = r#"
[containers]
default_ulimits = []
log_driver = "k8s-file"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

/// Nobody signs the image that was made here.
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

fn run(node: &ContainerNode, words: &[&str]) -> Answer {
    call::run(node.service("podman", "podman").args(words), b"")
}

#[track_caller]
fn says(node: &ContainerNode, words: &[&str]) -> String {
    let answer = run(node, words);
    assert!(answer.ok(), "podman {words:?}: {answer:?}");
    answer.stdout.trim().to_owned()
}

fn prepare(node: &ContainerNode) {
    fs::create_dir_all("/etc/containers").unwrap();
    fs::write("/etc/containers/containers.conf", CONFIGURATION).unwrap();
    fs::write("/etc/containers/policy.json", POLICY).unwrap();
    // Without the backend podman refuses the configuration, and says so itself.
    let backend = run(node, &["info", "--format", "{{.Host.NetworkBackend}}"]);
    assert_eq!(backend.stdout.trim(), "cni", "this podman was built without its CNI backend: {backend:?}");
    says(node, &["load", "--input", archive().to_str().unwrap()]);
}

/// Debian's `87-podman-bridge.conflist`.
fn own_network(node: &ContainerNode) {
    node.install(&["--as-reference"]);
    let ipam = json!({
        "type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]],
    });
    let bridge = json!({
        "type": "bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": ipam,
    });
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let entries = [bridge, portmap, json!({"type": "firewall"}), json!({"type": "tuning"})];
    let mut own = list("podman", &entries);
    own["cniVersion"] = json!("0.4.0");
    publishes(node, &own);
}

/// A container's address and namespace.
fn place(node: &ContainerNode, network: &str, container: &str) -> (IpAddr, Namespace) {
    let inspect = |what: &str| says(node, &["inspect", "--format", what, container]);
    let ip = inspect(&format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"));
    let space = inspect("{{.NetworkSettings.SandboxKey}}");
    (ip.parse().unwrap(), Namespace::of_runtime(space.into()))
}

fn publishes(node: &ContainerNode, list: &Value) {
    let outside = node.node.outside();
    node.network("87-pods", list);
    prepare(node);
    let name = list["name"].as_str().unwrap();
    let parent = node.cgroups().parent();
    let start = |container: &str, port: &str| {
        let common = ["run", "--detach", "--network", name, "--cgroup-parent", &parent];
        let own = ["--name", container, "--publish", port, IMAGE, "sleep", "1000"];
        says(node, &[&common[..], &own].concat());
        place(node, name, container)
    };
    let (web, web_space) = start("web", "8080:80");
    let (db, db_space) = start("db", "8081:80/udp");
    let server = Echo::at(&web_space, SocketAddr::new(web, 80));
    assert_eq!(ask(&db_space, Protocol::Tcp, server.address), Ok(db), "from one to the other");
    let door = "192.0.2.1:8080".parse().unwrap();
    ask(&outside, Protocol::Tcp, door).unwrap();
    let _other = Echo::at(&db_space, SocketAddr::new(db, 80));
    ask(&outside, Protocol::Udp, "192.0.2.1:8081".parse().unwrap()).unwrap();
    let beyond = Echo::inside(&outside, "192.0.2.2".parse().unwrap());
    assert_eq!(
        ask(&web_space, Protocol::Tcp, beyond.address),
        Ok("192.0.2.1".parse().unwrap()),
        "masqueraded"
    );
    let refused = run(node, &["run", "--rm", "--network", name, "--publish", "8080:81", IMAGE, "true"]);
    assert!(!refused.ok() && refused.stderr.contains("8080"), "the port is taken: {refused:?}");
    drop(server);
    says(node, &["restart", "--time", "0", "web"]);
    let (web, web_space) = place(node, name, "web");
    let _server = Echo::at(&web_space, SocketAddr::new(web, 80));
    ask(&outside, Protocol::Tcp, door).unwrap_or_else(|e| panic!("after a restart: {e}"));
    says(node, &["rm", "--force", "--time", "0", "web", "db"]);
    node.assert_nothing_left("when the containers are gone");
}
