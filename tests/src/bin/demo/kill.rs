//! kill -9 in the middle of a mount, and what the kubelet's next try makes of it.

use std::fs;
use std::path::Path;

use harness::kernel::trace;
use harness::kubelet::{Doom, Fate, Kubelet, Outcome, Volume};
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;

use super::shown::Shown;
use super::{POOL, Running};

/// A new image is made and mounted; the driver dies at several places on the way, and then does not.
pub fn show(shown: &mut Shown, node: &VolumeNode, kubelet: &Kubelet) -> Vec<Running> {
    shown.title("5. kill -9 in the middle of a mount");
    let all = system_calls(kubelet, &image(kubelet, "uncut"));
    let volume = image(kubelet, "cut");
    let loops = node.loops().len();
    for tenth in [2, 4, 6, 8, 9] {
        let n = all * tenth / 10;
        kubelet.doom_next("mount", Doom::KillAfter(n));
        kubelet.set_up(&volume);
        let killed = matches!(kubelet.fate(), Some(Fate::Killed(_)));
        let mounted = mounts_at(&volume.path()).len();
        let left = format!("{mounted} mounted, files begun: {}", unfinished());
        shown.row(&format!("killed after {n} of {all} system calls"), &left, killed && mounted == 0);
    }
    shown.outcome("the kubelet's next try", &kubelet.set_up(&volume), &Outcome::Mounted);
    shown.same("mounts of it", &mounts_at(&volume.path()).len().to_string(), "1");
    shown.same("loop devices of it", &(node.loops().len() - loops).to_string(), "1");
    shown.same("files begun and not finished", &unfinished().to_string(), "0");
    let container = kubelet.container(&[&volume]);
    let written = container.run("echo whole > /mnt/cut/file && cat /mnt/cut/file");
    shown.same("its pod writes and reads", &written.stdout, "whole");
    vec![Running { volume, container: Some(container) }]
}

fn image(kubelet: &Kubelet, name: &str) -> Volume {
    let volume = kubelet.pod("default", name).inline("nodeplug/volume", name).option("backend", "image");
    let volume = volume.option("pool", POOL).option("name", "${pod.name}.ext4");
    volume.option("size", "64Mi").option("create", "ifMissing").option("retain", "delete")
}

/// How many system calls the driver makes for a mount that nothing disturbs.
fn system_calls(kubelet: &Kubelet, volume: &Volume) -> usize {
    let json = volume.mount_json().expect("the options");
    fs::create_dir_all(volume.path()).expect("make the volume's folder");
    let call = kubelet.driver_call(volume.driver(), &["mount", &volume.path().to_string_lossy(), &json]);
    let (count, _) = trace::count(&call);
    kubelet.tear_down(volume).unmounted();
    count
}

/// Files that a mount has begun and not finished: their names are hidden.
fn unfinished() -> usize {
    let entries = fs::read_dir(Path::new(POOL)).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with('.')).count()
}
