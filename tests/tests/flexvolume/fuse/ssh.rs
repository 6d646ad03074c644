//! sshfs by a key from the pod's Secret, with a real sshd on loopback in the node's own network namespace.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::call::tool;
use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::{volume, volume_shared};
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{assert_no_group, assert_nowhere, daemon, daemons, stat};
use crate::ours::{Call, folder};

pub fn trials() -> Vec<Trial> {
    let tools = &["sshfs", "ssh", "ssh-keygen", "sshd"];
    vec![
        volume("sshfs_serves_a_pod_with_the_key_of_its_secret", tools, serves),
        volume("sshfs_outlives_the_driver_and_a_restart_of_the_kubelet", tools, outlives),
        volume_shared("sshfs_on_a_node_that_shares_its_mounts_leaves_nothing", tools, serves),
        volume("what_ssh_refuses_is_told_in_ssh_s_words", tools, words),
    ]
}

const PORT: u16 = 2222;

/// What a node's operator would write, but for the port.
const PROFILE: &str = r#"
backends:
  fuse:
    profiles:
      sshfs:
        program: /usr/bin/sshfs
        arguments: ["${source}", "${mountpoint}", "-f", "-p", "${option.port}",
                    "-o", "IdentityFile=${secret.ssh-privatekey},IdentitiesOnly=yes",
                    "-o", "UserKnownHostsFile=${secret.known_hosts},GlobalKnownHostsFile=/dev/null",
                    "-o", "StrictHostKeyChecking=yes,PasswordAuthentication=no,BatchMode=yes",
                    "-o", "ConnectTimeout=10,ServerAliveInterval=15,ServerAliveCountMax=3,reconnect",
                    "-o", "idmap=user,uid=0,gid=${fsGroup}"]
        sources: ["*@127.0.0.1:/srv/*"]
        options: {port: {default: "22", allow: ["[0-9]*"]}}
        secrets: [ssh-privatekey, known_hosts]
        environment: {HOME: /nonexistent}
"#;

/// The server's end.
struct Server {
    key: Vec<u8>,
    known_hosts: Vec<u8>,
}

/// Starts it, with a key of its own and one for the client.
fn serve(node: &VolumeNode) -> Server {
    node.policy(PROFILE);
    tool(&["mkdir", "-p", "/run/sshd", "/srv/ssh", "/srv/data"]);
    for name in ["host", "client"] {
        tool(&[
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "test",
            "-f",
            &format!("/srv/ssh/{name}"),
        ]);
    }
    fs::copy("/srv/ssh/client.pub", "/srv/ssh/authorized").unwrap();
    let port = PORT.to_string();
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-f", "/dev/null", "-h", "/srv/ssh/host", "-p", &port, "-E", "/srv/ssh/log"]);
    for option in [
        "ListenAddress=127.0.0.1",
        "AuthorizedKeysFile=/srv/ssh/authorized",
        "StrictModes=no",
        "UsePAM=no",
        "PidFile=none",
        "Subsystem=sftp internal-sftp",
    ] {
        command.args(["-o", option]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[expect(clippy::zombie_processes, reason = "the node ends what lives on it")]
    let _server = command.spawn().expect("start sshd");
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "sshd does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    node.keep();
    let host = fs::read_to_string("/srv/ssh/host.pub").unwrap();
    let known_hosts = format!("[127.0.0.1]:{PORT} {host}").into_bytes();
    Server { key: fs::read("/srv/ssh/client").unwrap(), known_hosts }
}

/// A pod's volume of a folder of the server.
fn remote(kubelet: &Kubelet, server: &Server) -> Volume {
    let volume = kubelet.pod("shop", "web-0").inline("nodeplug/fuse", "data").option("profile", "sshfs");
    let volume = volume.option("source", "root@127.0.0.1:/srv/data").option("port", &PORT.to_string());
    volume.secret("ssh-privatekey", &server.key).secret("known_hosts", &server.known_hosts)
}

fn assert_untold(kubelet: &Kubelet, server: &Server) {
    kubelet.assert_not_told(&server.key);
    assert_nowhere(&String::from_utf8_lossy(&server.key));
    let encoded = STANDARD.encode(&server.key);
    assert_nowhere(encoded.get(64..128).unwrap());
}

fn serves(node: &VolumeNode) {
    let server = serve(node);
    let kubelet = node.kubelet();
    tool(&["chmod", "750", "/srv/data"]);
    let volume = remote(&kubelet, &server).fs_group(1234);
    kubelet.set_up(&volume).mounted();
    let mount = &mounts_at(&volume.path())[0];
    assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("fuse.sshfs", "root@127.0.0.1:/srv/data"));
    assert!(["nosuid", "nodev", "rw"].iter().all(|o| mount.options.iter().any(|x| x == o)), "{mount:?}");
    let inside = kubelet.container(&[&volume]);
    inside.says("echo from the pod > /mnt/data/file; mkdir /mnt/data/folder");
    assert_eq!(fs::read_to_string("/srv/data/file").unwrap(), "from the pod\n");
    fs::write("/srv/data/later", "from the server\n").unwrap();
    assert_eq!(inside.says("cat /mnt/data/later; ls /mnt/data"), "from the server\nfile\nfolder\nlater\n");
    // The kernel checks the modes that sshfs tells it.
    assert!(!inside.run_as(1000, &[1000], "ls /mnt/data").ok());
    assert!(inside.run_as(1000, &[1234], "ls /mnt/data").ok());
    inside.stop();
    assert_untold(&kubelet, &server);
    kubelet.tear_down(&volume).unmounted();
    assert!(daemons(node, "sshfs").is_empty() && daemons(node, "ssh").is_empty());
    assert_no_group(&volume, "afterwards");
    folder(&volume);
    Call::unmount(&volume).succeeds();
    kubelet.end(volume.pod());
    node.assert_nothing_left("after the first");

    let volume = remote(&kubelet, &server).read_only().option("noexec", "true");
    kubelet.set_up(&volume).mounted();
    let inside = kubelet.container(&[&volume]);
    assert_eq!(inside.says("cat /mnt/data/file"), "from the pod\n");
    assert!(!inside.run("echo x > /mnt/data/file").ok());
    inside.stop();
    assert!(mounts_at(&volume.path())[0].options.iter().any(|o| o == "noexec"));
    kubelet.end(volume.pod());
    node.assert_nothing_left("after the second");
}

fn outlives(node: &VolumeNode) {
    let server = serve(node);
    let kubelet = node.kubelet();
    let volume = remote(&kubelet, &server);
    kubelet.set_up(&volume).mounted();
    let pid = daemon(node, "sshfs");
    let own = std::process::id().cast_signed();
    assert_eq!(stat(pid, 6), pid.to_string(), "it leads a session");
    assert_ne!(stat(pid, 6), stat(own, 6));
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let tracked = |line: &&str| line.contains(":name=systemd:") || line.starts_with("0::");
    let places: Vec<_> = cgroup.lines().filter(tracked).collect();
    assert!(!places.is_empty() && places.iter().all(|p| p.contains(":/nodeplug-flexvolume/")), "{cgroup}");
    for number in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let file = fs::read_link(number.path()).unwrap_or_default().to_string_lossy().into_owned();
        let known = ["/dev/null", "/dev/fuse", "/memfd:", "socket:"].iter().any(|k| file.starts_with(k));
        assert!(known, "sshfs has {file} open");
    }
    for n in 0..3 {
        let file = fs::read_link(format!("/proc/{pid}/fd/{n}")).unwrap();
        let file = file.to_string_lossy();
        assert!(file == "/dev/null" || file.starts_with("/memfd:"), "{n}: {file}");
    }

    let restart = kubelet.restart();
    assert_eq!(restart.set_up, [(volume.path(), Outcome::AlreadyMounted)]);
    assert_eq!(daemon(node, "sshfs"), pid);
    fs::write(volume.path().join("file"), "still there").unwrap();
    assert_eq!(fs::read_to_string("/srv/data/file").unwrap(), "still there");
    // The pod went while the kubelet was away.
    kubelet.delete(volume.pod());
    assert_eq!(kubelet.restart().torn_down, [(volume.path(), Outcome::Unmounted)]);
    assert!(daemons(node, "sshfs").is_empty());
    kubelet.end(volume.pod());
    node.assert_nothing_left("after the pod");
}

fn words(node: &VolumeNode) {
    let server = serve(node);
    tool(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", "/srv/ssh/other"]);
    let other = fs::read("/srv/ssh/other").unwrap();
    let stranger = format!("[127.0.0.1]:{PORT} {}", fs::read_to_string("/srv/ssh/other.pub").unwrap());
    let kubelet = node.kubelet();
    let volume = || remote(&kubelet, &server);
    let table = [
        (volume().secret("ssh-privatekey", &other), "Permission denied (publickey"),
        (volume().secret("ssh-privatekey", b"no key at all\n"), "Permission denied (publickey"),
        (volume().secret("known_hosts", stranger.as_bytes()), "REMOTE HOST IDENTIFICATION HAS CHANGED"),
        (volume().option("source", "root@127.0.0.1:/srv/none"), "No such file or directory"),
        (volume().option("port", "2223"), "Connection refused"),
    ];
    for (volume, expect) in table {
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(expect), "{expect}: {why}");
        assert!(why.contains("serve `root@127.0.0.1:/srv/") && why.contains("start `sshfs`"), "{why}");
        kubelet.end(volume.pod());
        node.assert_nothing_left(expect);
        assert_no_group(&volume, "afterwards");
    }
    assert_untold(&kubelet, &server);
    kubelet.assert_not_told(&other);
}
