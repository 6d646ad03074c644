//! scripts/install on a node itself: the folders are its own, and the programs are where a person looks for them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::call::{self, Answer};
use harness::node::{Node, PLUGINS, built};
use harness::suite::ours;
use libtest_mimic::Trial;

use crate::install_network::{Containerd, LIST};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("the_install_script_installs_upgrades_and_uninstalls_on_a_node", on_a_node),
        ours("the_install_script_uninstalls_without_a_program_or_a_compiler", without_programs),
        ours("the_install_script_follows_no_link_out_of_a_root", links),
    ]
}

const KIT: &str = "/opt/kit";
const BIN: &str = "/opt/bin";
const COMMAND: &str = "/usr/local/sbin/nodeplug-cni";
const PROGRAMS: [(&str, &str); 3] = [
    ("NODEPLUG_CNI", "nodeplug-cni"),
    ("NODEPLUG_FLEXVOLUME", "nodeplug-flexvolume"),
    ("NODEPLUG_DEVICE_PLUGIN", "nodeplug-device-plugin"),
];
/// Where each of them lies when it is installed.
const INSTALLED: [(&str, &str); 4] = [
    ("/opt/bin/nodeplug-cni", "nodeplug-cni"),
    ("/usr/local/sbin/nodeplug-flexvolume", "nodeplug-flexvolume"),
    ("/usr/libexec/kubernetes/kubelet-plugins/volume/exec/nodeplug~tmpfs/tmpfs", "nodeplug-flexvolume"),
    ("/usr/local/bin/nodeplug-device-plugin", "nodeplug-device-plugin"),
];
const UNIT: &str = "/etc/systemd/system/nodeplug-device-plugin.service";
/// What systemctl was asked for.
const ASKED: &str = "/run/tools/asked";

/// The script with what it needs beside it, and the node's folders, which go with the node. systemd does not run in
/// namespaces like these: what the script asks it for is written down.
fn lay_out(node: &Node) {
    for folder in ["/etc", "/usr/local", "/usr/libexec"] {
        node.own(folder);
    }
    let kit = Path::new(KIT);
    for folder in ["scripts", "device-plugin/deploy"] {
        fs::create_dir_all(kit.join(folder)).unwrap();
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in ["scripts/install", "scripts/needs", "device-plugin/deploy/nodeplug-device-plugin.service"] {
        call::copy(&repository.join(file), &kit.join(file));
    }
    for (variable, name) in PROGRAMS {
        call::copy(&built(variable, name), &kit.join(name));
    }
    fs::create_dir_all("/run/tools").unwrap();
    fs::create_dir_all("/run/systemd/system").unwrap();
    let recorder = format!("#!/bin/sh\necho \"$@\" >> {ASKED}\n");
    call::write_program(Path::new("/run/tools/systemctl"), recorder.as_bytes());
}

/// No cargo is on this PATH.
fn script(words: &[&str]) -> Answer {
    let mut command = Command::new(format!("{KIT}/scripts/install"));
    command.args(words).env_remove("NODEPLUG_POD_CIDRS").env_remove("CNI_COMMAND");
    command.env("PATH", "/run/tools:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
    call::run(&mut command, b"")
}

#[track_caller]
fn done(words: &[&str]) -> Answer {
    let answer = script(words);
    assert!(answer.ok(), "{words:?}: {answer:?}");
    answer
}

/// What systemctl was asked for since the last time.
fn asked() -> String {
    let asked = fs::read_to_string(ASKED).unwrap_or_default();
    drop(fs::remove_file(ASKED));
    asked
}

#[track_caller]
fn assert_installed() {
    for (path, name) in INSTALLED {
        assert_eq!(fs::read(path).unwrap(), fs::read(Path::new(KIT).join(name)).unwrap(), "{path}");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o755, "{path}");
    }
    assert_eq!(fs::read_link(COMMAND).unwrap(), Path::new(BIN).join("nodeplug-cni"));
    assert!(Path::new(LIST).exists() && Path::new(UNIT).exists());
}

#[track_caller]
fn assert_gone() {
    for path in INSTALLED.iter().map(|(path, _)| *path).chain([COMMAND, LIST, UNIT]) {
        assert!(fs::symlink_metadata(path).is_err(), "{path}");
    }
}

fn on_a_node(node: &Node) {
    lay_out(node);
    let _containerd = Containerd::looking_in(BIN);
    let first = done(&["--", "--pod-cidr", "10.66.0.0/24"]);
    assert_installed();
    assert!(asked().contains("restart nodeplug-device-plugin"), "{first:?}");
    // As a person calls it.
    let mut command = Command::new("nodeplug-cni");
    command.args(["validate", LIST]).env_remove("CNI_COMMAND");
    let valid = call::run(command.env("PATH", "/usr/local/sbin"), b"");
    assert!(valid.ok(), "{valid:?}");
    let again = done(&["--", "--pod-cidr", "10.66.0.0/24"]);
    let asked_again = asked();
    assert!(asked_again.contains("\nstart nodeplug-device-plugin"), "{asked_again}");
    assert!(!asked_again.contains("restart"), "nothing changed, and the devices stay: {asked_again}");
    assert!(again.stdout.contains(&format!("unchanged  {COMMAND}")), "{again:?}");
    // Other bytes: a newer version, or an older one.
    for (_, name) in PROGRAMS {
        let other = Path::new(KIT).join(name);
        let mut bytes = fs::read(&other).unwrap();
        bytes.extend_from_slice(b"another build");
        fs::remove_file(&other).unwrap();
        call::write_program(&other, &bytes);
    }
    let list = fs::read(LIST).unwrap();
    fs::write("/etc/nodeplug/device-plugin.yaml", "# mine\n").unwrap();
    done(&[]);
    assert_installed();
    assert_eq!(fs::read(LIST).unwrap(), list, "an upgrade without flags keeps the network");
    assert!(asked().contains("restart nodeplug-device-plugin"));
    done(&["--uninstall"]);
    assert_gone();
    assert!(asked().contains("disable --quiet --now nodeplug-device-plugin"));
    let kept = fs::read_to_string("/etc/nodeplug/device-plugin.yaml").unwrap();
    assert_eq!(kept, "# mine\n", "what a person wrote is a person's");
}

/// From another clone, where nothing was built.
fn without_programs(node: &Node) {
    lay_out(node);
    let _containerd = Containerd::looking_in(BIN);
    done(&["--", "--pod-cidr", "10.66.0.0/24"]);
    for (_, name) in PROGRAMS {
        fs::remove_file(Path::new(KIT).join(name)).unwrap();
    }
    done(&["--uninstall"]);
    assert_gone();
    // The harness's own, where nothing else is said: a mount.
    let mounted = format!("{PLUGINS}/nodeplug-cni");
    call::tool(&["umount", &mounted]);
    fs::remove_file(&mounted).unwrap();
    let nothing = done(&["--uninstall"]);
    for name in ["nodeplug-cni", "nodeplug-flexvolume"] {
        assert!(nothing.stdout.contains(&format!("absent     {name}")), "{nothing:?}");
    }
    // A record that says otherwise is not passed over.
    fs::create_dir_all("/var/lib/nodeplug/cni").unwrap();
    fs::write("/var/lib/nodeplug/cni/installed.json", "{\n  \"folder\": \"/opt/bin\"\n}\n").unwrap();
    let torn = script(&["--uninstall", "cni"]);
    assert!(torn.exit == Some(1) && torn.stderr.contains("no nodeplug-cni is there"), "{torn:?}");
}

fn links(node: &Node) {
    lay_out(node);
    let (root, outside) = (PathBuf::from("/opt/root"), PathBuf::from("/opt/outside"));
    fs::create_dir_all(root.join("usr")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, root.join("usr/local")).unwrap();
    let refused = script(&["--root", root.to_str().unwrap(), "device-plugin"]);
    assert!(refused.exit == Some(1) && refused.stderr.contains("a link leads out of it"), "{refused:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // One that stays inside is the distribution's affair.
    fs::remove_file(root.join("usr/local")).unwrap();
    fs::create_dir_all(root.join("opt/local")).unwrap();
    symlink("../opt/local", root.join("usr/local")).unwrap();
    done(&["--root", root.to_str().unwrap(), "device-plugin"]);
    assert!(root.join("opt/local/bin/nodeplug-device-plugin").exists());
}
