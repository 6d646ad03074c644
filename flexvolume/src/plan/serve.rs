//! A program that serves a file system.

use std::fmt;
use std::path::PathBuf;

use super::Setting;
use crate::policy::Handover;
use crate::target::Id;

/// One start of a program, and the mount that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The volume, whose session and cgroup the program gets.
    pub volume: Id,
    /// The program.
    pub program: PathBuf,
    /// Its arguments without its own name. Public: no secret.
    pub arguments: Vec<Words>,
    /// What it has in its environment beside the usual. Public: no secret.
    pub environment: Vec<(String, Words)>,
    /// The Secret's keys that it gets as memory files.
    pub secrets: Vec<String>,
    /// How it gets its mount.
    pub handover: Handover,
    /// What is served, as mount lists show it.
    pub source: String,
    /// What the kernel is told of a mount that is handed over by descriptor.
    pub settings: Vec<Setting>,
    /// The folder below which the mounts of other volumes lie; a program in a mount namespace of its own must
    /// not keep them.
    pub others: PathBuf,
}

/// A text whose last parts are known when the program is about to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(pub Vec<Part>);

/// A part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// Where the program mounts.
    Mountpoint,
    /// The path of the memory file with a secret.
    Secret(String),
}

impl Words {
    /// The whole text.
    pub fn with(&self, mountpoint: &str, secret: impl Fn(&str) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Mountpoint => mountpoint.to_owned(),
            Part::Secret(key) => secret(key),
        });
        parts.collect()
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with("${mountpoint}", |key| format!("${{secret.{key}}}")))
    }
}

impl fmt::Display for Service {
    /// Without the arguments: they are the profile's, long, and would push the program's own words out of a
    /// pod's event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "serve `{}` by `{}`", self.source, self.program.display())?;
        match self.handover {
            Handover::Descriptor => f.write_str(" through an open /dev/fuse"),
            Handover::Folder => f.write_str(", which mounts where nobody sees it"),
        }
    }
}
