//! Folders that no root may be, lie in, or contain, whatever the policy's file says.

use std::path::{Component, Path};

/// Whoever writes there, or reads, has the node, another pod, or the cluster.
pub const FOLDERS: [(&str, &str); 37] = [
    ("/bin", "the node's programs"),
    ("/boot", "the node's kernel"),
    ("/dev", "the node's devices"),
    ("/etc", "the node's settings and the cluster's keys"),
    ("/home/kubernetes", "the node's programs"),
    ("/lib", "the node's programs"),
    ("/lib32", "the node's programs"),
    ("/lib64", "the node's programs"),
    ("/nix", "the node's programs"),
    ("/opt/cni", "the node's network plugins"),
    ("/opt/containerd", "the container runtime's folder"),
    ("/ostree", "the node's programs"),
    ("/proc", "the kernel's own files"),
    ("/root", "the administrator's folder"),
    ("/run", "the sockets of the container runtime and of the system"),
    ("/sbin", "the node's programs"),
    ("/sys", "the kernel's own files"),
    ("/sysroot", "the whole node"),
    ("/usr", "the node's programs"),
    ("/var/lib/cni", "the network plugins' folder"),
    ("/var/lib/containerd", "the container runtime's folder"),
    ("/var/lib/containers", "the container runtime's folder"),
    ("/var/lib/cri-dockerd", "the container runtime's folder"),
    ("/var/lib/crio", "the container runtime's folder"),
    ("/var/lib/docker", "the container runtime's folder"),
    ("/var/lib/etcd", "the cluster's database"),
    ("/var/lib/k0s", "the container runtime's folder"),
    ("/var/lib/kubelet", "the kubelet's folder"),
    ("/var/lib/kubernetes", "the cluster's keys"),
    ("/var/lib/nodeplug", "nodeplug's own folder"),
    ("/var/lib/rancher", "the container runtime's folder"),
    ("/var/lib/systemd", "the node's settings"),
    ("/var/lock", "the node's own locks"),
    ("/var/log", "the logs that the kubelet reads as root, symlinks among them"),
    ("/var/run", "the sockets of the container runtime and of the system"),
    ("/var/snap", "the container runtime's folder"),
    ("/var/spool/cron", "the node's settings"),
];

/// A folder whose parent is for people: the parent contains it on some nodes alone, and whoever opens it sees
/// which these are ([`crate::observe::off_limits`]).
const IN_HOME: &str = "/home/kubernetes";

/// What makes `path` unfit as a root or a source: what it is, lies in, or contains. By components alone;
/// whoever opens it has to ask again for what the kernel found behind symlinks.
pub fn forbidden(path: &Path, kubelet_root: &Path) -> Option<&'static str> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Some("a path that does not say where it leads");
    }
    if path.components().count() == 1 {
        return Some("the whole node");
    }
    let touches = |folder: &Path| {
        path.starts_with(folder) || (folder.starts_with(path) && folder != Path::new(IN_HOME))
    };
    if touches(kubelet_root) {
        return Some("the kubelet's folder");
    }
    FOLDERS.iter().find(|(folder, _)| touches(Path::new(folder))).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_node_is_forbidden_in_both_directions() {
        let forbidden_ones = [
            "/",
            "//",
            "/.",
            "/proc",
            "/proc/1/root",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/shm",
            "/etc",
            "/etc/kubernetes/pki",
            "/run",
            "/run/containerd/containerd.sock",
            "/var/run/docker.sock",
            "/var/run",
            "/var/lib/kubelet",
            "/var/lib/kubelet/pods/x",
            "/var/lib/containerd",
            "/var/lib/docker/volumes",
            "/var/lib/containers",
            "/var/lib",
            "/var",
            "/usr/local",
            "/bin",
            "/root",
            "/root/.kube",
            "/boot/efi",
            "/srv/kubelet",
            "/srv/kubelet/pods",
            "/srv",
            "/etc/./kubernetes",
            "//etc",
            "/srv/../etc",
            "relative",
            "",
            ".",
            "/opt",
            "/home/kubernetes",
            "/home/kubernetes/bin",
            "/var/log",
            "/var/log/pods",
            "/sysroot/srv",
            "/nix/store",
        ];
        for path in forbidden_ones {
            assert!(forbidden(Path::new(path), Path::new("/srv/kubelet")).is_some(), "{path}");
        }
    }

    #[test]
    fn what_is_meant_for_data_is_not() {
        let free = [
            "/srv",
            "/srv/shared",
            "/mnt/disks",
            "/data",
            "/var/lib/volumes",
            "/var/lib/kubelet-data",
            "/etcetera",
            "/runner",
            "/home",
            "/home/data",
            "/opt/data",
            "/tmp/x",
            "/var/logs",
        ];
        for path in free {
            assert_eq!(forbidden(Path::new(path), Path::new("/var/lib/kubelet")), None, "{path}");
        }
    }
}
