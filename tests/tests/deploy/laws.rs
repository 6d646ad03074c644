//! What is to hold of every set of objects that is applied at once.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

use crate::objects::Object;

/// The namespace of everything that has one.
pub const NAMESPACE: &str = "kube-system";
/// The image of scripts/image.
pub const IMAGE: &str = concat!("localhost/nodeplug:", env!("CARGO_PKG_VERSION"));
/// Kubernetes' own, by the name that an operator gives another to.
const KUBECTL: &str = "kubectl:";

/// The DaemonSets of a set.
pub fn sets(objects: &[Object]) -> impl Iterator<Item = (&DaemonSet, &PodSpec)> {
    objects.iter().filter_map(|object| match object {
        Object::DaemonSet(set) => Some((&**set, pod(set))),
        _ => None,
    })
}

/// What its pods are.
pub fn pod(set: &DaemonSet) -> &PodSpec {
    set.spec.template.spec.as_ref().expect("a pod's spec")
}

/// All of them.
pub fn hold(objects: &[Object]) {
    identities(objects);
    rights(objects);
    for (set, pod) in sets(objects) {
        labels(set);
        references(objects, set, pod);
        for container in &pod.containers {
            mounts(pod, container);
            images(container);
            privileges(pod, container);
        }
        volumes(pod);
        node(set, pod);
    }
}

fn identities(objects: &[Object]) {
    let all: Vec<_> = objects.iter().map(Object::identity).collect();
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "two of one name: {all:?}");
    for (kind, namespace, name) in &all {
        let expect = (!kind.starts_with("Cluster")).then_some(NAMESPACE);
        assert_eq!(namespace.as_deref(), expect, "{kind} {name}");
        assert!(name.starts_with("nodeplug-"), "{kind} {name}");
    }
}

fn labels(set: &DaemonSet) {
    let spec = &set.spec;
    let name = set.metadata.name.as_deref().expect("a name");
    let meta = spec.template.metadata.as_ref().expect("the template's metadata");
    let own = set.metadata.labels.as_ref().expect("labels");
    let selected = spec.selector.match_labels.as_ref().expect("a selector");
    let given = meta.labels.as_ref().expect("the pods' labels");
    assert!(selected.iter().all(|(key, value)| given.get(key) == Some(value)), "{name} selects other pods");
    assert_eq!(own["app.kubernetes.io/name"], name);
    assert_eq!(selected["app.kubernetes.io/name"], name);
    assert_eq!(own["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"), "{name}");
    // Two on a node would undo each other's work.
    let strategy =
        spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()).expect("rolling updates");
    assert_eq!(serde_json::to_value(&strategy.max_surge).unwrap(), 0, "{name}");
}

/// What a pod names is applied with it.
fn references(objects: &[Object], set: &DaemonSet, pod: &PodSpec) {
    let has = |kind: &str, name: &str| {
        objects.iter().any(|o| (o.identity().0, o.identity().2.as_str()) == (kind, name))
    };
    if let Some(account) = &pod.service_account_name {
        assert!(has("ServiceAccount", account), "no account `{account}`");
    }
    for volume in pod.volumes.iter().flatten() {
        if let Some(map) = &volume.config_map {
            assert!(has("ConfigMap", &map.name), "{:?} names no ConfigMap that is there", set.metadata.name);
        }
    }
    assert_eq!(pod.automount_service_account_token, Some(false), "a token is mounted where it is used");
}

/// Who may do what is for a ServiceAccount of the set, and no more than reading nodes.
fn rights(objects: &[Object]) {
    for object in objects {
        match object {
            Object::ClusterRole(role) => {
                let rules = serde_json::to_value(&role.rules).unwrap();
                let expect =
                    serde_json::json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]);
                assert_eq!(rules, expect);
            }
            Object::ClusterRoleBinding(binding) => {
                let of = (binding.role_ref.kind.as_str(), binding.role_ref.name.clone());
                assert!(objects.iter().any(|o| (o.identity().0, o.identity().2) == of), "{of:?}");
                for subject in binding.subjects.iter().flatten() {
                    let wanted = ("ServiceAccount", subject.namespace.clone(), subject.name.clone());
                    assert!(objects.iter().any(|o| o.identity() == wanted), "{wanted:?}");
                }
            }
            _ => {}
        }
    }
}

fn mounts(pod: &PodSpec, container: &Container) {
    let named: Vec<&str> = pod.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    let mut paths = BTreeSet::new();
    for mount in container.volume_mounts.iter().flatten() {
        assert!(named.contains(&mount.name.as_str()), "no volume `{}`", mount.name);
        assert!(paths.insert(&mount.mount_path), "two mounts at `{}`", mount.mount_path);
    }
}

fn volumes(pod: &PodSpec) {
    let mut names = BTreeSet::new();
    for volume in pod.volumes.iter().flatten() {
        assert!(names.insert(&volume.name), "two volumes `{}`", volume.name);
        let mounted = pod.containers.iter().flat_map(|c| c.volume_mounts.iter().flatten());
        assert!(
            mounted.into_iter().any(|mount| mount.name == volume.name),
            "nobody mounts `{}`",
            volume.name
        );
    }
}

fn images(container: &Container) {
    let image = container.image.as_deref().expect("an image");
    assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"), "{image}");
    if let Some(command) = &container.command {
        assert_eq!(image, IMAGE);
        let program = command[0].strip_prefix('/').expect("a path");
        assert!(crate::archive::PROGRAMS.contains(&program), "`{program}` is not in the image");
    } else {
        assert!(image.starts_with(KUBECTL), "`{image}` has no command of its own");
    }
    let probed = [&container.readiness_probe, &container.liveness_probe].into_iter().flatten();
    for probe in probed.filter_map(|probe| probe.exec.as_ref()) {
        let program = probe.command.as_ref().expect("a command")[0].as_str();
        let mounted = container.volume_mounts.iter().flatten().any(|m| program.starts_with(&m.mount_path));
        let own = container.command.as_ref().is_some_and(|command| command[0] == program);
        assert!(own || mounted, "there is no shell, and no `{program}`");
    }
}

/// uid 0 and what its files allow; nothing else.
fn privileges(pod: &PodSpec, container: &Container) {
    let name = &container.name;
    let security = container.security_context.as_ref().expect("a security context");
    assert_eq!((security.run_as_user, security.run_as_group), (Some(0), Some(0)), "{name}");
    assert_eq!(security.privileged, Some(false), "{name}");
    assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
    assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
    let capabilities = security.capabilities.as_ref().expect("capabilities");
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]), "{name}");
    assert_eq!(capabilities.add, None, "{name}");
    let seccomp = pod.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    assert_eq!(seccomp.map(|profile| profile.type_.as_str()), Some("RuntimeDefault"), "{name}");
    assert_eq!((pod.host_pid, pod.host_ipc, pod.share_process_namespace), (None, None, None), "{name}");
    let resources = container.resources.as_ref().expect("resources");
    let (requests, limits) = (resources.requests.as_ref().unwrap(), resources.limits.as_ref().unwrap());
    assert!(requests.contains_key("cpu") && requests.contains_key("memory"), "{name}");
    assert!(
        limits.contains_key("memory") && !limits.contains_key("cpu"),
        "{name}: a CPU limit would throttle it"
    );
}

/// It comes to each node, and before other pods.
fn node(set: &DaemonSet, pod: &PodSpec) {
    let name = &set.metadata.name;
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-node-critical"), "{name:?}");
    let tolerations = serde_json::to_value(&pod.tolerations).unwrap();
    assert_eq!(tolerations, serde_json::json!([{"operator": "Exists"}]), "{name:?}");
    let selector = pod.node_selector.as_ref().expect("a node selector");
    assert_eq!(selector.get("kubernetes.io/os").map(String::as_str), Some("linux"), "{name:?}");
}

/// The folders of the node that a container sees: those that it may write, and those that it may read.
pub fn of_node(pod: &PodSpec) -> (Vec<&str>, Vec<&str>) {
    let path =
        |volume: &Volume| volume.host_path.as_ref().map(|host| (volume.name.clone(), host.path.clone()));
    let hosts: Vec<_> = pod.volumes.iter().flatten().filter_map(path).collect();
    let mounts = pod.containers.iter().flat_map(|c| c.volume_mounts.iter().flatten());
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for mount in mounts {
        if hosts.iter().any(|(name, _)| *name == mount.name) {
            let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
            let path = volume.and_then(|v| v.host_path.as_ref()).map_or("", |host| host.path.as_str());
            if mount.read_only == Some(true) { read.push(path) } else { written.push(path) }
        }
    }
    written.sort_unstable();
    read.sort_unstable();
    (written, read)
}

/// What of a pod the levels of the Pod Security Standards below `privileged` forbid
/// (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).
pub fn beyond_baseline(pod: &PodSpec) -> Vec<&'static str> {
    let mut beyond = Vec::new();
    if pod.host_network == Some(true) || pod.host_pid == Some(true) || pod.host_ipc == Some(true) {
        beyond.push("host namespaces");
    }
    if pod.volumes.iter().flatten().any(|volume| volume.host_path.is_some()) {
        beyond.push("hostPath volumes");
    }
    let ports = pod.containers.iter().flat_map(|c| c.ports.iter().flatten());
    if ports.into_iter().any(|port| port.host_port.is_some()) {
        beyond.push("host ports");
    }
    beyond
}
