//! Memory with a Secret's files in it.

use std::fs;
use std::path::Path;

use harness::kubelet::{Kubelet, Outcome};
use harness::volume_look::{STATE, files};

use super::Running;
use super::shown::Shown;

const PASSWORD: &str = "correct horse, battery";
const GROUP: u32 = 2000;

/// One pod, which reads its Secret and writes beside it.
pub fn show(shown: &mut Shown, kubelet: &Kubelet) -> Vec<Running> {
    shown.title("1. A tmpfs with a Secret");
    let pod = kubelet.pod("default", "web");
    let volume = pod.inline("nodeplug/tmpfs", "tokens").option("size", "1Mi").fs_group(GROUP);
    let volume = volume.secret("password", PASSWORD.as_bytes());
    shown.outcome("mount `tokens` of web", &kubelet.set_up(&volume), &Outcome::Mounted);
    let container = kubelet.container(&[&volume]);
    let read = container.run_as(1000, &[GROUP], "cat /mnt/tokens/password");
    shown.same("web, as a user of its group, reads", &read.stdout, PASSWORD);
    let mode = container.run("stat -c '%a %u:%g' /mnt/tokens/password");
    shown.same("the file's mode and owner", &mode.stdout, "440 0:2000");
    let write = container.run_as(1000, &[GROUP], "echo hello > /mnt/tokens/note && cat /mnt/tokens/note");
    shown.same("web writes a file and reads it", &write.stdout, "hello");
    let fill = container
        .run("head -c 2M /dev/zero > /mnt/tokens/big; stat -c %s /mnt/tokens/big; rm /mnt/tokens/big");
    let size: u64 = fill.stdout.trim().parse().unwrap_or(u64::MAX);
    shown.row("2 MiB into a volume of 1Mi", &format!("{size} bytes fit"), size < 1 << 20);
    let options = container.run("findmnt -no OPTIONS /mnt/tokens").stdout;
    let safe = ["nosuid", "nodev"].iter().all(|flag| options.contains(flag));
    shown.row("no suid bits, no devices", options.split(",relatime").next().unwrap_or_default(), safe);
    told(shown, kubelet);
    vec![Running { volume, container: Some(container) }]
}

/// Where somebody else could read the Secret.
fn told(shown: &mut Shown, kubelet: &Kubelet) {
    let mut places: Vec<String> = kubelet.log().into_iter().chain(kubelet.events()).collect();
    for file in files(Path::new(STATE)) {
        places.push(String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned());
    }
    let found =
        places.iter().filter(|text| text.contains("horse") || text.contains("Y29ycmVjdCBob3JzZ")).count();
    shown.row("the password in the log, events, state", &format!("found in {found} places"), found == 0);
}
