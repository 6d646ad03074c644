//! The networks that the tests use, and the words for what is common to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

/// Both ways to attach.
pub const MODES: [&str; 2] = ["routed", "bridge"];
/// The node's uplink addresses, and those of the machine outside.
pub const NODE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1))];
/// See [`NODE`].
pub const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 2))];
/// The network's name.
pub const NAME: &str = "pods";

/// One IPv4 range, no masquerade, freed addresses reusable at once.
pub fn plain(mode: &str) -> Value {
    network(mode, &["10.66.0.0/24"])
}

/// Both families and masquerade.
pub fn full(mode: &str) -> Value {
    let mut config = network(mode, &["10.66.0.0/24", "fd66::/64"]);
    config["ipMasq"] = json!(true);
    config
}

/// A network of these ranges.
pub fn network(mode: &str, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|s| json!([{ "subnet": s }])).collect();
    let routes: Vec<Value> =
        subnets.iter().map(|s| json!({"dst": if s.contains(':') { "::/0" } else { "0.0.0.0/0" }})).collect();
    let mut config = json!({
        "cniVersion": "1.1.0",
        "name": NAME,
        "type": "nodeplug-cni",
        "mode": mode,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes, "cooldownSeconds": 0},
    });
    if mode == "bridge" {
        config["bridge"] = json!("cni0");
        config["isGateway"] = json!(true);
    }
    config
}

/// A container id of the shape that containerd makes, from a short word.
pub fn id(word: &str) -> String {
    let hex: String = word.bytes().map(|b| format!("{b:02x}")).collect();
    format!("{hex:0<64}")
}

/// The addresses of a result, without prefix lengths.
pub fn ips(result: &Value) -> Vec<IpAddr> {
    let list = result["ips"].as_array().cloned().unwrap_or_default();
    let texts = list.iter().map(|i| i["address"].as_str().expect("an address").to_owned());
    texts.map(|t| t.split('/').next().unwrap_or_default().parse().expect("an address")).collect()
}

/// The name of the host end in a result: the link without a sandbox that is no bridge.
pub fn host_end(result: &Value) -> String {
    let list = result["interfaces"].as_array().cloned().unwrap_or_default();
    let mut names = list
        .iter()
        .filter(|i| i["sandbox"].as_str().unwrap_or_default().is_empty())
        .map(|i| i["name"].as_str().unwrap_or_default().to_owned());
    names.find(|n| n != "cni0").expect("a host end in the result")
}
