//! An image that several pods read.

use std::fs;

use harness::call::tool;
use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;

use super::shown::Shown;
use super::{POOL, Running};

/// Two pods, one squashfs.
pub fn show(shown: &mut Shown, node: &VolumeNode, kubelet: &Kubelet) -> Vec<Running> {
    shown.title("2. A read-only image, shared by two pods");
    let (path, sum) = image();
    let volume = |name: &str| {
        let volume = kubelet.pod("default", name).inline("nodeplug/image", "words");
        volume.option("path", &path).option("sha256", &sum).read_only()
    };
    let volumes = ["web", "db"].map(volume);
    let mut pods = Vec::new();
    for volume in volumes {
        let pod = volume.pod().name.clone();
        shown.outcome(&format!("mount `words` of {pod}"), &kubelet.set_up(&volume), &Outcome::Mounted);
        let container = kubelet.container(&[&volume]);
        let read = container.run("cat /mnt/words/greeting");
        shown.same(&format!("{pod} reads"), &read.stdout, "good morning");
        let write = container.run("echo x > /mnt/words/mine");
        let why = write.stderr.rsplit(": ").next().unwrap_or_default().trim().to_owned();
        shown.row(&format!("{pod} writes"), &format!("refused: {why}"), !write.ok());
        pods.push(Running { volume, container: Some(container) });
    }
    let devices: Vec<String> = pods.iter().map(|pod| device(&pod.volume)).collect();
    shown.row("the filesystems of both", &devices.join(" and "), devices.iter().all(|d| *d == devices[0]));
    shown.same("loop devices for both", &node.loops().len().to_string(), "1");
    let other = kubelet.pod("default", "other").inline("nodeplug/image", "words").option("path", &path);
    let other = other.option("sha256", &"0".repeat(64)).read_only();
    let outcome = kubelet.set_up(&other);
    shown.outcome("mount it with another checksum", &outcome, &Outcome::Refused(String::new()));
    pods
}

/// A squashfs with one file, and its checksum.
fn image() -> (String, String) {
    let (folder, path) = (format!("{POOL}/.content"), format!("{POOL}/words.squashfs"));
    fs::create_dir(&folder).expect("make a folder");
    fs::write(format!("{folder}/greeting"), "good morning\n").expect("write a file");
    tool(&["mksquashfs", &folder, &path, "-quiet", "-no-progress"]);
    fs::remove_dir_all(&folder).expect("remove the folder");
    let sum = tool(&["sha256sum", &path]).split(' ').next().unwrap_or_default().to_owned();
    (path, sum)
}

/// The device number of what is mounted.
fn device(volume: &Volume) -> String {
    mounts_at(&volume.path()).pop().map_or_else(|| "none".to_owned(), |m| m.device)
}
