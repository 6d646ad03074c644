//! What the kubelet remembers of resources and of who holds their devices.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use node::finding::listed;
use node::store;
use serde::Deserialize;

use super::{Finding, daemon, sockets};
use crate::config::Config;
use crate::{inventory, session};

const WHAT: &str = "kubelet's checkpoint";
const NAME: &str = "kubelet_internal_checkpoint";

/// It grows with devices and pods, and is no larger.
const LARGEST: u64 = 64 << 20;

/// The part that is read here (pkg/kubelet/cm/devicemanager/checkpoint in Kubernetes' source).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    data: Data,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    /// What containers hold.
    pod_device_entries: Option<Vec<Held>>,
    /// By resource: the healthy devices that it had last.
    registered_devices: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Debug, Deserialize)]
struct Held {
    #[serde(rename = "PodUID")]
    pod: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    devices: Option<Ids>,
}

/// By NUMA node; a flat list before Kubernetes 1.20.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    ByNode(BTreeMap<String, Option<Vec<String>>>),
    Flat(Vec<String>),
}

impl Ids {
    fn all(&self) -> Vec<&str> {
        match self {
            Self::ByNode(nodes) => nodes.values().flatten().flatten().map(String::as_str).collect(),
            Self::Flat(ids) => ids.iter().map(String::as_str).collect(),
        }
    }
}

/// A resource as the kubelet remembers it.
#[derive(Debug, Default)]
struct Known<'a> {
    healthy: BTreeSet<&'a str>,
    held: BTreeSet<&'a str>,
    pods: BTreeSet<&'a str>,
}

/// Resources that nobody serves while pods hold them, that another plugin serves, whose devices went while a pod
/// has them, and that stay on the node without a device.
pub(super) fn checkpoint(config: &Config) -> Vec<Finding> {
    let path = config.kubelet.device_plugins.join(NAME);
    let text = match store::read_plain(&path, LARGEST) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::fine(WHAT, "not there yet: nothing was ever registered")];
        }
        Err(e) => {
            return vec![Finding::warning(WHAT, format!("`{}`: {e}", path.display()), "run as root")];
        }
    };
    let Ok(Checkpoint { data }) = serde_json::from_slice(&text) else {
        let why = format!("`{}` has another form than is known here", path.display());
        return vec![Finding::warning(WHAT, why, "nothing: the kubelet alone has to understand it")];
    };
    let pods = config.kubelet.device_plugins.parent().map(|root| root.join("pods"));
    let known = known(&data, pods.as_deref());
    let named = |name: &str| config.resources.iter().find(|resource| resource.name.as_str() == name);
    let own: Vec<String> = config.resources.iter().map(|r| session::socket_name(&r.name)).collect();
    let live = sockets::live(&config.kubelet);
    // Whose resource a socket of another plugin serves, nothing tells.
    let served = |name: &str| match named(name) {
        Some(resource) => live.contains(&session::socket_name(&resource.name)),
        None => live.iter().any(|socket| !own.contains(socket)),
    };
    let ours = |name: &str| named(name).is_some();
    let found: Vec<Finding> =
        known.iter().flat_map(|(name, known)| of_resource(name, known, ours(name), served(name))).collect();
    if found.is_empty() {
        return vec![Finding::fine(
            WHAT,
            format!("{} known to it, none without an offer", counted(known.len())),
        )];
    }
    found
}

/// What is remembered, by resource. The kubelet drops what a pod held when it next gives something away: of pods
/// whose folder is gone nothing is told.
fn known<'a>(data: &'a Data, pods: Option<&Path>) -> BTreeMap<&'a str, Known<'a>> {
    let mut all: BTreeMap<&str, Known<'_>> = BTreeMap::new();
    for (name, devices) in data.registered_devices.iter().flatten() {
        let known = all.entry(name).or_default();
        known.healthy.extend(devices.iter().flatten().map(String::as_str));
    }
    let pods = pods.filter(|folder| folder.is_dir());
    for held in data.pod_device_entries.iter().flatten() {
        if pods.is_some_and(|folder| !folder.join(&held.pod).exists()) {
            continue;
        }
        let known = all.entry(&held.resource).or_default();
        known.held.extend(held.devices.iter().flat_map(Ids::all));
        known.pods.insert(&held.pod);
    }
    all
}

/// A kubelet whose plugin has ended does not write that down before the next list of another one comes.
fn of_resource(name: &str, known: &Known<'_>, ours: bool, served: bool) -> Vec<Finding> {
    if known.healthy.is_empty() {
        return match (known.pods.is_empty(), ours) {
            (false, _) => vec![unserved(name, known, ours)],
            (true, false) => vec![ghost(name)],
            (true, true) => Vec::new(),
        };
    }
    if !ours {
        return if served || known.pods.is_empty() { Vec::new() } else { vec![unserved(name, known, ours)] };
    }
    let mut found = Vec::new();
    if let Some(foreign) = known.healthy.iter().find(|id| !inventory::id::is_one(id)) {
        let why = format!(
            "another plugin registered `{name}`, too: its device `{foreign}` is none of this configuration's"
        );
        let remedy = "the kubelet listens to the last one that registered: end the other plugin, or give one of \
                      the two resources another name";
        found.push(Finding::problem(WHAT, why, remedy));
        return found;
    }
    if !served {
        // Without pods, the finding about the daemon says it.
        return if known.pods.is_empty() { found } else { vec![unserved(name, known, ours)] };
    }
    let gone: Vec<&str> = known.held.difference(&known.healthy).copied().collect();
    if !gone.is_empty() {
        let why =
            format!("a pod holds {} of `{name}`, which can't be had now ({})", listed(&gone), pods(known));
        let remedy = format!(
            "`nodeplug-device-plugin explain {name}` says why; plug it in, or delete the pod: the kubelet does not"
        );
        found.push(Finding::warning(WHAT, why, remedy));
    }
    found
}

/// Pods run with its devices, and none of them would start again.
fn unserved(name: &str, known: &Known<'_>, ours: bool) -> Finding {
    let why = format!("nobody serves `{name}`, of which pods hold devices ({})", pods(known));
    let start = if ours {
        format!("start the daemon: `{}`", daemon::start())
    } else {
        "start the plugin that offered it, or put the resource into this configuration".to_owned()
    };
    Finding::problem(WHAT, why, format!("{start}; until then no container with it starts again"))
}

fn pods(known: &Known<'_>) -> String {
    let uids: Vec<&str> = known.pods.iter().copied().collect();
    let plural = if uids.len() == 1 { "pod" } else { "pods" };
    format!("{plural} {}: `crictl pods --label io.kubernetes.pod.uid=UID` has the name", listed(&uids))
}

fn counted(count: usize) -> String {
    if count == 1 { "1 resource is".to_owned() } else { format!("{count} resources are") }
}

/// A resource that the node shows though nobody offers it.
fn ghost(name: &str) -> Finding {
    Finding::warning(
        WHAT,
        format!(
            "the kubelet knows `{name}` without a healthy device, and this configuration does not offer it"
        ),
        format!(
            "where no other plugin offers it, take it off five minutes after its plugin ended: `{}`",
            patch(name)
        ),
    )
}

/// The command that takes a resource off the node's status.
fn patch(name: &str) -> String {
    // A JSON pointer: RFC 6901, section 3.
    let pointer = name.replace('~', "~0").replace('/', "~1");
    format!(
        "kubectl patch node NAME --subresource=status --type=json \
         -p '[{{\"op\":\"remove\",\"path\":\"/status/capacity/{pointer}\"}}]'"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use node::finding::State;

    use super::super::process::tests::Folder;
    use super::*;
    use crate::config::Kubelet;

    const OURS: &str = "example.com/ours";

    fn config(temp: &Folder) -> Config {
        let text = "resources: [{name: example.com/ours, devices: [{count: 1}]}]";
        let kubelet = Kubelet { device_plugins: temp.folder("device-plugins"), ..Kubelet::default() };
        Config { kubelet, ..Config::parse(text).unwrap() }
    }

    fn remembers(temp: &Folder, entries: &str, registered: &str) {
        let text = format!(
            r#"{{"Data":{{"PodDeviceEntries":{entries},"RegisteredDevices":{registered}}},"Checksum":1}}"#
        );
        temp.write("device-plugins/kubelet_internal_checkpoint", &text);
    }

    #[test]
    fn a_resource_that_nobody_offers_is_a_ghost() {
        let temp = Folder::new("checkpoint");
        let config = config(&temp);
        assert_eq!(checkpoint(&config).first().unwrap().state, State::Fine, "not there yet");
        let registered = r#"{"example.com/ours":[],"example.com/others":["a"],"example.com/old":[],"example.com/null":null}"#;
        remembers(&temp, "null", registered);
        let found = checkpoint(&config);
        let names: Vec<&str> = found.iter().filter_map(|f| f.why.split('`').nth(1)).collect();
        assert_eq!(names, ["example.com/null", "example.com/old"]);
        assert!(found[1].remedy.as_ref().unwrap().contains("/status/capacity/example.com~1old"));
        for (text, state) in
            [(r#"{"Data":{"RegisteredDevices":null},"Checksum":1}"#, State::Fine), ("{}", State::Warning)]
        {
            temp.write("device-plugins/kubelet_internal_checkpoint", text);
            assert_eq!(checkpoint(&config).first().unwrap().state, state, "{text}");
        }
        let path = temp.path("device-plugins/kubelet_internal_checkpoint");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(checkpoint(&config)[0].why.contains("it is no plain file"));
    }

    #[test]
    fn what_pods_hold_and_nobody_serves_is_a_problem_as_long_as_the_pods_are_there() {
        let temp = Folder::new("unserved");
        let config = config(&temp);
        let socket = |name: &str| UnixListener::bind(temp.path(&format!("device-plugins/{name}"))).unwrap();
        let (_own, other) = (socket(&session::socket_name(&config.resources[0].name)), socket("other.sock"));
        let id = inventory::id(OURS, "count:0", 0);
        let held = format!(
            r#"[{{"PodUID":"u-1","ContainerName":"c","ResourceName":"{OURS}","DeviceIDs":{{"-1":["{id}"]}}}},
                {{"PodUID":"u-2","ContainerName":"c","ResourceName":"x.y/flat","DeviceIDs":["a"]}}]"#
        );
        remembers(&temp, &held, &format!(r#"{{"{OURS}":[],"x.y/flat":null}}"#));
        let states = |expect: &[(&str, State)]| {
            let found = checkpoint(&config);
            let told: Vec<(bool, State)> =
                found.iter().zip(expect).map(|(f, (has, _))| (f.why.contains(has), f.state)).collect();
            let expect: Vec<(bool, State)> = expect.iter().map(|(_, state)| (true, *state)).collect();
            assert_eq!((told, found.len()), (expect.clone(), expect.len()), "{found:?}");
        };
        states(&[("`example.com/ours`", State::Problem), ("`x.y/flat`", State::Problem)]);
        // The kubelet has forgotten the second pod's folder, and not what it held.
        temp.folder("pods/u-1");
        states(&[("`example.com/ours`", State::Problem), ("knows `x.y/flat` without", State::Warning)]);
        remembers(&temp, &held, &format!(r#"{{"{OURS}":["{id}"],"x.y/flat":["a"]}}"#));
        states(&[("none without an offer", State::Fine)]);
        // The kubelet has not written down that the other plugin ended.
        temp.folder("pods/u-2");
        drop(other);
        states(&[("nobody serves `x.y/flat`", State::Problem)]);
        let other = inventory::id(OURS, "count:1", 0);
        remembers(&temp, &held, &format!(r#"{{"{OURS}":["{other}"]}}"#));
        states(&[("a pod holds", State::Warning), ("nobody serves `x.y/flat`", State::Problem)]);
    }

    #[test]
    fn a_resource_of_another_plugin_is_told_by_its_devices() {
        let temp = Folder::new("foreign");
        let config = config(&temp);
        let path = temp.path(&format!("device-plugins/{}", session::socket_name(&config.resources[0].name)));
        let _own = UnixListener::bind(path).unwrap();
        for (id, state) in
            [("GPU-7f", State::Problem), (inventory::id(OURS, "count:0", 2).as_str(), State::Fine)]
        {
            remembers(&temp, "null", &format!(r#"{{"{OURS}":["{id}"]}}"#));
            assert_eq!(checkpoint(&config).first().unwrap().state, state, "{id}");
        }
    }
}
