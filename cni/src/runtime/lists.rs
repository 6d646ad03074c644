//! The files of a runtime's folder of networks, and which of them it takes.
//!
//! Runtimes load them by libcni: the names that end in `.conf`, `.conflist` or `.json`, hidden ones too, sorted by
//! bytes.

use std::path::{Path, PathBuf};

use node::{Result, store};
use serde_json::Value;

use super::{BIN, CONF, Program, Runtime};

/// The endings of names that runtimes load.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its file name.
    pub file: String,
    /// What a runtime could not load, where it is broken.
    pub broken: Option<String>,
    /// The network's name.
    pub name: String,
    /// Its cniVersion, where it has one.
    pub version: Option<String>,
    /// The types of its plugins, in their order.
    pub types: Vec<String>,
}

/// What a runtime makes of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pick<'a> {
    /// The networks that a pod gets, the first one first.
    pub taken: Vec<&'a Network>,
    /// The broken file at which containerd stops: pods wait, or stay with what was loaded before.
    pub stopped_by: Option<&'a Network>,
    /// Broken ones that are passed over.
    pub skipped: Vec<&'a Network>,
    /// Those that nobody looks at.
    pub beside: Vec<&'a Network>,
}

/// The files of a folder as this process reaches it, in the runtime's order. None where the folder is not there.
pub fn list(folder: &Path) -> Result<Vec<Network>> {
    let mut names = store::names(folder)?;
    names.retain(|name| {
        is_loaded(name) && !folder.join(name).symlink_metadata().is_ok_and(|about| about.is_dir())
    });
    names.sort();
    Ok(names.into_iter().map(|name| of(folder, name)).collect())
}

/// Whether a runtime loads a file of this name.
pub fn is_loaded(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

fn of(folder: &Path, file: String) -> Network {
    match store::read_plain(&folder.join(&file), store::LARGEST) {
        Ok(bytes) => parse(file, &bytes),
        Err(error) => {
            let broken = Some(format!("cannot be read: {error}"));
            Network { file, broken, name: String::new(), version: None, types: Vec::new() }
        }
    }
}

/// A file as libcni reads it.
pub fn parse(file: String, bytes: &[u8]) -> Network {
    let read = serde_json::from_slice::<Value>(bytes);
    let mut network = Network { broken: None, name: String::new(), version: None, types: Vec::new(), file };
    let document = match read {
        Ok(document) if document.is_object() => document,
        Ok(_) => {
            network.broken = Some("is no JSON object".to_owned());
            return network;
        }
        Err(error) => {
            network.broken = Some(format!("is no JSON: {error}"));
            return network;
        }
    };
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    network.name = text(&document, "name");
    network.version = Some(text(&document, "cniVersion")).filter(|version| !version.is_empty());
    network.types = if Path::new(&network.file).extension().is_some_and(|e| e == "conflist") {
        let plugins = document.get("plugins").and_then(Value::as_array);
        plugins.into_iter().flatten().map(|plugin| text(plugin, "type")).collect()
    } else {
        vec![text(&document, "type")]
    };
    network.broken = if network.types.is_empty() {
        Some("has no plugins".to_owned())
    } else if network.types.iter().any(String::is_empty) {
        Some("has a plugin without `type`".to_owned())
    } else if network.name.is_empty() {
        Some("has no `name`".to_owned())
    } else {
        None
    };
    network
}

impl Runtime {
    /// One of which nothing is known but that it has the usual folders.
    pub fn unknown() -> Self {
        Self {
            program: Program::Containerd,
            who: "the runtime".to_owned(),
            pid: None,
            exe: None,
            files: Vec::new(),
            serves: true,
            bin_dirs: vec![PathBuf::from(BIN)],
            conf_dir: PathBuf::from(CONF),
            max_conf_num: 1,
            default_network: None,
            own_loopback: false,
            release: None,
            notes: Vec::new(),
        }
    }

    /// Which of the files it takes.
    pub fn pick<'a>(&self, networks: &'a [Network]) -> Pick<'a> {
        let mut pick = Pick::default();
        let wanted = |network: &Network| match &self.default_network {
            Some(name) => network.name == *name,
            None => true,
        };
        for network in networks {
            let full = self.max_conf_num > 0 && pick.taken.len() >= self.max_conf_num;
            if full || pick.stopped_by.is_some() {
                pick.beside.push(network);
            } else if network.broken.is_some() && self.skips_broken() {
                pick.skipped.push(network);
            } else if network.broken.is_some() {
                pick.stopped_by = Some(network);
            } else if wanted(network) {
                pick.taken.push(network);
            } else {
                pick.beside.push(network);
            }
        }
        if pick.stopped_by.is_some() {
            // It takes all that it is to have, or none.
            pick.beside.splice(0..0, pick.taken.drain(..));
        }
        pick
    }
}
