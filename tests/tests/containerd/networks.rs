//! The conflists that nodes here have.

use harness::container_node::ContainerNode;
use harness::suite::pods;
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// The pods' ranges.
pub const SUBNETS: [&str; 2] = ["10.66.0.0/16", "fd66::/64"];

/// A test that needs containerd.
pub fn containerd(name: &'static str, body: fn(&ContainerNode)) -> Trial {
    pods(name, &["containerd", "ctr", "containerd-shim-runc-v2", "runc", "busybox", "tar"], body)
}

/// Everything that a usual cluster asks for, in one entry of ours.
pub fn whole(mode: &str, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|s| json!([{ "subnet": s }])).collect();
    let routes: Vec<Value> =
        subnets.iter().map(|s| json!({"dst": if s.contains(':') { "::/0" } else { "0.0.0.0/0" }})).collect();
    let mut entry = json!({
        "type": "nodeplug-cni", "mode": mode, "ipMasq": true, "firewall": true,
        "capabilities": {"portMappings": true, "bandwidth": true},
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes, "cooldownSeconds": 0},
    });
    if mode == "bridge" {
        entry["bridge"] = json!("cni0");
        entry["isGateway"] = json!(true);
        entry["hairpinMode"] = json!(true);
    }
    list("pods", &[entry])
}

/// The same of the reference's plugins.
pub fn chain(subnet: &str) -> Value {
    let ipam =
        json!({"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]});
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ipam,
    });
    let rest = [
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
        json!({"type": "firewall"}),
    ];
    list("pods", &[vec![bridge], rest.to_vec()].concat())
}

/// A network of these entries, in the newest version that containerd 1.6 speaks.
pub fn list(name: &str, entries: &[Value]) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "plugins": entries})
}
