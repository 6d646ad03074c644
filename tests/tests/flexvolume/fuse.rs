//! Programs that serve a file system: sshfs with a real sshd on loopback, bindfs, rclone, and some that fail.

mod crashes;
mod daemons;
mod refused;
mod ssh;

use std::fs;
use std::path::Path;

use harness::call::tool;
use harness::kubelet::{Kubelet, Volume};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let modules = [ssh::trials(), daemons::trials(), refused::trials(), crashes::trials()];
    modules.into_iter().flatten().collect()
}

/// Profiles of programs that are quick: sshfs with a server of its own in place of ssh, which takes the
/// descriptor; bindfs, which Debian builds with libfuse 2, and rclone, which mount a folder themselves.
const PROFILES: &str = r#"
busyWait: 1s
backends:
  tmpfs: {}
  fuse:
    profiles:
      sftp:
        program: /usr/bin/sshfs
        arguments: ["host:${source}", "${mountpoint}", "-f", "-o", "ssh_command=/opt/sftp,uid=0,gid=${fsGroup}"]
        sources: ["/srv/shared/*"]
      bindfs:
        program: /usr/bin/bindfs
        arguments: ["-f", "-o", "allow_other,default_permissions", "--force-group=${fsGroup}",
                    "${source}", "${mountpoint}"]
        handover: folder
        sources: ["/srv/shared/*"]
      rclone:
        program: /usr/bin/rclone
        arguments: [mount, "${source}", "${mountpoint}", --allow-other, "--config=${secret.rclone.conf}"]
        handover: folder
        sources: ["local:/srv/shared/*"]
        secrets: [rclone.conf]
        environment: {HOME: /nonexistent, RCLONE_CACHE_DIR: "/var/cache/${volume}"}
"#;

/// A folder with a file in it, the profiles, and `more` of them.
fn lay_out(node: &VolumeNode, more: &str) {
    tool(&["mkdir", "-p", "/srv/shared/a", "/var/cache"]);
    fs::write("/srv/shared/a/file", "of the server\n").unwrap();
    node.write_program(Path::new("/opt/sftp"), "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n");
    node.policy(&format!("{PROFILES}{more}"));
}

/// A pod's volume of a profile.
fn of_profile(kubelet: &Kubelet, profile: &str) -> Volume {
    let volume = kubelet.pod("shop", "web-0").inline("nodeplug/fuse", "data").option("profile", profile);
    match profile {
        "sftp" | "bindfs" => volume.option("source", "/srv/shared/a"),
        "rclone" => {
            let volume = volume.option("source", "local:/srv/shared/a");
            volume.secret("rclone.conf", b"[local]\ntype = local\n")
        }
        _ => volume,
    }
}

/// The processes of this node that serve a volume, by what they are called.
fn daemons(node: &VolumeNode, name: &str) -> Vec<i32> {
    let is =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    node.processes().into_iter().filter(is).collect()
}

/// The one of them.
#[track_caller]
fn daemon(node: &VolumeNode, name: &str) -> i32 {
    let all = daemons(node, name);
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all[0]
}

/// Field `n` of a process's stat (proc(5)), counted from 1, behind its name.
fn stat(pid: i32, n: usize) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit_once(')').unwrap().1.split_whitespace().nth(n - 3).unwrap().to_owned()
}

/// Stops the test where the volume still has a cgroup, wherever systemd would look for one.
#[track_caller]
fn assert_no_group(volume: &Volume, when: &str) {
    let line = "printf %s \"$0\" | sha256sum | cut -c-32";
    let id = tool(&["sh", "-c", line, &volume.path().display().to_string()]);
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
        let group = Path::new(root).join("nodeplug-flexvolume").join(id.trim());
        assert!(!group.exists(), "{when}: {} is left", group.display());
    }
}

/// Stops the test where a process has `secret` in its arguments or environment, or a file of the state has it.
#[track_caller]
fn assert_nowhere(secret: &str) {
    let wanted: Vec<&str> =
        secret.lines().filter(|line| line.len() > 12 && !line.starts_with("---")).collect();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for what in ["cmdline", "environ"] {
            let bytes = fs::read(entry.path().join(what)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let found = wanted.iter().find(|line| text.contains(**line));
            assert!(found.is_none(), "{}/{what}: {text}", entry.path().display());
        }
    }
    for file in harness::volume_look::files(Path::new("/run")) {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
        assert!(wanted.iter().all(|line| !text.contains(line)), "{}", file.display());
    }
}
