//! Calls a plugin as containerd does: environment, argument order, compact sorted JSON on standard input.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};

use crate::call::{self, Answer, Launch};
use crate::node::{Namespace, PLUGINS};

/// Whose plugins a test drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The plugin of this repository.
    Ours,
    /// Debian's containernetworking-plugins: shows that the harness itself is right.
    Reference,
}

/// `NODEPLUG_TEST_FLAVOUR=reference` drives the reference in place of ours.
pub fn flavour() -> Flavour {
    match std::env::var("NODEPLUG_TEST_FLAVOUR").as_deref() {
        Ok("reference") => Flavour::Reference,
        _ => Flavour::Ours,
    }
}

/// One call, before it is made.
#[derive(Debug, Clone)]
pub struct Call {
    /// The program's file name below [`PLUGINS`].
    pub plugin: String,
    /// `CNI_*` and its value.
    pub env: Vec<(String, String)>,
    /// The bytes on standard input.
    pub stdin: Vec<u8>,
}

impl Call {
    /// Sets a variable, replacing an earlier value.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.retain(|(k, _)| k != key);
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.env.retain(|(k, _)| k != key);
        self
    }

    /// Replaces standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        bytes.clone_into(&mut self.stdin);
        self
    }

    /// Makes the call.
    #[track_caller]
    pub fn run(&self) -> Answer {
        call::run(&mut self.command(), &self.stdin)
    }
}

impl Launch for Call {
    /// containerd's own variables beside the protocol's.
    fn command(&self) -> Command {
        let mut command = Command::new(PathBuf::from(PLUGINS).join(&self.plugin));
        command.env_clear().current_dir("/").envs(self.env.iter().cloned());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock");
        command
    }

    fn input(&self) -> Option<&[u8]> {
        Some(&self.stdin)
    }
}

/// A runtime that knows one network.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The plugin's configuration without what the runtime adds.
    pub config: Value,
    flavour: Flavour,
}

impl Runtime {
    /// A runtime of `config`, which names our plugin and our keys; see [`flavour`].
    pub fn new(config: Value) -> Self {
        Self::of(flavour(), config)
    }

    /// A runtime of one flavour. For the reference, our keys are translated into its own.
    pub fn of(flavour: Flavour, config: Value) -> Self {
        let config = if flavour == Flavour::Reference { translated(config) } else { config };
        Self { config, flavour }
    }

    /// Whose plugin it calls.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// ADD of eth0 for the container `id`.
    #[track_caller]
    pub fn add(&self, id: &str, pod: &Namespace) -> Answer {
        self.call("ADD", id, pod.name(), None).run()
    }

    /// ADD that must succeed: its result.
    #[track_caller]
    pub fn added(&self, id: &str, pod: &Namespace) -> Value {
        self.add(id, pod).success()
    }

    /// CHECK with the result of the ADD.
    #[track_caller]
    pub fn check(&self, id: &str, pod: &Namespace, previous: &Value) -> Answer {
        self.call("CHECK", id, pod.name(), Some(previous)).run()
    }

    /// DEL with the result of the ADD, as at a pod's end.
    #[track_caller]
    pub fn del(&self, id: &str, pod: &Namespace, previous: &Value) -> Answer {
        self.call("DEL", id, pod.name(), Some(previous)).run()
    }

    /// DEL with `CNI_NETNS` empty and no prevResult, as containerd's second DEL.
    #[track_caller]
    pub fn del_blind(&self, id: &str) -> Answer {
        self.call("DEL", id, "", None).run()
    }

    /// STATUS: containerd sets the container's variables, to nothing.
    #[track_caller]
    pub fn status(&self) -> Answer {
        self.call("STATUS", "", "", None).env("CNI_IFNAME", "").env("CNI_ARGS", "").run()
    }

    /// GC that keeps `valid` (container id, interface). libcni sends both key names.
    #[track_caller]
    pub fn gc(&self, valid: &[(&str, &str)], keys: &[&str]) -> Answer {
        let list: Vec<Value> =
            valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        let mut config = self.config.clone();
        for key in keys {
            config[*key] = json!(list);
        }
        let call = self.call("GC", "", "", None);
        let call =
            ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"].into_iter().fold(call, Call::without);
        call.stdin(&compact(config)).run()
    }

    /// A call, for the test to bend before it is made.
    pub fn call(&self, command: &str, id: &str, netns: &str, previous: Option<&Value>) -> Call {
        let mut config = self.config.clone();
        if let Some(previous) = previous {
            config["prevResult"] = as_previous(previous);
        }
        let plugin = config["type"].as_str().unwrap_or("nodeplug-cni").to_owned();
        Call { plugin, env: environment(command, id, netns, PLUGINS), stdin: compact(config) }
    }
}

/// JSON as libcni writes it: no blanks, keys in order.
pub fn compact(mut value: Value) -> Vec<u8> {
    value.sort_all_objects();
    value.to_string().into_bytes()
}

/// A result as it comes back in prevResult: an empty `dns` is left out.
pub fn as_previous(result: &Value) -> Value {
    let mut result = result.clone();
    if result["dns"].as_object().is_some_and(Map::is_empty) {
        result.as_object_mut().expect("a result object").remove("dns");
    }
    result
}

/// The variables of a call for `eth0`, with plugins in `path`.
pub(crate) fn environment(command: &str, id: &str, netns: &str, path: &str) -> Vec<(String, String)> {
    let all = [
        ("CNI_ARGS", arguments(id)),
        ("CNI_COMMAND", command.to_owned()),
        ("CNI_CONTAINERID", id.to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_NETNS", netns.to_owned()),
        ("CNI_PATH", path.to_owned()),
    ];
    all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// containerd's arguments, whose order differs from call to call.
fn arguments(id: &str) -> String {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let mut words = [
        "IgnoreUnknown=1".to_owned(),
        "K8S_POD_NAMESPACE=default".to_owned(),
        "K8S_POD_NAME=web".to_owned(),
        format!("K8S_POD_INFRA_CONTAINER_ID={id}"),
        "K8S_POD_UID=8cf8600f603c06e96fd9560dd45281db".to_owned(),
    ];
    let turn = TURN.fetch_add(1, Ordering::Relaxed) % words.len();
    words.rotate_left(turn);
    words.join(";")
}

/// Our configuration in the reference's words: `bridge` or `ptp` in place of the mode, and a version
/// that Debian's build speaks.
fn translated(mut config: Value) -> Value {
    let mode = config["mode"].as_str().unwrap_or("routed").to_owned();
    config["type"] = json!(if mode == "bridge" { "bridge" } else { "ptp" });
    if config["cniVersion"] == json!("1.1.0") {
        config["cniVersion"] = json!("1.0.0");
    }
    let object = config.as_object_mut().expect("a configuration object");
    object.remove("mode");
    object.remove("nonMasqueradeCIDRs");
    config
}
