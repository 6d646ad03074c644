//! What a runtime's pods left on a node: in the network, among the mounts, the cgroups and the processes.

use std::fs;
use std::path::Path;

use super::{Cgroups, name};
use crate::look;
use crate::volume_look::{self, process};

/// Where libcni keeps the results of ADD.
const RESULTS: &str = "/var/lib/cni/results";
/// Where pods have mounts: their namespaces, roots and shared memory.
const MOUNTS: [&str; 5] =
    ["/run/netns", "/run/containerd", "/var/lib/containerd", "/run/containers", "/var/lib/containers"];
/// Daemons of the node, which stay.
const SERVICES: [&str; 1] = ["containerd"];

pub(super) fn leftovers(cgroups: &Cgroups) -> Vec<String> {
    let mut found = look::leftovers();
    found.extend(spaces().map(|name| format!("network namespace {name}")));
    let mounts = volume_look::mounts().into_iter().map(|m| m.path);
    // The storage of images itself is one of podman's.
    let mounts = mounts.filter(|path| MOUNTS.iter().any(|below| path.starts_with(below)) && !stays(path));
    found.extend(mounts.map(|path| format!("mount {}", path.display())));
    found.extend(entries(RESULTS).map(|name| format!("result {name}")));
    found.extend(cgroups.containers().iter().map(|path| format!("cgroup {}", path.display())));
    let runs = |pid: &i32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        !comm.is_empty() && !SERVICES.contains(&comm.trim())
    };
    found.extend(cgroups.processes().into_iter().filter(runs).map(process));
    found
}

/// The names of namespaces, that of the machine outside left out.
fn spaces() -> impl Iterator<Item = String> {
    entries("/run/netns").filter(|name| name != "outside")
}

/// `/run/netns/outside` and podman's mount of its own storage on itself.
fn stays(path: &Path) -> bool {
    name(path) == "outside" || path.ends_with("containers/storage/overlay") || path == Path::new("/run/netns")
}

fn entries(folder: &str) -> impl Iterator<Item = String> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|e| name(&e.path()))
}
