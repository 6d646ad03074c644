//! What a pod's author cannot have, and programs that do not serve.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{assert_no_group, lay_out, of_profile};

pub fn trials() -> Vec<Trial> {
    let tools = &["sshfs", "bindfs"];
    vec![
        volume("a_pod_chooses_no_program_and_smuggles_no_argument", tools, smuggled),
        volume("a_program_that_ends_at_once_says_why", tools, ends),
        volume("a_program_that_never_serves_is_ended_in_time", &[], hangs),
        volume("a_program_that_does_not_know_descriptors_is_told_apart", &["bindfs"], old_library),
    ]
}

const MORE: &str = r#"
      choosy:
        program: /opt/choosy
        arguments: ["${option.level}", "-o", "level=${option.level},source=${source}", "${mountpoint}"]
        sources: ["*"]
        options: {level: {default: low, allow: ["*"]}}
        namespaces: [shop]
      others: {program: /opt/choosy, arguments: ["${mountpoint}"], namespaces: [team-a]}
      fails: {program: /opt/fails, arguments: ["${mountpoint}", "${secret.token}"], secrets: [token]}
      missing: {program: /opt/missing, arguments: ["${mountpoint}"]}
      no-program: {program: /opt/text, arguments: ["${mountpoint}"]}
      hangs: {program: /opt/hangs, arguments: ["${mountpoint}"]}
      hangs-by-folder: {program: /opt/hangs, arguments: ["${mountpoint}"], handover: folder}
      old: {program: /usr/bin/bindfs, arguments: ["-f", /srv/shared/a, "${mountpoint}"]}
"#;

fn smuggled(node: &VolumeNode) {
    lay_out(node, MORE);
    // Would it ever run, it would tell.
    node.write_program(Path::new("/opt/choosy"), "#!/bin/sh\necho \"$@\" >> /srv/shared/ran\n");
    let kubelet = node.kubelet();
    let table: [(&str, &str, &str, &str); 16] = [
        ("none", "source", "x", "the node's policy has none of this name"),
        ("/bin/sh", "source", "x", "the node's policy has none of this name"),
        ("others", "source", "x", "does not allow it to the namespace `shop`"),
        ("choosy", "level", "-oallow_root", "starts with a dash"),
        ("choosy", "level", "a,suid", "has a comma"),
        ("choosy", "level", "a b", "a blank"),
        ("choosy", "level", "a\\,b", "a comma"),
        ("choosy", "level", "a\nb", "control character"),
        ("choosy", "source", "-oProxyCommand=touch /srv/shared/ran", "starts with a dash"),
        ("choosy", "source", "x,ssh_command=/bin/sh", "has a comma"),
        ("choosy", "source", "a\u{1b}[2J", "control character"),
        ("choosy", "program", "/bin/sh", "`program` is not an option here"),
        ("choosy", "driverpath", "/bin/sh", "`driverpath` is not an option here"),
        ("choosy", "mountOptions", "suid", "suid"),
        ("choosy", "mountOptions", "user_id=1000", "user_id"),
        ("sftp", "source", "/srv/shared/../../etc/shadow,ssh_command=x", "has a comma"),
    ];
    for (profile, option, value, expect) in table {
        let volume = of_profile(&kubelet, profile).option("source", "/srv/shared/a").option(option, value);
        let volume =
            if ["none", "/bin/sh", "others"].contains(&profile) { volume.without("source") } else { volume };
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(expect), "{profile} {option} {value}: {why}");
        kubelet.end(volume.pod());
        node.assert_nothing_left(value);
    }
    assert!(!Path::new("/srv/shared/ran").exists(), "{:?}", fs::read_to_string("/srv/shared/ran"));
}

fn ends(node: &VolumeNode) {
    lay_out(node, MORE);
    let script = "#!/bin/sh\necho \"login as $(cat \"$2\") refused\" >&2\nexit 3\n";
    node.write_program(Path::new("/opt/fails"), script);
    fs::write("/opt/text", "no program").unwrap();
    let kubelet = node.kubelet();
    let table = [
        ("fails", "start `fails`: it exited with code 3; it wrote: login as [secret token] refused"),
        ("missing", "run `/opt/missing`: No such file or directory"),
        ("no-program", "run `/opt/text`: Permission denied"),
        ("sftp", "/srv/shared/none: No such file or directory"),
        ("bindfs", "Failed to resolve source directory"),
    ];
    for (profile, expect) in table {
        let volume = of_profile(&kubelet, profile);
        let volume = match profile {
            "sftp" | "bindfs" => volume.option("source", "/srv/shared/none"),
            _ => volume.secret("token", b"hunter2-4711\n"),
        };
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(expect), "{profile}: {why}");
        assert!(mounts_at(&volume.path()).is_empty());
        kubelet.end(volume.pod());
        node.assert_nothing_left(profile);
        assert_no_group(&volume, "afterwards");
    }
    let volume = of_profile(&kubelet, "fails");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("the volume's Secret has no key `token`"), "{why}");
    kubelet.end(volume.pod());
}

fn hangs(node: &VolumeNode) {
    lay_out(node, MORE);
    let script =
        "#!/bin/sh\ntrap '' TERM INT HUP\necho waiting for the server\nwhile :; do sleep 1000; done\n";
    node.write_program(Path::new("/opt/hangs"), script);
    let kubelet = node.kubelet();
    for profile in ["hangs", "hangs-by-folder"] {
        let volume = of_profile(&kubelet, profile).option("timeout", "4s");
        let path = volume.path().display().to_string();
        fs::create_dir_all(&path).unwrap();
        let finished = kubelet.call("nodeplug/fuse", &["mount", &path, &volume.mount_json().unwrap()]);
        let answer = finished.one_object();
        let why = answer["message"].as_str().unwrap();
        assert_eq!(answer["status"], "Failure", "{why}");
        assert!(why.contains("no answer in time") && why.contains("waiting for the server"), "{why}");
        assert!(finished.elapsed < Duration::from_secs(30), "{:?}", finished.elapsed);
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        node.assert_nothing_left(profile);
        assert_no_group(&volume, "afterwards");
    }
}

/// It takes `/dev/fd/N` for a path and mounts over `/dev/fuse`: nobody else's.
fn old_library(node: &VolumeNode) {
    lay_out(node, MORE);
    let kubelet = node.kubelet();
    let volume = of_profile(&kubelet, "old");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(
        why.contains("libfuse before 3.3") && why.contains("set `handover: folder` in the profile"),
        "{why}"
    );
    assert!(mounts_at(Path::new("/dev/fuse")).is_empty());
    kubelet.end(volume.pod());
    node.assert_nothing_left("afterwards");
    assert!(fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok());
}
