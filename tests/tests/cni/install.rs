//! The program takes the reference's names in a folder of plugins, and gives them back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use harness::call::{self, Answer, Launch};
use harness::kernel::trace::{self, End};
use harness::node::{Node, PLUGINS, REFERENCE, our_binary};
use harness::runtime::Runtime;
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{NAME, id};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("the_references_names_are_taken_and_given_back", there_and_back),
        ours("only_some_of_the_references_names", some),
        ours("a_program_that_came_meanwhile_is_kept", upgraded_meanwhile),
        ours("an_install_that_cannot_be_changes_nothing", refused),
        ours("an_install_of_cni_killed_anywhere_leaves_whole_programs", killed),
        ours("a_pod_lives_through_install_and_uninstall", a_pod_lives),
    ]
}

const NAMES: [&str; 10] = [
    "bridge",
    "ptp",
    "host-local",
    "static",
    "loopback",
    "portmap",
    "bandwidth",
    "firewall",
    "tuning",
    "sbr",
];
const BIN: &str = "/opt/bin";
const KEPT: &str = "/opt/bin/.nodeplug-originals";

/// The program as a person runs it.
#[derive(Debug)]
pub(crate) struct Person(Vec<String>);

impl Launch for Person {
    fn command(&self) -> Command {
        let mut command = Command::new(format!("{PLUGINS}/nodeplug-cni"));
        command.args(&self.0).env_remove("CNI_COMMAND");
        command
    }
}

pub(crate) fn person(words: &[&str]) -> Person {
    Person(words.iter().map(|w| (*w).to_owned()).collect())
}

/// Whatever the machine's own runtime uses: these folders are nobody's.
fn run(words: &[&str]) -> Answer {
    let mut words = words.to_vec();
    if words[0] == "install" && !words.contains(&"--force") {
        words.push("--force");
    }
    plainly(&words)
}

pub(crate) fn plainly(words: &[&str]) -> Answer {
    call::run(&mut person(words).command(), b"")
}

/// The reference's plugins as a package puts them there.
fn lay_out() {
    drop(fs::remove_dir_all(BIN));
    fs::create_dir(BIN).unwrap();
    for name in NAMES.iter().chain(&["dhcp"]) {
        fs::copy(Path::new(REFERENCE).join(name), Path::new(BIN).join(name)).unwrap();
    }
}

/// The same of small programs.
fn lay_out_small() {
    drop(fs::remove_dir_all(BIN));
    fs::create_dir(BIN).unwrap();
    for name in NAMES {
        script(&Path::new(BIN).join(name), &format!("# the package's {name}"), "1.0.0");
    }
}

pub(crate) fn script(path: &Path, comment: &str, version: &str) {
    let text = format!("#!/bin/sh\n{comment}\necho '{{\"supportedVersions\": [\"{version}\"]}}'\n");
    call::write_program(path, text.as_bytes());
}

/// Names and contents; hidden ones too.
fn files() -> BTreeMap<String, Vec<u8>> {
    let list = fs::read_dir(BIN).unwrap().flatten();
    list.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap_or_default())).collect()
}

/// What a program answers to VERSION.
#[track_caller]
fn versions(name: &str) -> Vec<String> {
    let mut command = Command::new(Path::new(BIN).join(name));
    command.env_clear().env("CNI_COMMAND", "VERSION").env("PATH", "/usr/bin:/bin");
    let answer = call::run(&mut command, br#"{"cniVersion":"1.0.0"}"#).success();
    answer["supportedVersions"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

fn is_ours(name: &str) -> bool {
    versions(name).contains(&"1.1.0".to_owned())
}

fn there_and_back(_node: &Node) {
    lay_out();
    let before = files();
    let answer = run(&["install", "--as-reference", BIN, "--output", "json"]);
    let report = answer.success();
    let of = |report: &Value, name: &str| -> String {
        let rows = report["names"].as_array().unwrap().iter();
        rows.filter(|r| r["name"] == name).map(|r| r["outcome"].as_str().unwrap().to_owned()).collect()
    };
    let inode = |name: &str| fs::metadata(Path::new(BIN).join(name)).unwrap().ino();
    assert_eq!(of(&report, "nodeplug-cni"), "installed", "{report}");
    for name in NAMES {
        assert_eq!(of(&report, name), "replaced", "{report}");
        assert!(is_ours(name), "{name}");
        assert_eq!(inode(name), inode("nodeplug-cni"), "{name} is a name of the one file");
        assert_eq!(fs::read(Path::new(KEPT).join(name)).unwrap(), before[name], "{name} is kept");
    }
    assert_eq!(files()["dhcp"], before["dhcp"]);
    // Once more: nothing changes, and the originals are not taken for old ones.
    let again = run(&["install", "--as-reference", BIN, "--output", "json"]).success();
    for name in NAMES {
        assert_eq!(of(&again, name), "unchanged", "{again}");
        assert_eq!(fs::read(Path::new(KEPT).join(name)).unwrap(), before[name], "{name} is kept");
    }
    // An operator's own copy under a name is another version of ours: its original stays.
    fs::remove_file(format!("{BIN}/ptp")).unwrap();
    fs::copy(our_binary(), format!("{BIN}/ptp")).unwrap();
    assert_eq!(of(&run(&["install", "--as-reference", BIN, "-o", "json"]).success(), "ptp"), "upgraded");
    let answer = run(&["uninstall", BIN]);
    assert!(answer.ok() && answer.stdout.contains("restored"), "{answer:?}");
    assert_eq!(files(), before);
    let answer = run(&["uninstall", BIN]);
    assert!(answer.ok(), "what is gone is gone: {answer:?}");
    assert_eq!(files(), before);
}

fn some(_node: &Node) {
    lay_out();
    fs::remove_file(format!("{BIN}/sbr")).unwrap();
    let before = files();
    assert!(run(&["install", "--as-reference", "--only", "bridge,sbr", BIN]).ok());
    for name in NAMES {
        assert_eq!(is_ours(name), ["bridge", "sbr"].contains(&name), "{name}");
    }
    assert!(run(&["uninstall", "--only", "bridge", BIN]).ok());
    assert!(!is_ours("bridge") && is_ours("sbr") && is_ours("nodeplug-cni"));
    assert!(run(&["uninstall", BIN]).ok());
    assert_eq!(files(), before, "a name that nobody had is nobody's again");
    assert!(run(&["install", BIN]).ok());
    assert!(is_ours("nodeplug-cni") && !is_ours("bridge"));
    let wrong = run(&["install", "--as-reference", "--only", "brigde", BIN]);
    assert_eq!(wrong.exit, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("bridge"), "{wrong:?}");
}

fn upgraded_meanwhile(_node: &Node) {
    lay_out();
    assert!(run(&["install", "--as-reference", BIN]).ok());
    // A package manager unpacks beside and renames.
    let newer = |name: &str| {
        fs::copy(Path::new(REFERENCE).join("vlan"), format!("{BIN}/fresh")).unwrap();
        fs::rename(format!("{BIN}/fresh"), Path::new(BIN).join(name)).unwrap();
    };
    newer("bridge");
    let answer = run(&["uninstall", BIN]);
    assert!(answer.ok() && answer.stdout.contains("another program by now"), "{answer:?}");
    let theirs = fs::read(Path::new(REFERENCE).join("vlan")).unwrap();
    assert_eq!(files()["bridge"], theirs);
    assert!(!Path::new(KEPT).exists());
    // An install keeps the newer one.
    assert!(run(&["install", "--as-reference", BIN]).ok());
    newer("ptp");
    assert!(run(&["install", "--as-reference", BIN]).ok());
    assert!(is_ours("ptp") && is_ours("bridge"));
    assert!(run(&["uninstall", BIN]).ok());
    assert_eq!((&files()["bridge"], &files()["ptp"]), (&theirs, &theirs));
}

fn refused(_node: &Node) {
    lay_out();
    let before = files();
    let not_done = |words: &[&str], hint: &str| {
        let answer = run(words);
        assert_eq!(answer.exit, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(hint), "{hint} in {answer:?}");
        assert_eq!(files(), before, "{words:?}");
    };
    let mode = |mode| fs::set_permissions(BIN, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    not_done(&["install", "--as-reference", BIN], "chmod");
    not_done(&["uninstall", BIN], "chmod");
    mode(0o755);
    not_done(&["install", "--as-reference", BIN, "--from", "/bin/false"], "versions");
    not_done(&["install", "--as-reference", BIN, "--from", "/etc/passwd"], "versions");
    not_done(&["install", "--as-reference", "/opt/nowhere"], "/opt/nowhere");
    fs::remove_file(format!("{BIN}/sbr")).unwrap();
    fs::create_dir(format!("{BIN}/sbr")).unwrap();
    let answer = run(&["install", "--as-reference", BIN]);
    assert!(answer.exit == Some(1) && answer.stderr.contains("sbr"), "{answer:?}");
    assert!(!is_ours("bridge") && !Path::new(KEPT).exists());
}

/// The system calls that change what names there are.
pub(crate) const CHANGES: [i64; 10] = [
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_fsync,
];

fn killed(_node: &Node) {
    let source = "/opt/source";
    script(Path::new(source), "# nodeplug-cni: this file is the plugin", "1.1.0");
    let install = ["install", "--as-reference", "--only", "bridge,sbr", "--from", source, "--force", BIN];
    let uninstall = ["uninstall", BIN];
    let program = fs::read(source).unwrap();
    for (dies, next) in [
        (&install[..], &install[..]),
        (&install, &uninstall),
        (&uninstall, &uninstall),
        (&uninstall, &install),
    ] {
        for n in 0..500 {
            lay_out_small();
            let before = files();
            if dies[0] == "uninstall" {
                assert!(run(&install).ok());
            }
            let end = trace::kill_after_nth(&person(dies), &CHANGES, n);
            let when = format!("{} killed after change {n}, then {}: {end:?}", dies[0], next[0]);
            let now = files();
            for name in ["bridge", "sbr"] {
                assert!(now[name] == before[name] || now[name] == program, "{when}: {name} is broken");
                versions(name);
            }
            let answer = run(next);
            assert!(answer.ok(), "{when}: {answer:?}");
            if next[0] == "install" {
                assert!(files()["bridge"] == program && files()["sbr"] == program, "{when}");
                assert_eq!(fs::read(Path::new(KEPT).join("bridge")).unwrap(), before["bridge"], "{when}");
                assert!(run(&uninstall).ok(), "{when}");
            }
            assert!(files() == before, "{when}: {:?}", files().keys());
            if let End::Finished(answer) = end {
                assert!(answer.ok() && n > 8, "{n} changes: {answer:?}");
                break;
            }
        }
    }
}

/// The folder of plugins changes under a pod: what one program made, the other one deletes.
fn a_pod_lives(node: &Node) {
    lay_out();
    let config = json!({"cniVersion": "1.0.0", "name": NAME, "type": "bridge", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.66.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}});
    let runtime = Runtime::new(config);
    let bin = |verb: &str, id: &str, netns: &str, previous: Option<&Value>| {
        let mut call = runtime.call(verb, id, netns, previous).env("CNI_PATH", BIN);
        call.plugin = format!("{BIN}/bridge");
        call.run()
    };
    for (first, then) in [("uninstall", "install"), ("install", "uninstall")] {
        let change = |verb: &str| match verb {
            "install" => assert!(run(&["install", "--as-reference", BIN]).ok()),
            // The originals are there for what is left of the pod.
            _ => assert!(run(&["uninstall", "--force", BIN]).ok()),
        };
        change(first);
        let (pod, id) = (node.pod(), id("lives"));
        let result = bin("ADD", &id, pod.name(), None).success();
        change(then);
        assert!(bin("CHECK", &id, pod.name(), Some(&result)).ok(), "{then}");
        let node = Echo::on_node("10.66.0.1".parse().unwrap());
        assert!(ask(&pod, Protocol::Tcp, node.address).is_ok(), "{then}");
        assert!(bin("DEL", &id, pod.name(), Some(&result)).ok(), "{then}");
        assert!(harness::look::leases(NAME).is_empty() && harness::look::host_ends().is_empty(), "{then}");
        change("uninstall");
    }
}
