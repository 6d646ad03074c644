//! `demo [flexvolume|device-plugin]`: pods get their volumes from `nodeplug-flexvolume`, or their devices from
//! `nodeplug-device-plugin`, as a kubelet asks for them, on a node that exists only in namespaces of its own. Prints
//! what was shown, and whether it is as it should be; exit code 1 when not.
//!
//! `NODEPLUG_FLEXVOLUME=PATH` and `NODEPLUG_DEVICE_PLUGIN=PATH` name the programs. `scripts/demo` is how a person
//! starts this.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a demonstration prints, and stops at the first surprise"
)]

mod devices;
mod kill;
mod secret;
mod shared;
mod shown;
mod writable;

use std::path::Path;
use std::process::ExitCode;
use std::thread;

use harness::call::try_tool;
use harness::kubelet::{Container, Kubelet, Outcome, PLUGINS, Volume};
use harness::volume_look::{STATE, files, mounts};
use harness::volume_node::VolumeNode;

use shown::Shown;

/// Pods of every namespace may have images in one folder; tmpfs as without a policy.
const POLICY: &str = "\
backends:
  tmpfs: {}
  image:
    roots: [{path: /var/lib/volumes, create: true}]
";
/// Where the images lie.
const POOL: &str = "/var/lib/volumes";

/// A pod that runs: its volumes, and its container where it has one.
struct Running {
    volume: Volume,
    container: Option<Container>,
}

fn main() -> ExitCode {
    let show = match std::env::args().nth(1).as_deref() {
        Some("device-plugin") => devices::demonstrate,
        _ => demonstrate,
    };
    // The node's namespaces end with this thread.
    let shown = thread::spawn(show).join();
    match shown {
        Ok(shown) if shown.all_well() => ExitCode::SUCCESS,
        // A panic has told its reason, and its node is gone with its thread.
        _ => ExitCode::FAILURE,
    }
}

fn demonstrate() -> Shown {
    let node = VolumeNode::enter();
    node.policy(POLICY);
    std::fs::create_dir_all(POOL).expect("make the folder of images");
    let kubelet = node.kubelet();
    let mut shown = Shown::default();
    let mut pods = Vec::new();
    pods.extend(secret::show(&mut shown, &kubelet));
    pods.extend(shared::show(&mut shown, &node, &kubelet));
    pods.extend(writable::show(&mut shown, &kubelet));
    list(&mut shown);
    pods.extend(kill::show(&mut shown, &node, &kubelet));
    end(&mut shown, &node, &kubelet, pods);
    shown
}

/// The node's volumes, as an operator sees them.
fn list(shown: &mut Shown) {
    shown.title("4. What an operator sees: nodeplug-flexvolume list");
    let program = format!("{PLUGINS}/nodeplug~volume/volume");
    let answer = try_tool(&[&program, "list"]);
    shown.text(&answer.stdout);
    shown.row("all of them", if answer.ok() { "fine" } else { answer.stderr.trim() }, answer.ok());
}

/// Ends all pods; nothing may be left of their volumes.
fn end(shown: &mut Shown, node: &VolumeNode, kubelet: &Kubelet, pods: Vec<Running>) {
    shown.title("6. All pods end");
    for Running { volume, container } in pods {
        drop(container);
        let outcome = kubelet.tear_down(&volume);
        let pod = &volume.pod().name;
        shown.outcome(&format!("unmount `{}` of {pod}", volume.name()), &outcome, &Outcome::Unmounted);
        // The kubelet asks again where it has not seen the answer.
        let path = volume.path();
        let again = kubelet.call(volume.driver(), &["unmount", &path.to_string_lossy()]).one_object();
        if again["status"] != "Success" {
            shown.row("and once more", &again.to_string(), false);
        }
    }
    let own = mounts().into_iter().filter(|m| m.path.starts_with("/var/lib/kubelet")).count();
    shown.none("mounts", own);
    shown.none("loop devices", node.loops().len());
    shown.none("files in /run/nodeplug", files(Path::new(STATE)).len());
    let left = node.leftovers();
    shown.none("anything else: processes, cgroups, folders", left.len());
    for what in &left {
        shown.text(what);
    }
}
