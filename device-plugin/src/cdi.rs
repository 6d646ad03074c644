//! Specifications of the Container Device Interface
//! (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>): one file a resource, which
//! the container runtime reads at each start of a container.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result, store};
use serde_json::{Map, Value, json};

use crate::allocate::Device;
use crate::config::{Cdi, CdiKind, FileMode, Host, Resource};
use crate::inventory::{Found, Node, id};

/// The version that is written: the first with all that is used, so that every runtime with CDI reads it.
const VERSION: &str = "0.6.0";
/// How our files' names begin, so that those of resources that are gone can be told from others'.
const PREFIX: &str = "nodeplug-";
/// For whoever starts containers; there is no secret in it.
const MODE: u32 = 0o644;

/// Owner and mode of nodes in the container.
#[derive(Debug, Clone, Copy)]
struct Ownership {
    user: Option<u32>,
    group: Option<u32>,
    mode: Option<FileMode>,
}

/// The kind of the resource's devices, where the daemon specifies them. The error says why the resource's
/// name is no kind.
pub fn kind(resource: &Resource) -> Result<Option<CdiKind>, String> {
    match &resource.allocate.cdi {
        Some(Cdi::Write { kind: Some(kind), .. }) => Ok(Some(kind.clone())),
        Some(Cdi::Write { kind: None, .. }) => resource.name.as_str().parse().map(Some),
        Some(Cdi::Use { .. }) | None => Ok(None),
    }
}

/// The full name of a device: `vendor/class=ID`. All replicas of a device are one.
pub fn name(resource: &Resource, found: &Found) -> Result<String, String> {
    let kind = kind(resource)?.ok_or_else(|| format!("`{}` writes no CDI specification", resource.name))?;
    Ok(format!("{kind}={}", device_name(resource, found)))
}

/// An ID is a CDI device's name already: see [`id()`].
fn device_name(resource: &Resource, found: &Found) -> String {
    id(resource.name.as_str(), &found.identity, 0)
}

/// The file's text for the resource's devices, in the order of names; none where the resource has none or
/// writes none.
pub fn specification(resource: &Resource, devices: &[&Found]) -> Result<Option<String>> {
    let doing = || format!("specify the devices of `{}` for CDI", resource.name);
    let refused = |why: String| Error::caused(Kind::Config, doing(), why);
    let Some(kind) = kind(resource).map_err(refused)? else { return Ok(None) };
    let mut named: Vec<_> = devices.iter().map(|found| (device_name(resource, found), *found)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.dedup_by(|a, b| a.0 == b.0);
    // A device without files would be a specification that does nothing, which runtimes refuse.
    named.retain(|(_, found)| !found.nodes.is_empty());
    if named.is_empty() {
        return Ok(None);
    }
    let each = |(name, found): &(String, &Found)| {
        let device = Device { resource, id: name, found, index: None };
        Ok(json!({"name": name, "containerEdits": edits(&device)?}))
    };
    let devices: Vec<Value> = named.iter().map(each).collect::<Result<_, _>>().map_err(refused)?;
    let whole = json!({"cdiVersion": VERSION, "kind": kind.as_str(), "devices": devices});
    serde_json::to_string_pretty(&whole).map(|text| Some(text + "\n")).doing(Kind::Internal, doing)
}

fn edits(device: &Device<'_>) -> Result<Value, String> {
    let (mut nodes, mut mounts) = (Vec::new(), Vec::new());
    let ownership = ownership(device.resource);
    for node in &device.found.nodes {
        let path = device.container_path(node)?;
        let permissions = device.permissions(node);
        if node.device.is_some() {
            let permissions = permissions.unwrap_or_default();
            nodes.push(device_node(node, &path, permissions.as_str(), ownership));
        } else {
            let read_only = !permissions.is_some_and(|p| p.write());
            let options = if read_only { json!(["rbind", "ro"]) } else { json!(["rbind", "rw"]) };
            mounts.push(json!({"hostPath": shown(&node.path), "containerPath": path, "options": options}));
        }
    }
    let mut edits = Map::new();
    for (key, list) in [("deviceNodes", nodes), ("mounts", mounts)] {
        if !list.is_empty() {
            edits.insert(key.to_owned(), Value::Array(list));
        }
    }
    Ok(Value::Object(edits))
}

/// What is behind the link and not the link: runtimes look at the path itself (lstat(2)) and refuse what is
/// no device node. The file is written anew when the device comes back under another name.
fn device_node(node: &Node, path: &str, permissions: &str, ownership: Ownership) -> Value {
    let mut value = json!({"path": path, "hostPath": shown(&node.real), "permissions": permissions});
    let numbers =
        [("uid", ownership.user), ("gid", ownership.group), ("fileMode", ownership.mode.map(FileMode::bits))];
    if let Some(object) = value.as_object_mut() {
        for (key, number) in numbers {
            object.extend(number.map(|number| (key.to_owned(), json!(number))));
        }
    }
    value
}

fn ownership(resource: &Resource) -> Ownership {
    match &resource.allocate.cdi {
        Some(Cdi::Write { uid, gid, mode, .. }) => Ownership { user: *uid, group: *gid, mode: *mode },
        Some(Cdi::Use { .. }) | None => Ownership { user: None, group: None, mode: None },
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Where a kind's specification is.
pub fn file(host: &Host, kind: &CdiKind) -> PathBuf {
    host.cdi.join(format!("{PREFIX}{}.json", kind.as_str().replace('/', "-")))
}

/// Brings the resource's file up to date; whether it was changed. Without devices there is no file. A reader
/// sees the old file or the new one, and never a part.
pub fn write(host: &Host, resource: &Resource, devices: &[&Found]) -> Result<bool> {
    let Ok(Some(kind)) = kind(resource) else { return Ok(false) };
    let path = file(host, &kind);
    let before = match fs::read(&path) {
        Ok(before) => Some(before),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).doing(Kind::Io, || format!("read `{}`", path.display())),
    };
    match specification(resource, devices)? {
        None if before.is_none() => Ok(false),
        None => store::remove(&path).map(|()| true),
        Some(text) if before.as_deref() == Some(text.as_bytes()) => Ok(false),
        Some(text) => {
            store::make_folder(&host.cdi)?;
            replace(&path, text.as_bytes()).doing(Kind::Io, || format!("write `{}`", path.display()))?;
            Ok(true)
        }
    }
}

/// Removes the files of resources that are not among these, and what a killed writer left; the files' paths.
pub fn sweep(host: &Host, resources: &[Resource]) -> Result<Vec<PathBuf>> {
    let kinds = resources.iter().filter_map(|resource| kind(resource).ok().flatten());
    let ours: Vec<PathBuf> = kinds.map(|kind| file(host, &kind)).collect();
    let mut gone = Vec::new();
    for name in store::names(&host.cdi)? {
        let path = host.cdi.join(&name);
        let half = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
        let ours_by_name = |name: &str| name.starts_with(PREFIX) && name.strip_suffix(".json").is_some();
        let stale = half.is_some_and(ours_by_name);
        let former = ours_by_name(&name) && !ours.contains(&path);
        if stale || former {
            store::remove(&path)?;
            gone.push(path);
        }
    }
    gone.sort();
    Ok(gone)
}

/// Nothing is synced: a power loss ends the boot, and the daemon writes all of it anew.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = store::beside(path);
    let put = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(MODE);
        options.open(&temporary)?.write_all(content)?;
        fs::rename(&temporary, path)
    };
    put().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests;
