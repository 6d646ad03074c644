//! Our program is replaced while the runtime calls it.

use harness::container_node::{ContainerNode, OTHER, OURS};
use harness::containerd::{Containerd, at_once, meanwhile};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::crowd::{AT_ONCE, pods};
use crate::networks::{SUBNETS, chain, containerd, whole};

pub fn trials() -> Vec<Trial> {
    vec![
        containerd("installs_under_load_refuse_no_pod", |node| under_load(node, &whole("routed", &SUBNETS))),
        containerd("installs_under_load_refuse_no_pod_of_the_references_names", |node| {
            under_load(node, &chain(SUBNETS[0]));
        }),
    ]
}

fn under_load(node: &ContainerNode, list: &Value) {
    node.install(&["--as-reference"]);
    node.network("10-pods", list);
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let mut builds = [OTHER, OURS].into_iter().cycle();
    // One build over the other until it is enough.
    let install = || {
        let answer = node.install_by(builds.next().unwrap(), &["--as-reference"]);
        assert!(answer.ok() && answer.stdout.contains("upgraded"), "{answer:?}");
        true
    };
    let (ends, installed) = meanwhile(install, || {
        at_once(AT_ONCE, &pods(40), |pod| {
            let sandbox = kubelet.run(pod).map_err(|e| format!("{pod:?}: {e}"));
            sandbox.map(|id| kubelet.end(&id))
        })
    });
    let refused: Vec<_> = ends.iter().filter(|end| end.as_ref().map_or(true, |r| !r.is_empty())).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(installed > 10, "{installed} installs");
    node.assert_nothing_left("when all pods are gone");
}
