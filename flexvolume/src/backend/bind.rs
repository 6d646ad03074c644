//! A folder of the node, beneath a root that the policy names.
//!
//! The folder is walked to without following a symlink, and what was found is mounted by its descriptor:
//! who can write beneath the root cannot exchange it meanwhile.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use node::{Error, Kind, Result};

use super::folder::{answers, fit, fit_to_make, root};
use super::{Asked, Common, Seen, Wish};
use crate::apply::{Handle, Hands};
use crate::kernel::mount::Propagation;
use crate::kernel::own::Scope;
use crate::kernel::path::{self, Want};
use crate::observe::Part;
use crate::options::mount_options::{Attr, Fs};
use crate::options::{Pod, Reader};
use crate::plan::{IdMap, Limits, Step};
use crate::record::Record;

/// A folder that is made belongs to its owner and the owner's group.
const MODE: u32 = 0o770;

/// A folder that the policy allows.
#[derive(Debug)]
struct Bind {
    common: Common,
    root: PathBuf,
    relative: PathBuf,
    kubelet_root: PathBuf,
    create: bool,
    recursive: bool,
    propagation: Propagation,
    idmap: Option<IdMap>,
    attributes: BTreeSet<Attr>,
}

/// Reads the options `source`, `subPath`, `create`, `recursive`, `propagation`, `idmap`.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    let mut common = asked.common.clone();
    let source = source(asked, reader)?;
    common.no_fs_type(asked.options, reader, "a folder of the node has that of the node");
    let create = reader.choice("create", &[("none", false), ("dir", true)]).unwrap_or(false);
    let recursive = reader.flag("recursive").unwrap_or(false);
    let ways = [("private", Propagation::Private), ("rslave", Propagation::Slave)];
    let propagation = reader.choice("propagation", &ways).unwrap_or(Propagation::Private);
    let idmap = reader.parsed::<IdMap>("idmap");
    if common.selinux.is_some() {
        reader.problem(
            "selinuxContext",
            "is not for a folder of the node, which keeps its own labels; leave it out",
        );
    }
    let attributes = reader.mount_options("mountOptions", Fs::Bind).unwrap_or_default().attributes;
    let writes = !common.read_only && !attributes.contains(&Attr::ReadOnly);
    let (root, relative) = asked.policy.bind_root(&asked.pod.namespace, &source, writes)?;
    if create {
        reader.allowed(root.may_create());
    }
    common.read_only = !writes;
    let root = root.path.clone();
    let kubelet_root = asked.policy.kubelet_root.clone();
    Ok(Box::new(Bind {
        common,
        root,
        relative,
        kubelet_root,
        create,
        recursive,
        propagation,
        idmap,
        attributes,
    }))
}

/// `source` with `subPath` behind it.
fn source(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<PathBuf> {
    let source = reader.text("source");
    let sub = sub_path(reader, &asked.pod, asked.options.volume());
    let Some(source) = reader.required("source", source, "a folder of the node, such as `/srv/shared`")
    else {
        return Err(Error::caused(Kind::Config, "read the volume's options", "`source` is missing")
            .hint("set it to a folder of the node that the node's policy allows"));
    };
    let source = Path::new(source);
    Ok(sub.map_or_else(|| source.to_owned(), |sub| source.join(sub)))
}

fn sub_path(reader: &mut Reader<'_>, pod: &Pod, volume: &str) -> Option<PathBuf> {
    reader.relative_path("subPath", pod, volume).map(|path| path.as_path().to_owned())
}

impl Wish for Bind {
    fn observe(self: Box<Self>, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        let mounts = answers(&self.root, &self.relative, hands)?;
        let root = root(&self.root)?;
        let found = match path::beneath(root.as_fd(), &self.relative, Want::Folder) {
            Err(error) if error.errno() == Some(libc::ENOENT) && self.create => None,
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                return Err(error.hint("make the folder, or set the option `create: dir`"));
            }
            other => Some(other?),
        };
        let missing = found.is_none();
        let local = if let Some(found) = &found {
            let part = if self.recursive { Part::WithMountsBelow } else { Part::Itself };
            fit(found.as_fd(), &self.path(), &self.kubelet_root, part, mounts)?;
            path::is_local(found.as_fd())?
        } else {
            let above = fit_to_make(root.as_fd(), &self.relative, &self.path(), &self.kubelet_root, mounts)?;
            path::is_local(above.as_fd())?
        };
        hands.open.extend(found.map(|source| (Handle::Source, source)));
        hands.open.insert(Handle::Root, root);
        Ok(Box::new(Found { bind: *self, missing, local }))
    }
}

impl Bind {
    fn path(&self) -> PathBuf {
        let whole = self.relative.as_os_str().is_empty();
        if whole { self.root.clone() } else { self.root.join(&self.relative) }
    }
}

/// The folder as it was found.
#[derive(Debug)]
struct Found {
    bind: Bind,
    missing: bool,
    /// Whether no server or daemon has to answer for its files.
    local: bool,
}

impl Seen for Found {
    fn describe(&self, record: &mut Record) {
        record.source = self.bind.path().display().to_string();
        record.read_only = self.bind.common.read_only;
    }

    fn steps(&self) -> Vec<Step> {
        let Bind { common, relative, recursive, .. } = &self.bind;
        let mut steps = Vec::new();
        if self.missing {
            steps.push(Step::Folder {
                path: relative.clone(),
                mode: common.mode.unwrap_or(MODE),
                owner: (common.uid.unwrap_or(0), common.gid.unwrap_or(0)),
            });
        }
        steps.push(Step::Clone { path: self.bind.path(), recursive: *recursive });
        steps.extend(common.give(Some(Scope::OnRootMismatch)).map(|step| give(step, self.local)));
        steps
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        let mut limits = limits.with(&self.bind.attributes);
        limits.read_only |= self.bind.common.read_only;
        limits.propagation = Some(self.bind.propagation);
        limits.idmap = self.bind.idmap;
        (limits, self.bind.recursive)
    }
}

/// A walk through files that somebody serves may hang where no signal wakes it.
fn give(step: Step, local: bool) -> Step {
    match step {
        Step::Give { gid, scope } if !local => Step::GiveApart { gid, scope },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_serves_is_given_to_the_group_in_a_child() {
        for (local, line) in
            [(true, "give the group 7 all of it"), (false, "give the group 7 all of it, in a child")]
        {
            let step = give(Step::Give { gid: 7, scope: Scope::Recursive }, local);
            assert_eq!(step.to_string(), line);
        }
    }
}
