//! IPAM plugins that this call passes on to (CNI spec 1.1.0, section 4): the same environment and
//! configuration, but for the plugin's own name where the configuration has changed since the ADD.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use node::{Context, Kind, Result};
use serde_json::{Value, json};

use crate::ipam::delegate::Delegate;

/// Where the plugins are, and what they are given.
#[derive(Debug, Clone, Copy)]
pub struct Delegates<'a> {
    path: &'a [PathBuf],
    stdin: &'a Value,
}

impl<'a> Delegates<'a> {
    /// Plugins in the folders of `path` (CNI_PATH), given `stdin`.
    pub fn new(path: &'a [PathBuf], stdin: &'a Value) -> Self {
        Self { path, stdin }
    }

    /// Whether the plugin is there to be asked.
    pub fn find(&self, plugin: &str) -> Result<()> {
        self.with(plugin, |delegate| delegate.find().map(drop))
    }

    /// ADD, with a DEL after it where it failed; the plugin's answer as it came.
    pub fn add(&self, plugin: &str) -> Result<Vec<u8>> {
        self.with(plugin, |delegate| delegate.add_or_undo())
    }

    /// DEL.
    pub fn delete(&self, plugin: &str) -> Result<()> {
        self.with(plugin, |delegate| delegate.call("DEL").map(drop))
    }

    /// CHECK.
    pub fn check(&self, plugin: &str) -> Result<()> {
        self.with(plugin, |delegate| delegate.call("CHECK").map(drop))
    }

    /// GC.
    pub fn gc(&self, plugin: &str) -> Result<()> {
        self.with(plugin, |delegate| delegate.call("GC").map(drop))
    }

    /// STATUS.
    pub fn status(&self, plugin: &str) -> Result<()> {
        self.with(plugin, |delegate| delegate.call("STATUS").map(drop))
    }

    fn with<T>(&self, plugin: &str, call: impl FnOnce(Delegate<'_>) -> Result<T>) -> Result<T> {
        let doing = || format!("ask the IPAM plugin `{plugin}`");
        let path: OsString = env::join_paths(self.path).doing(Kind::Usage, doing)?;
        let stdin = serde_json::to_vec(&self.named(plugin)).doing(Kind::Internal, doing)?;
        call(Delegate { plugin, path: &path, environment: &[], stdin: &stdin })
    }

    /// The configuration with `plugin` as its IPAM, where it still is.
    fn named(&self, plugin: &str) -> Value {
        let mut stdin = self.stdin.clone();
        if stdin.pointer("/ipam/type").and_then(Value::as_str) != Some(plugin)
            && let Some(object) = stdin.as_object_mut()
        {
            object.insert("ipam".into(), json!({ "type": plugin }));
        }
        stdin
    }
}
