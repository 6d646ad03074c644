//! Calls the plugins of a conflist one after the other, as libcni does: ADD and CHECK in the list's order, DEL in
//! reverse, the result of one as `prevResult` of the next, and to each plugin what it declares a capability for.

use std::convert::Infallible;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::call::Answer;
use crate::node::{Namespace, PLUGINS, REFERENCE, bind};
use crate::runtime::{Call, as_previous, compact, environment};

/// The names under which the reference's plugins are installed, those of `loopback` and of other main plugins left out.
pub const NAMES: [&str; 9] =
    ["bridge", "ptp", "host-local", "static", "portmap", "bandwidth", "firewall", "tuning", "sbr"];

/// A folder of plugins, as `CNI_PATH` names it.
#[derive(Debug, Clone)]
pub struct Plugins {
    folder: PathBuf,
}

impl Plugins {
    /// A folder of this name on the node, with these programs in it under these names.
    pub fn new<'a>(name: &str, programs: impl IntoIterator<Item = (&'a str, PathBuf)>) -> Self {
        let folder = Path::new(PLUGINS).join("sets").join(name);
        fs::create_dir_all(&folder).expect("make a folder of plugins");
        for (name, program) in programs {
            let target = folder.join(name);
            File::create_new(&target).unwrap_or_else(|e| panic!("make `{}`: {e}", target.display()));
            bind(&program, &target);
        }
        Self { folder }
    }

    /// Under each of [`NAMES`] the reference's plugin, or ours where `ours` says so.
    pub fn mixed(name: &str, ours: impl Fn(&str) -> bool) -> Self {
        let program = |plugin| if ours(plugin) { our_plugin() } else { Path::new(REFERENCE).join(plugin) };
        Self::new(name, NAMES.map(|plugin| (plugin, program(plugin))))
    }
}

/// Our plugin, where the node has it.
pub fn our_plugin() -> PathBuf {
    Path::new(PLUGINS).join("nodeplug-cni")
}

/// A runtime that knows one conflist, and one folder of plugins.
#[derive(Debug, Clone)]
pub struct Chain {
    /// `cniVersion`, `name` and `plugins`.
    pub list: Value,
    /// Values by capability. A plugin gets those that it declares.
    pub offered: Value,
    folder: PathBuf,
}

impl Chain {
    /// A runtime of this conflist that offers nothing yet.
    pub fn new(list: Value, plugins: &Plugins) -> Self {
        Self { list, offered: Value::Object(Map::new()), folder: plugins.folder.clone() }
    }

    /// The same with other values by capability.
    #[must_use]
    pub fn offering(&self, offered: Value) -> Self {
        Self { offered, ..self.clone() }
    }

    /// The same conflist for the plugins of another folder.
    #[must_use]
    pub fn by(&self, plugins: &Plugins) -> Self {
        Self { folder: plugins.folder.clone(), ..self.clone() }
    }

    /// ADD that must succeed: the last plugin's result.
    #[track_caller]
    pub fn added(&self, id: &str, pod: &Namespace) -> Value {
        self.add(id, pod).unwrap_or_else(|answer| panic!("ADD: {answer:?}"))
    }

    /// ADD: the last plugin's result. Where a plugin refuses, the whole chain gets a DEL at once, and the answer is
    /// the refusal.
    #[track_caller]
    pub fn add(&self, id: &str, pod: &Namespace) -> Result<Value, Box<Answer>> {
        let outcome = self.walk("ADD", id, pod.name(), None, |call| succeeded(call.run()));
        if outcome.is_err() {
            self.deleted(id, pod.name(), None).unwrap_or_else(|e| panic!("DEL after a refused ADD: {e:?}"));
        }
        outcome
    }

    /// CHECK with the result of the ADD, of every plugin though one before has refused: its type and its answer.
    #[track_caller]
    pub fn checks(&self, id: &str, pod: &Namespace, result: &Value) -> Vec<(String, Answer)> {
        let mut answers = Vec::new();
        let all = self.walk("CHECK", id, pod.name(), Some(result), |call| {
            let plugin = call.plugin.rsplit('/').next().unwrap_or_default().to_owned();
            answers.push((plugin, call.run()));
            Ok::<_, Infallible>(Value::Null)
        });
        all.map_or_else(|never| match never {}, |_| answers)
    }

    /// DEL with the result of the ADD, as at a pod's end.
    #[track_caller]
    pub fn del(&self, id: &str, pod: &Namespace, result: &Value) -> Result<(), Box<Answer>> {
        self.deleted(id, pod.name(), Some(result))
    }

    /// DEL with `CNI_NETNS` empty and no prevResult, as containerd's second one.
    #[track_caller]
    pub fn del_blind(&self, id: &str) -> Result<(), Box<Answer>> {
        self.deleted(id, "", None)
    }

    /// GC of every plugin, none of whose attachments is valid any more: type and answer. There is no GC before 1.1.0,
    /// so it is asked for in that version.
    #[track_caller]
    pub fn collect(&self) -> Vec<(String, Answer)> {
        let mut newer = self.clone();
        newer.list["cniVersion"] = json!("1.1.0");
        for plugin in newer.list["plugins"].as_array_mut().into_iter().flatten() {
            plugin["cni.dev/valid-attachments"] = json!([]);
        }
        let mut answers = Vec::new();
        let all = newer.walk("GC", "", "", None, |call| {
            let plugin = call.plugin.rsplit('/').next().unwrap_or_default().to_owned();
            let unset = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"];
            let call = unset.into_iter().fold(call.clone(), Call::without);
            answers.push((plugin, call.run()));
            Ok::<_, Infallible>(Value::Null)
        });
        all.map_or_else(|never| match never {}, |_| answers)
    }

    #[track_caller]
    fn deleted(&self, id: &str, netns: &str, result: Option<&Value>) -> Result<(), Box<Answer>> {
        self.walk("DEL", id, netns, result, |call| succeeded(call.run())).map(drop)
    }

    /// Makes the calls one after the other until one has no result; gives the last one's.
    pub fn walk<E>(
        &self,
        command: &str,
        id: &str,
        netns: &str,
        previous: Option<&Value>,
        mut make: impl FnMut(&Call) -> Result<Value, E>,
    ) -> Result<Value, E> {
        let mut plugins: Vec<&Value> = self.list["plugins"].as_array().into_iter().flatten().collect();
        if command == "DEL" {
            plugins.reverse();
        }
        let mut last = previous.cloned();
        for plugin in plugins {
            let result = make(&self.call(command, plugin, id, netns, last.as_ref()))?;
            if command == "ADD" {
                last = Some(result);
            }
        }
        Ok(last.unwrap_or_default())
    }

    /// The call of one plugin of the list.
    pub fn call(
        &self,
        command: &str,
        plugin: &Value,
        id: &str,
        netns: &str,
        previous: Option<&Value>,
    ) -> Call {
        let mut config = plugin.clone();
        for key in ["cniVersion", "name"] {
            config[key] = self.list[key].clone();
        }
        let runtime = self.runtime_config(plugin);
        if !runtime.is_empty() {
            config["runtimeConfig"] = Value::Object(runtime);
        }
        if let Some(previous) = previous {
            config["prevResult"] = as_previous(previous);
        }
        let folder = self.folder.to_str().expect("a path of ASCII");
        let env = environment(command, id, netns, folder);
        let plugin = format!("{folder}/{}", plugin["type"].as_str().expect("a plugin's type"));
        Call { plugin, env, stdin: compact(config) }
    }

    fn runtime_config(&self, plugin: &Value) -> Map<String, Value> {
        let declared = plugin["capabilities"].as_object().into_iter().flatten();
        let wanted = declared.filter(|(_, on)| **on == Value::Bool(true));
        wanted.filter_map(|(key, _)| Some((key.clone(), self.offered.get(key)?.clone()))).collect()
    }
}

fn succeeded(answer: Answer) -> Result<Value, Box<Answer>> {
    if answer.ok() { Ok(answer.json.unwrap_or_default()) } else { Err(Box::new(answer)) }
}
