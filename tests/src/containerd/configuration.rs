//! containerd's configuration: what is the node's own, and what machines without some rights need.

/// The file, in version 2, which every containerd from 1.5 on reads.
pub(super) fn text(plugins: &str, networks: &str) -> String {
    format!(
        r#"{TEXT}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
"#
    )
}

const TEXT: &str = r#"
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
# Snapshotters that look for kernel modules, and what writes to /opt.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[metrics]
  address = "127.0.0.1:1338"

[plugins."io.containerd.grpc.v1.cri"]
  # Root without CAP_SYS_RESOURCE may not make a process harder to kill than itself.
  restrict_oom_score_adj = true
  sandbox_image = "localhost/harness:1"
  disable_tcp_service = true
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#;
