//! The cgroups of a node's containers: one in each hierarchy, so that whatever a runtime makes lies below it and can be
//! ended and removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{mount_new, name};
use crate::kernel::cgroup::Cgroup;
use crate::node::cover;
use crate::volume_look::{self, Mount};

const ROOT: &str = "/sys/fs/cgroup";
/// How the names begin; the process's number and a count follow.
const PREFIX: &str = "nodeplug-pods";

/// One cgroup in each hierarchy, all of the same name.
#[derive(Debug)]
pub struct Cgroups {
    name: String,
    /// That by which processes are found.
    home: Cgroup,
    all: Vec<Cgroup>,
}

impl Cgroups {
    pub(super) fn make() -> Self {
        static NODES: AtomicU32 = AtomicU32::new(0);
        sweep(&of_dead);
        let n = NODES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{n}", std::process::id());
        let home = Cgroup::make(&name).expect("a cgroup for containers");
        let all = hierarchies().into_iter().filter_map(|root| Cgroup::make_in(&root, &name)).collect();
        Self { name, home, all }
    }

    /// Their path, as a runtime wants the parent of a container's.
    pub fn parent(&self) -> String {
        format!("/{}", self.name)
    }

    /// The cgroup of a service on the node.
    pub fn service(&self, name: &str) -> Cgroup {
        Cgroup::make(&format!("{}/{name}.service", self.name)).expect("a cgroup for a service")
    }

    /// The processes of services and containers.
    pub fn processes(&self) -> Vec<i32> {
        self.home.processes().into_iter().map(nix::unistd::Pid::as_raw).collect()
    }

    /// The cgroups of containers, in any hierarchy. podman keeps one for all of its monitors.
    pub fn containers(&self) -> Vec<PathBuf> {
        let below = self.all.iter().flat_map(Cgroup::below);
        below.filter(|path| !name(path).ends_with(".service") && name(path) != "conmon").collect()
    }

    /// Ends all processes and removes everything.
    pub(super) fn end(&self) {
        self.home.kill();
        self.all.iter().for_each(Cgroup::remove);
    }
}

/// Mounts over a new /sys what was mounted over the one before.
pub(super) fn mount_all() {
    let mut mounts = volume_look::mounts();
    let mut seen = BTreeSet::new();
    mounts
        .retain(|m| m.kind.starts_with("cgroup") && m.path.starts_with(ROOT) && seen.insert(m.path.clone()));
    if mounts.iter().any(|m| m.path != Path::new(ROOT)) {
        cover(ROOT);
    }
    for mount in mounts {
        mount_new(&mount.kind, &mount.path, &options(&mount));
    }
}

/// What names a hierarchy of version 1. The rest is the hierarchy's already.
fn options(mount: &Mount) -> String {
    let rest = ["rw", "ro", "xattr", "clone_children", "nsdelegate", "memory_recursiveprot", "favordynmods"];
    let own = |o: &&String| !rest.contains(&o.as_str()) && !o.starts_with("release_agent=");
    let words: Vec<&str> = mount.super_options.iter().filter(own).map(String::as_str).collect();
    if mount.kind == "cgroup2" { String::new() } else { words.join(",") }
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let folders = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    // With version 2 alone the root is a hierarchy, and the folders in it are cgroups.
    if root.join("cgroup.procs").exists() {
        return vec![root.to_owned()];
    }
    folders.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

/// Ends what runs in the cgroups of this process, and removes them: those of tests that did not do it themselves.
pub(super) fn end_own() {
    sweep(&|number| number == std::process::id().to_string());
}

/// Of a test run that was killed.
fn of_dead(number: &str) -> bool {
    !Path::new("/proc").join(number).exists()
}

/// Removes those of processes whose number is meant.
fn sweep(meant: &dyn Fn(&str) -> bool) {
    let meant = |path: &PathBuf| {
        let name = name(path);
        name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)).is_some_and(meant)
    };
    for root in hierarchies() {
        let cgroups = fs::read_dir(&root).into_iter().flatten().flatten().map(|e| e.path());
        for path in cgroups.filter(meant) {
            if let Some(cgroup) = Cgroup::make_in(&root, &name(&path)) {
                cgroup.kill();
                cgroup.remove();
            }
        }
    }
}
