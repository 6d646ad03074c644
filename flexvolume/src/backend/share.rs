//! What nfs and cifs have in common: a server, a share, perhaps a folder of it, and a helper that mounts it
//! where nobody sees it.

mod server;

use std::collections::BTreeSet;
use std::time::Duration;

use node::{Error, Kind, Result};

pub(super) use server::{Server, path, smb_path};

use super::{Asked, Seen, Wish};
use crate::apply::Hands;
use crate::options::Reader;
use crate::options::mount_options::{Attr, Fs, MountOptions};
use crate::plan::{Limits, NewFolder, Protocol, Share, Step, SubFolder};
use crate::record::Record;

/// How long a mount waits for another one of the same share: the kubelet tries again, and while one hangs
/// the others must not pile up.
const PATIENCE: Duration = Duration::from_secs(20);
/// A folder that is made belongs to its owner and the owner's group.
const MODE: u32 = 0o770;

/// A share that is allowed.
#[derive(Debug)]
pub(super) struct Wanted {
    pub share: Share,
    pub give: Option<Step>,
    pub attributes: BTreeSet<Attr>,
    pub read_only: bool,
}

impl Wish for Wanted {
    /// The server itself is asked by the helper alone.
    fn observe(self: Box<Self>, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        hands.lock_source_for(&format!("{} {}", self.share.protocol, self.share.source), PATIENCE)?;
        Ok(self)
    }
}

impl Seen for Wanted {
    /// No key: the lock of the source guards the helper, and a volume is unmounted without asking anybody.
    fn describe(&self, record: &mut Record) {
        record.source.clone_from(&self.share.source);
        if let Some(folder) = &self.share.folder {
            record.source = format!("{}/{}", record.source.trim_end_matches('/'), folder.path.display());
        }
        record.read_only = self.read_only;
    }

    fn steps(&self) -> Vec<Step> {
        let give = self.give.as_ref().and_then(|step| match step {
            Step::Give { gid, scope } => Some(Step::GiveApart { gid: *gid, scope: *scope }),
            _ => None,
        });
        [Step::Share(Box::new(self.share.clone()))].into_iter().chain(give).collect()
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        let limits = limits.with(&self.attributes);
        (Limits { read_only: limits.read_only | self.read_only, ..limits }, false)
    }
}

/// Stands for a wish whose mistakes the reader has noted: they are reported before anything is observed.
#[derive(Debug)]
struct Mistaken;

impl Wish for Mistaken {
    fn observe(self: Box<Self>, _: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        Err(Error::new(Kind::Internal, "look at a share that could not be read"))
    }
}

/// The wish of a share, or of none that could be read.
pub(super) fn wish(wanted: Option<Wanted>) -> Box<dyn Wish> {
    wanted.map_or_else(|| Box::new(Mistaken) as Box<dyn Wish>, |wanted| Box::new(wanted))
}

/// The helper's options, in order, each at most once.
#[derive(Debug)]
pub(super) struct Words {
    words: Vec<String>,
}

impl Words {
    /// What every share gets: the limits of the mount are the helper's options, too, so that not even the
    /// mount that nobody sees allows more.
    pub fn new(asked: &Asked<'_>, read_only: bool) -> Self {
        let common = &asked.common;
        let flags =
            [(read_only, "ro"), (!common.suid, "nosuid"), (!common.dev, "nodev"), (common.noexec, "noexec")];
        Self { words: flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()).collect() }
    }

    /// Adds a word alone.
    pub fn flag(&mut self, name: &str, set: bool) {
        self.words.extend(set.then(|| name.to_owned()));
    }

    /// Adds a word with its value, where there is one.
    pub fn text(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        self.words.extend(value.map(|value| format!("{name}={value}")));
    }

    /// Adds the label of all files. The helpers take it in quotes: its categories are separated by commas.
    pub fn label(&mut self, reader: &mut Reader<'_>, label: Option<&str>) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b',');
        if label.is_some_and(|label| !label.bytes().all(plain)) {
            reader.problem("selinuxContext", "is not a label; write user:role:type:level");
        }
        self.text("context", label.map(|label| format!("\"{label}\"")));
    }

    /// Adds the pod's `mountOptions`. What they say as an option of their own says already is a mistake.
    pub fn more(&mut self, reader: &mut Reader<'_>, more: &MountOptions) {
        for option in &more.options {
            let name = option.name.as_str();
            let opposite = match name {
                "soft" | "softerr" => "hard",
                "lock" => "nolock",
                _ => name,
            };
            if self.words.iter().any(|word| named(word) == name || (opposite != name && word == opposite)) {
                reader.problem("mountOptions", format!("has `{name}`, which an option says already"));
            }
            self.words.push(option.to_string());
        }
    }

    /// All of them.
    pub fn all(self) -> Vec<String> {
        self.words
    }
}

fn named(word: &str) -> &str {
    word.split_once('=').map_or(word, |(name, _)| name)
}

/// The pod's `mountOptions`; a mistake is noted.
pub(super) fn mount_options(reader: &mut Reader<'_>, fs: Fs) -> MountOptions {
    reader.mount_options("mountOptions", fs).unwrap_or_default()
}

/// Reads `subDir` and `createSubDir`. What only a new folder gets is a mistake without one; `client_owns` is
/// whether the server lets a client choose its owner and mode.
pub(super) fn sub_folder(asked: &Asked<'_>, reader: &mut Reader<'_>, client_owns: bool) -> Option<SubFolder> {
    let path = reader.relative_path("subDir", &asked.pod, asked.options.volume());
    let create = reader.flag("createSubDir").unwrap_or(false);
    let common = &asked.common;
    if create && path.is_none() {
        reader.problem("createSubDir", "is nothing without `subDir`; write the folder's path there");
    }
    if create && common.read_only {
        reader.problem("createSubDir", "makes nothing in a read-only volume; leave one of them out");
    }
    if client_owns && !create {
        let set =
            [("mode", common.mode.is_some()), ("uid", common.uid.is_some()), ("gid", common.gid.is_some())];
        for (key, _) in set.iter().filter(|(_, set)| *set) {
            reader
                .problem(key, "is for a folder that `createSubDir` makes; leave it out or set that to true");
        }
    }
    let owner = match (common.uid, common.gid) {
        (None, None) => None,
        (uid, gid) => Some((uid.unwrap_or(0), gid.unwrap_or(0))),
    };
    let new = NewFolder { mode: common.mode.unwrap_or(MODE), owner: owner.filter(|_| client_owns) };
    Some(SubFolder { path: path?.as_path().to_owned(), create: create.then_some(new) })
}

/// A volume's `fsType` may name the file system that it is anyway.
pub(super) fn fs_type(asked: &Asked<'_>, reader: &mut Reader<'_>, names: &[&str], protocol: Protocol) {
    if let Some(other) = asked.common.fs_type.as_deref().filter(|other| !names.contains(other)) {
        let shown: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
        reader.problem("fsType", format!("({shown}) is not what a share of {protocol} has; leave it out"));
    }
}

#[cfg(test)]
mod tests;
