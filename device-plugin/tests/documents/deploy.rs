//! What is in `deploy/` is what the daemon takes, and grants it no more than it needs.

use std::fs;
use std::path::Path;

use device_plugin::config::Config;
use serde_json::{Value, json};

fn text(name: &str) -> String {
    super::page::text(&format!("deploy/{name}"))
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The value at a JSON pointer.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"))
}

fn config() -> Config {
    let map = yaml("configmap.yaml");
    let text = at(&map, "/data/device-plugin.yaml").as_str().unwrap();
    Config::parse(text).unwrap_or_else(|e| panic!("{}", e.chain()))
}

const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

#[test]
fn every_manifest_is_yaml_with_a_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") {
            assert!(at(&yaml(&name), "/kind").is_string(), "{name}");
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn the_examples_of_the_configmap_are_a_configuration() {
    let config = config();
    let names: Vec<&str> = config.resources.iter().map(|resource| resource.name.as_str()).collect();
    let domain: Vec<String> = ["serial", "camera", "kvm", "fuse", "tpm", "gpu", "licence"]
        .iter()
        .map(|name| format!("example.com/{name}"))
        .collect();
    assert_eq!(names, domain);
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
}

#[test]
fn the_daemon_has_no_right_that_it_does_not_need() {
    let set = yaml("daemonset.yaml");
    for (pointer, expect) in [
        ("/securityContext/runAsUser", json!(0)),
        ("/securityContext/privileged", json!(false)),
        ("/securityContext/allowPrivilegeEscalation", json!(false)),
        ("/securityContext/readOnlyRootFilesystem", json!(true)),
        ("/securityContext/capabilities", json!({"drop": ["ALL"]})),
        ("/resources/limits/memory", json!("32Mi")),
        ("/resources/requests/memory", json!("32Mi")),
    ] {
        assert_eq!(at(&set, &format!("{CONTAINER}{pointer}")), &expect, "{pointer}");
    }
    for (pointer, expect) in [
        ("/securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ("/automountServiceAccountToken", json!(false)),
        ("/priorityClassName", json!("system-node-critical")),
        ("/tolerations", json!([{"operator": "Exists"}])),
    ] {
        assert_eq!(at(&set, &format!("{POD}{pointer}")), &expect, "{pointer}");
    }
    for own in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        assert_eq!(at(&set, POD).get(own), None, "{own}");
    }
    assert_eq!(
        at(&set, "/spec/updateStrategy/rollingUpdate"),
        &json!({"maxSurge": 0, "maxUnavailable": "10%"})
    );
}

#[test]
fn the_node_may_be_written_in_the_kubelets_folder_alone() {
    let set = yaml("daemonset.yaml");
    let of_node: Vec<&str> = at(&set, &format!("{POD}/volumes"))
        .as_array()
        .unwrap()
        .iter()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| volume["name"].as_str().unwrap())
        .collect();
    let mounts = at(&set, &format!("{CONTAINER}/volumeMounts")).as_array().unwrap();
    let writable: Vec<&str> = mounts
        .iter()
        .filter(|mount| mount.get("readOnly") != Some(&json!(true)))
        .map(|mount| mount["name"].as_str().unwrap())
        .filter(|name| of_node.contains(name))
        .collect();
    assert_eq!(writable, ["device-plugins"]);
}

#[test]
fn the_configuration_names_what_the_daemonset_mounts_and_opens() {
    let (set, config) = (yaml("daemonset.yaml"), config());
    let mounts = at(&set, &format!("{CONTAINER}/volumeMounts")).as_array().unwrap();
    let is_mounted =
        |path: &Path| mounts.iter().any(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()));
    for path in [
        &config.host.dev,
        &config.host.sys,
        &config.kubelet.device_plugins,
        &config.kubelet.pod_resources,
        &config.http.socket,
    ] {
        assert!(is_mounted(path), "{}", path.display());
    }
    let args = at(&set, &format!("{CONTAINER}/args")).as_array().unwrap();
    assert!(args.iter().filter_map(Value::as_str).any(|arg| arg == device_plugin::config::PATH), "{args:?}");
    assert!(is_mounted(Path::new(device_plugin::config::PATH)));
    let port = at(&set, &format!("{CONTAINER}/ports/0"));
    assert_eq!(port["containerPort"], json!(config.http.listen.unwrap().port()));
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(at(&set, &format!("{CONTAINER}/{probe}/httpGet/port")), &port["name"]);
    }
    assert_eq!(at(&yaml("podmonitor.yaml"), "/spec/podMetricsEndpoints/0/port"), &port["name"]);
    let labels = at(&set, "/spec/template/metadata/labels");
    assert_eq!(at(&yaml("podmonitor.yaml"), "/spec/selector/matchLabels"), labels);
}

#[test]
fn the_unit_starts_before_the_kubelet_and_has_no_capability() {
    let unit = text("nodeplug-device-plugin.service");
    for line in [
        "Before=kubelet.service",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "PrivateUsers=no",
        "RuntimeDirectoryPreserve=yes",
    ] {
        assert!(unit.lines().any(|own| own == line), "{line}");
    }
}
