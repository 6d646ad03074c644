//! The manifests, as they are written and as kubectl renders them.

use std::collections::BTreeSet;

use harness::suite::{plain, with_tools};
use k8s_openapi::api::apps::v1::DaemonSet;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::folders::{
    self, BESIDE, FOLDERS, OVERLAYS, documents, files, kustomization, text, words, written,
};
use crate::laws;
use crate::objects::{self, Object};

pub fn trials() -> Vec<Trial> {
    vec![
        plain("a_misspelt_key_is_found", objects::a_misspelt_key_is_found),
        plain("every_manifest_is_of_kubernetes_types_and_the_laws_hold", typed),
        plain("every_manifest_is_in_its_folder_s_kustomization", listed),
        plain("the_objects_of_the_pages_are_of_kubernetes_types", pages),
        plain("each_container_sees_of_the_node_what_it_needs", mounts),
        plain("host_paths_need_the_level_privileged_and_nothing_else_does", level),
        plain("an_overlay_changes_the_mounts_of_one_folder", overlays),
        plain("one_installer_is_the_other_but_for_the_source_of_addresses", twins),
        plain("the_example_s_list_of_nodes_is_one", list),
        plain("the_api_is_asked_for_one_node_by_one_container", asked),
        with_tools("kubectl_renders_what_is_written", &["kubectl"], rendered),
    ]
}

fn read(what: &str, values: &[Value]) -> Vec<Object> {
    let read =
        |value: &Value| Object::read(value).unwrap_or_else(|e| panic!("{what}: {} {e}", value["kind"]));
    values.iter().map(read).collect()
}

/// The one DaemonSet of a folder.
pub fn set(folder: &str) -> DaemonSet {
    let is_overlay = OVERLAYS.contains(&folder);
    let objects = read(folder, &if is_overlay { folders::overlaid(folder) } else { written(folder) });
    let mut sets = laws::sets(&objects).map(|(set, _)| set.clone());
    let set = sets.next().unwrap_or_else(|| panic!("{folder} has no DaemonSet"));
    assert!(sets.next().is_none(), "{folder} has two");
    set
}

fn typed() {
    for folder in FOLDERS {
        let objects = read(folder, &written(folder));
        assert!(!objects.is_empty(), "{folder}");
        laws::hold(&objects);
    }
}

fn listed() {
    for folder in FOLDERS {
        let kustomization = kustomization(folder);
        let mut named = words(&kustomization["resources"]);
        named.extend(["kustomization.yaml"].iter().chain(&BESIDE));
        for file in files(folder) {
            assert!(named.contains(&file.as_str()), "{folder}/{file} is applied by nobody");
        }
        assert_eq!(kustomization["namespace"], laws::NAMESPACE);
    }
    let root = kustomization(".");
    assert_eq!(words(&root["resources"]), FOLDERS[..3]);
    assert_eq!(root["namespace"], laws::NAMESPACE);
}

fn pages() {
    let mut count = 0;
    for page in ["README.md", "cni/README.md", "flexvolume/README.md", "device-plugin/README.md"] {
        let objects = folders::of_page(page);
        count += read(page, &objects).len();
    }
    assert!(count >= 10, "{count} objects in all pages");
}

fn mounts() {
    let kubelet = "/var/lib/kubelet";
    let plugins = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";
    let (devices, resources) = (format!("{kubelet}/device-plugins"), format!("{kubelet}/pod-resources"));
    let cni = ["/etc/cni/net.d", "/opt/cni/bin", "/var/lib/nodeplug/cni"];
    let expect: [(&str, &[&str], &[&str]); 4] = [
        ("cni/deploy", &cni, &["/etc/containerd"]),
        ("cni/deploy-file", &cni, &["/etc/containerd"]),
        ("flexvolume/deploy", &[plugins], &[]),
        ("device-plugin/deploy", &[&devices], &["/dev", "/sys", &resources]),
    ];
    for (folder, written, read) in expect {
        let object = Object::DaemonSet(Box::new(set(folder)));
        let objects = [object];
        let (_, pod) = laws::sets(&objects).next().unwrap();
        assert_eq!(laws::of_node(pod), (written.to_vec(), read.to_vec()), "{folder}");
    }
}

fn level() {
    for (folder, expect) in [
        ("cni/deploy", &["host namespaces", "hostPath volumes"][..]),
        ("cni/deploy-file", &["host namespaces", "hostPath volumes"]),
        ("flexvolume/deploy", &["host namespaces", "hostPath volumes"]),
        ("device-plugin/deploy", &["hostPath volumes"]),
    ] {
        let objects = [Object::DaemonSet(Box::new(set(folder)))];
        let (_, pod) = laws::sets(&objects).next().unwrap();
        assert_eq!(laws::beyond_baseline(pod), expect, "{folder}");
    }
}

fn overlays() {
    let k3s = "/var/lib/rancher/k3s/agent/etc/containerd";
    let expect = [("/opt/cni/bin", "/usr/lib/cni"), ("/etc/containerd", k3s)];
    for (folder, (from, to)) in OVERLAYS.into_iter().zip(expect) {
        assert_eq!(files(folder), ["kustomization.yaml"]);
        let objects = folders::overlaid(folder);
        laws::hold(&read(folder, &objects));
        let changed = json!(set(folder)).to_string();
        let back = changed.replace(&format!("\"/host{to}\""), &format!("\"/host{from}\""));
        let back = back.replace(&format!("\"{to}\""), &format!("\"{from}\""));
        assert_ne!(changed, back, "{folder}");
        assert_eq!(back, json!(set("cni/deploy")).to_string(), "{folder}");
    }
}

/// Takes the entries of these names out of a list.
fn without(list: &mut Value, names: &[&str]) {
    let list = list.as_array_mut().expect("a list");
    list.retain(|entry| !names.iter().any(|name| entry["name"] == *name));
}

fn twins() {
    let [mut one, mut other] = ["cni/deploy", "cni/deploy-file"].map(|folder| json!(set(folder)));
    for set in [&mut one, &mut other] {
        let pod = set.pointer_mut("/spec/template/spec").unwrap();
        pod.as_object_mut().unwrap().remove("serviceAccountName");
        without(&mut pod["containers"], &["kubectl"]);
        without(&mut pod["volumes"], &["kube", "token", "nodes"]);
        without(&mut pod["containers"][0]["volumeMounts"], &["kube", "nodes"]);
        let args = pod["containers"][0]["args"].as_array_mut().unwrap();
        let source = |arg: &Value| {
            arg.as_str().is_some_and(|arg| arg.contains("=/run/kube/") || arg.contains("-file="))
        };
        let before = args.len();
        args.retain(|arg| !source(arg));
        assert_eq!(args.len(), before - 1, "one source");
    }
    assert_eq!(one, other);
}

fn list() {
    let map = documents("configmap", &text("cni/deploy-file/configmap.yaml")).remove(0);
    let set = json!(set("cni/deploy-file"));
    let args = words(set.pointer("/spec/template/spec/containers/0/args").unwrap());
    let file =
        args.iter().find_map(|arg| arg.strip_prefix("--pod-cidr-file=/etc/nodeplug/")).expect("a file");
    let text = map["data"][file].as_str().expect("the file in the ConfigMap");
    let Object::Nodes(nodes) = Object::read(&documents(file, text)[0]).unwrap() else {
        panic!("no list of nodes")
    };
    let cidrs =
        nodes.items.iter().flat_map(|node| node.spec.iter().flat_map(|s| s.pod_cidrs.iter().flatten()));
    let different: BTreeSet<&String> = cidrs.clone().collect();
    assert_eq!((nodes.items.len(), different.len(), cidrs.count()), (2, 4, 4));
}

/// The token is in no other container, and its proxy lets one question through.
fn asked() {
    let objects = [Object::DaemonSet(Box::new(set("cni/deploy")))];
    let (_, pod) = laws::sets(&objects).next().unwrap();
    let has_token = |volume: &str| {
        let volume = pod.volumes.iter().flatten().find(|v| v.name == volume);
        volume.and_then(|v| v.projected.as_ref()).is_some()
    };
    for container in &pod.containers {
        let token = container.volume_mounts.iter().flatten().any(|mount| has_token(&mount.name));
        assert_eq!(token, container.name == "kubectl", "{}", container.name);
    }
    let kubectl = pod.containers.iter().find(|container| container.name == "kubectl").unwrap();
    let args = kubectl.args.as_ref().unwrap();
    assert!(args.contains(&"--accept-paths=^/api/v1/nodes/$(NODE_NAME)$".to_owned()), "{args:?}");
}

fn rendered() {
    let mut parts = Vec::new();
    for (n, folder) in FOLDERS.into_iter().enumerate() {
        let rendered = folders::rendered(folder);
        laws::hold(&read(folder, &rendered));
        assert_eq!(sorted(&rendered), sorted(&written(folder)), "{folder}");
        if n < 3 {
            parts.extend(rendered);
        }
    }
    for folder in OVERLAYS {
        // An older one has no patches like these either.
        if folders::takes_folders() {
            assert_eq!(sorted(&folders::rendered(folder)), sorted(&folders::overlaid(folder)), "{folder}");
        }
    }
    let all = folders::rendered_root();
    laws::hold(&read("kustomization.yaml", &all));
    assert_eq!(sorted(&all), sorted(&parts), "all is what the parts are");
}

fn sorted(values: &[Value]) -> BTreeSet<String> {
    // A BTreeMap's order in each, whatever the order of its keys was.
    fn ordered(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let sorted: std::collections::BTreeMap<_, _> =
                    map.iter().map(|(k, v)| (k, ordered(v))).collect();
                json!(sorted)
            }
            Value::Array(list) => list.iter().map(ordered).collect(),
            other => other.clone(),
        }
    }
    values.iter().map(|value| ordered(value).to_string()).collect()
}
