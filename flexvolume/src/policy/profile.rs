//! A profile: one program that serves a filesystem over FUSE, and what pods may choose of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use node::{Error, Kind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::argument::{self, Piece};
use super::glob::{Glob, everything, matches_any};
use crate::options::quoted;

/// A program and its arguments. `${source}`, `${mountpoint}`, `${option.NAME}`, `${secret.KEY}` (the path of
/// a memory file), `${fsGroup}` (the pod's group, or 0), `${volume}` and `${pod.namespace}`, `${pod.name}`, `${pod.uid}`, `${pod.serviceAccount}`
/// are exchanged in arguments and environment; no shell reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// Absolute.
    pub program: PathBuf,
    /// One list element is one argument. The program has to stay in the foreground.
    pub arguments: Vec<String>,
    /// How the program gets its mount.
    #[serde(default)]
    pub handover: Handover,
    /// Whether the kernel checks permissions by the mode and owner that the program says of a file; otherwise
    /// the program has to. For a mount that is handed over by descriptor.
    #[serde(default = "yes")]
    pub default_permissions: bool,
    /// Globs over the option `source`; without them a pod cannot give one.
    #[serde(default)]
    pub sources: Vec<Glob>,
    /// Options that pods may give, by name.
    #[serde(default)]
    pub options: BTreeMap<String, ProfileOption>,
    /// Keys of the volume's Secret that the program gets as memory files.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// The program's whole environment, beside a fixed PATH.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Namespaces (globs) that may use it.
    #[serde(default = "everything")]
    pub namespaces: Vec<Glob>,
}

fn yes() -> bool {
    true
}

/// How a program gets its mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// It gets `/dev/fd/N`, an open /dev/fuse, as its mountpoint (libfuse 3.3 and newer).
    #[default]
    Descriptor,
    /// It mounts a folder itself, in a mount namespace of its own.
    Folder,
}

/// An option of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProfileOption {
    /// The value when the pod gives none; without it, the pod has to give one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Globs over the value; without them, the pod cannot change the default.
    pub allow: Vec<Glob>,
}

impl Profile {
    /// Whether a pod may give this source. One that starts with a dash or holds a control character is
    /// refused whatever the globs say, and so is a comma or a backslash where the source is a part of an
    /// argument.
    pub fn source(&self, source: &str) -> Result<()> {
        self.check_source(source).map_err(|(why, hint)| {
            Error::caused(Kind::Config, format!("use the source {}", quoted(source)), why).hint(hint)
        })
    }

    fn check_source(&self, source: &str) -> std::result::Result<(), (String, String)> {
        let embedded = |text: &String| {
            let pieces = argument::pieces(text).unwrap_or_default();
            pieces.len() > 1 && pieces.contains(&Piece::Source)
        };
        if let Err(why) = plain(source) {
            return Err((why, "write the source in the program's own form".to_owned()));
        }
        if source.contains([',', '\\']) && self.arguments.iter().any(embedded) {
            let why =
                "it has a comma or a backslash, and this profile writes it among other words".to_owned();
            return Err((why, "use a source without them".to_owned()));
        }
        if matches_any(&self.sources, source) {
            return Ok(());
        }
        let hint = super::decide::hint(&format!(
            "add to the profile: `sources: [{}]`",
            serde_json::Value::from(source)
        ));
        Err(("the profile's `sources` do not match it".to_owned(), hint))
    }
}

impl ProfileOption {
    /// The value to use for what the pod gave; the error says what to write. Commas, quotes, backslashes,
    /// blanks and a leading dash are refused whatever the globs say: the value may end up among the
    /// program's `-o` options.
    pub fn value(&self, given: Option<&str>) -> std::result::Result<String, String> {
        let Some(given) = given else {
            return self.default.clone().ok_or_else(|| format!("is missing; write {}", self.shapes()));
        };
        plain(given)?;
        if given.contains([',', '"', '\'', '`', '\\']) || given.contains(char::is_whitespace) {
            return Err("has a comma, a quote, a backslash or a blank; leave it out".to_owned());
        }
        let same = self.default.as_deref() == Some(given);
        if same || matches_any(&self.allow, given) {
            Ok(given.to_owned())
        } else {
            Err(format!("is not what the node's policy allows; write {}", self.shapes()))
        }
    }

    fn shapes(&self) -> String {
        let globs: Vec<_> = self.allow.iter().map(|glob| format!("`{glob}`")).collect();
        let default = self.default.iter().map(|value| format!("`{value}`"));
        default.chain(globs).collect::<Vec<_>>().join(" or ")
    }
}

/// What no value may be, wherever it is used.
fn plain(text: &str) -> std::result::Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.starts_with('-') {
        return Err("starts with a dash, as the program's own options do".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character".to_owned());
    }
    Ok(())
}
