//! This process, as the kernel knows it: its user, its namespaces, its mounts.

use std::fs;
use std::path::{Path, PathBuf};

use node::mountinfo::{self, Mount};
use rustix::process::geteuid;

use super::Finding;

/// The number of the first PID namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const FIRST: &str = "pid:[4026531836]";

/// What /proc says.
#[derive(Debug)]
pub(super) struct Process {
    proc: PathBuf,
    /// Who has to own the kubelet's folders: root.
    pub(super) owner: u32,
    mounts: Vec<Mount>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self::at(Path::new("/proc"), 0)
    }

    fn at(proc: &Path, owner: u32) -> Self {
        let list = fs::read(proc.join("self/mountinfo")).unwrap_or_default();
        let mounts = list.split(|b| *b == b'\n').filter_map(mountinfo::parse).collect();
        Self { proc: proc.to_owned(), owner, mounts }
    }

    /// A file of /proc.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.proc.join(name)
    }

    /// Whether this is a container: it has a PID namespace of its own, or a root of layers.
    pub(super) fn is_contained(&self) -> bool {
        let namespace = fs::read_link(self.file("self/ns/pid"));
        let layered = mountinfo::top(&self.mounts, Path::new("/")).is_some_and(|root| root.kind == "overlay");
        layered || namespace.is_ok_and(|name| name.as_os_str() != FIRST)
    }

    /// Whether its users are others than the node's.
    pub(super) fn is_in_user_namespace(&self) -> bool {
        let Ok(map) = fs::read_to_string(self.file("self/uid_map")) else { return false };
        let mut words = map.split_whitespace();
        (words.next(), words.next(), words.next()) != (Some("0"), Some("0"), Some("4294967295"))
    }

    /// The mount that `path` lies on.
    pub(super) fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let over = self.mounts.iter().filter(|mount| real.starts_with(&mount.point));
        let deepest = over.max_by_key(|mount| mount.point.components().count())?;
        mountinfo::top(&self.mounts, &deepest.point)
    }

    /// Whether `path` comes from somewhere else than this process's root.
    pub(super) fn is_mounted(&self, path: &Path) -> bool {
        self.mount_of(path).is_some_and(|mount| mount.point != Path::new("/"))
    }
}

/// Whether we are root.
pub(super) fn user(process: &Process) -> Finding {
    const WHAT: &str = "user";
    let user = geteuid().as_raw();
    if user == process.owner {
        return Finding::fine(WHAT, format!("uid {user}; no capability is needed"));
    }
    let why = format!("uid {user}, and the kubelet's folders belong to uid {}", process.owner);
    Finding::problem(WHAT, why, "run as root: `runAsUser: 0`, with every capability dropped")
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    static COUNT: AtomicU32 = AtomicU32::new(0);

    /// A folder that goes with its value.
    pub(in super::super) struct Folder(PathBuf);

    impl Folder {
        pub(in super::super) fn new(name: &str) -> Self {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("nodeplug-doctor-{name}-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path.canonicalize().unwrap())
        }

        pub(in super::super) fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        pub(in super::super) fn folder(&self, name: &str) -> PathBuf {
            fs::create_dir_all(self.path(name)).unwrap();
            self.path(name)
        }

        pub(in super::super) fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        /// A process with this root, in a PID namespace of this number.
        pub(in super::super) fn process(&self, mounts: &str, namespace: &str) -> Process {
            self.write("proc/self/mountinfo", mounts);
            self.write("proc/self/uid_map", "         0          0 4294967295\n");
            self.folder("proc/self/ns");
            let _ = fs::remove_file(self.path("proc/self/ns/pid"));
            symlink(format!("pid:[{namespace}]"), self.path("proc/self/ns/pid")).unwrap();
            Process::at(&self.path("proc"), geteuid().as_raw())
        }

        /// A process of the node itself.
        pub(in super::super) fn on_node(&self) -> Process {
            self.process("20 1 8:1 / / rw - ext4 /dev/root rw\n", "4026531836")
        }

        /// The same, where another user than ours has to own the kubelet's folders.
        pub(in super::super) fn of_another_owner(&self) -> Process {
            let process = self.on_node();
            Process { owner: process.owner + 1, ..process }
        }

        /// One in a container.
        pub(in super::super) fn in_container(&self, more: &str) -> Process {
            self.process(&format!("20 1 0:50 / / rw - overlay overlay rw\n{more}"), "4026532001")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_container_is_told_from_a_node() {
        let (node, pod) = (Folder::new("node"), Folder::new("pod"));
        assert!(!node.on_node().is_contained());
        let mount = format!("21 20 8:1 / {} rw - ext4 /dev/root rw\n", pod.path("mounted").display());
        let process = pod.in_container(&mount);
        assert!(process.is_contained());
        assert!(process.is_mounted(&pod.path("mounted/below")));
        assert!(!process.is_mounted(&pod.path("mounted-not")));
        assert!(!process.is_in_user_namespace());
        pod.write("proc/self/uid_map", "0 100000 65536\n");
        assert!(process.is_in_user_namespace());
    }
}
