//! Our program is replaced while the runtime calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::call::{self, Answer, tool};
use harness::container_node::{ContainerNode, OTHER, OURS};
use harness::containerd::{Containerd, at_once, meanwhile};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::crowd::{AT_ONCE, pods};
use crate::networks::{SUBNETS, chain, containerd, whole};

pub fn trials() -> Vec<Trial> {
    vec![
        containerd("installs_by_the_script_under_load_refuse_no_pod", |node| {
            let kits = [kit(OURS, "/var/lib/harness/kit"), kit(OTHER, "/var/lib/harness/kit.other")];
            let script = |n: usize| {
                let mut bash = Command::new("bash");
                call::run(bash.arg(&kits[n]).args(["cni", "--", "--as-reference"]), b"")
            };
            under_load(node, &whole("routed", &SUBNETS), script);
        }),
        containerd("installs_under_load_refuse_no_pod_of_the_references_names", |node| {
            let program = |n: usize| node.install_by([OURS, OTHER][n], &["--as-reference"]);
            under_load(node, &chain(SUBNETS[0]), program);
        }),
    ]
}

/// An archive of a release, unpacked: the path of its script.
fn kit(program: &str, folder: &str) -> PathBuf {
    let scripts = Path::new(folder).join("scripts");
    fs::create_dir_all(&scripts).unwrap();
    fs::write(scripts.join("install"), include_str!("../../../scripts/install")).unwrap();
    fs::write(scripts.join("needs"), include_str!("../../../scripts/needs")).unwrap();
    tool(&["cp", program, &format!("{folder}/nodeplug-cni")]);
    scripts.join("install")
}

/// How often it is installed while pods start and end.
const INSTALLS: usize = 10;

/// `install` installs the one build or the other.
fn under_load(node: &ContainerNode, list: &Value, install: impl Fn(usize) -> Answer + Sync) {
    node.install(&["--as-reference"]);
    node.network("10-pods", list);
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let mut build = 0;
    // One build over the other until it is enough.
    let mut install = || {
        build = 1 - build;
        let answer = install(build);
        assert!(answer.ok() && answer.stdout.contains("upgraded"), "{answer:?}");
        true
    };
    let mut ends = Vec::new();
    let mut installed = 0;
    while installed < INSTALLS {
        let (more, times) = meanwhile(&mut install, || {
            at_once(AT_ONCE, &pods(40), |pod| {
                let sandbox = kubelet.run(pod).map_err(|e| format!("{pod:?}: {e}"));
                sandbox.map(|id| kubelet.end(&id))
            })
        });
        ends.extend(more);
        installed += times;
    }
    let refused: Vec<_> = ends.iter().filter(|end| end.as_ref().map_or(true, |r| !r.is_empty())).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    node.assert_nothing_left("when all pods are gone");
}
