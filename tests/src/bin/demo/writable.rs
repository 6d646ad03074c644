//! An image that one pod at a time has, and that grows.

use harness::kubelet::{Container, Kubelet, Outcome, Volume};

use super::shown::Shown;
use super::{POOL, Running};

const MIB: u64 = 1 << 20;

/// A pod makes it, fills it, sees it grow and leaves it to the next.
pub fn show(shown: &mut Shown, kubelet: &Kubelet) -> Vec<Running> {
    shown.title("3. A read-write image: made, used alone, grown in use, kept");
    let first = disk(kubelet, "first");
    shown.outcome("mount the new image for pod first", &kubelet.set_up(&first), &Outcome::Mounted);
    let container = kubelet.container(&[&first]);
    let written = container.run("echo 'day one' > /mnt/disk/diary && sync && cat /mnt/disk/diary");
    shown.same("first writes and reads", &written.stdout, "day one");
    let before = size(&container);
    let second = disk(kubelet, "second");
    let refused = kubelet.set_up(&second);
    shown.outcome("mount it for pod second, too", &refused, &Outcome::Refused(String::new()));
    let grown = kubelet.expand(&first, 400 * MIB, 300 * MIB);
    shown.outcome("expandfs from 300Mi to 400Mi", &grown, &Outcome::Expanded);
    let after = size(&container);
    let seen = format!("{} and then {} MiB", before / MIB, after / MIB);
    shown.row("what the running container sees", &seen, after > before + 90 * MIB);
    let kept = container.run("cat /mnt/disk/diary");
    shown.same("its file", &kept.stdout, "day one");
    container.stop();
    shown.outcome("first ends: unmount", &kubelet.tear_down(&first), &Outcome::Unmounted);
    shown.outcome("second tries again", &kubelet.set_up(&second), &Outcome::Mounted);
    let container = kubelet.container(&[&second]);
    let found = container.run("cat /mnt/disk/diary");
    shown.same("second reads what first wrote", &found.stdout, "day one");
    vec![Running { volume: second, container: Some(container) }]
}

fn disk(kubelet: &Kubelet, pod: &str) -> Volume {
    let volume = kubelet.pod("default", pod).persistent("nodeplug/image", "disk").fs_type("xfs");
    volume.option("path", &format!("{POOL}/disk.xfs")).option("size", "300Mi").option("create", "ifMissing")
}

/// Bytes of the filesystem, as the container sees them.
fn size(container: &Container) -> u64 {
    let blocks = container.run("stat -f -c '%b %S' /mnt/disk").stdout;
    let numbers: Vec<u64> = blocks.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    numbers.iter().product()
}
