//! The volumes of a page, and a node on which they can be mounted. What this machine has no server, no
//! kernel module or no disk for is stood in for: the driver, the policy and the options stay the page's own.

use std::collections::BTreeMap;
use std::fs;

use harness::call::tool;
use harness::kubelet::{Kubelet, Pod, Volume};
use harness::volume_node::VolumeNode;
use serde_json::Value;

use super::page::{block_with, blocks, page};

/// One volume of one pod.
pub struct Example {
    pub volume: Volume,
    /// Whether nobody may write to it.
    pub read_only: bool,
    /// Whether it can get larger.
    pub grows: bool,
}

/// What is exchanged in the page's texts.
const INSTEAD: [(&str, &str); 4] = [
    ("/sbin/mount.nfs", "/opt/mount.share"),
    ("/sbin/mount.cifs", "/opt/mount.share"),
    ("/usr/bin/sshfs", "/opt/sshfs"),
    ("/dev/disk/by-id/virtio-data-", "/dev/loop"),
];

/// Mounts the folder that stands for every share. Its second argument is the mountpoint.
const SHARE: &str = "#!/bin/sh\nexec mount --bind /srv/export \"$2\"\n";
/// sshfs itself, with the server's end in place of ssh. Its second argument is the mountpoint.
const SSHFS: &str = "#!/bin/sh\nexec sshfs host:/srv/export \"$2\" -f -o ssh_command=/opt/ssh\n";
const SSH: &str = "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n";

/// The page's policy on this node, and all that its volumes name.
pub fn prepare(node: &VolumeNode) {
    for folder in ["/srv/export/default", "/srv/shared", "/srv/images", "/srv/upper", "/var/lib/volumes"] {
        fs::create_dir_all(folder).expect(folder);
    }
    for (layer, file) in [("base", "one"), ("app", "two")] {
        fs::create_dir_all(format!("/srv/layers/{layer}")).expect(layer);
        fs::write(format!("/srv/layers/{layer}/{file}"), file).expect(file);
    }
    tool(&["mksquashfs", "/srv/layers", "/srv/images/words.squashfs", "-quiet", "-no-progress"]);
    node.write_program("/opt/mount.share".as_ref(), SHARE);
    node.write_program("/opt/sshfs".as_ref(), SSHFS);
    node.write_program("/opt/ssh".as_ref(), SSH);
    tool(&["truncate", "-s", "64M", "/var/lib/harness/disk"]);
    let device = tool(&["losetup", "--find", "--show", "/var/lib/harness/disk"]);
    fs::write("/var/lib/harness/device", device.trim()).expect("note the device");
    node.keep();
    node.policy(&stand_in(&block_with(&page(), "\nbackends:")));
}

/// The text with what this machine has.
pub fn stand_in(text: &str) -> String {
    let mut text = text.to_owned();
    let device = fs::read_to_string("/var/lib/harness/device").expect("the device");
    let sum = tool(&["sha256sum", "/srv/images/words.squashfs"]);
    let sum = sum.split(' ').next().unwrap_or_default();
    text = text.replace("/dev/disk/by-id/virtio-data-1", &device);
    for (written, there) in INSTEAD {
        text = text.replace(written, there);
    }
    // Whatever checksum stands there.
    let words: Vec<&str> = text.split_whitespace().collect();
    let long = |word: &&&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let written = words.iter().find(long).map(|word| (*word).to_owned());
    written.map_or(text.clone(), |written| text.replace(&written, sum))
}

/// Every volume of every pod, in the page's order. A PersistentVolume that no pod claims gets one.
pub fn examples(kubelet: &Kubelet, page: &str) -> Vec<Example> {
    let documents = documents(page);
    let secrets = secrets(page);
    let mut found = Vec::new();
    for document in &documents {
        match document["kind"].as_str() {
            Some("Pod") => {
                let pod = kubelet.pod("default", text(&document["metadata"]["name"]));
                let group = &document["spec"]["securityContext"]["fsGroup"];
                // A pod that shows a device has none.
                for volume in document["spec"]["volumes"].as_array().into_iter().flatten() {
                    if volume["flexVolume"].is_object() {
                        found.push(inline(&pod, volume, group, &secrets));
                    }
                }
            }
            Some("PersistentVolume") => {
                let claim = kubelet.pod("default", "claimant");
                found.push(persistent(&claim, document, &secrets));
            }
            _ => {}
        }
    }
    found
}

/// The documents of all blocks that are Kubernetes' objects.
fn documents(page: &str) -> Vec<Value> {
    let objects = blocks(page).into_iter().filter(|block| block.contains("\nkind: "));
    let texts: Vec<String> =
        objects.flat_map(|b| b.split("\n---\n").map(stand_in).collect::<Vec<_>>()).collect();
    texts.iter().map(|text| serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))).collect()
}

/// Type and key of each Secret that the page makes by `kubectl create secret generic NAME --type=…`.
fn secrets(page: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut found = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("kubectl create secret generic ")) {
        let mut words = line.split(' ').skip(4);
        let name = words.next().expect("a Secret's name").to_owned();
        let kind = line.split("--type=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a type");
        let keys = line.split("--from-").skip(1).filter_map(|part| part.split('=').nth(1));
        found.insert(name, (kind.to_owned(), keys.map(str::to_owned).collect()));
    }
    found
}

type Secrets = BTreeMap<String, (String, Vec<String>)>;

fn inline(pod: &Pod, volume: &Value, group: &Value, secrets: &Secrets) -> Example {
    let flex = &volume["flexVolume"];
    let mut made = pod.inline(text(&flex["driver"]), text(&volume["name"]));
    if flex["readOnly"] == true {
        made = made.read_only();
    }
    if let Some(group) = group.as_u64().and_then(|g| u32::try_from(g).ok()) {
        made = made.fs_group(group);
    }
    finish(made, flex, secrets)
}

fn persistent(claim: &Pod, document: &Value, secrets: &Secrets) -> Example {
    let flex = &document["spec"]["flexVolume"];
    assert_eq!(flex["readOnly"], Value::Null, "the kubelet ignores `readOnly` of a PersistentVolume");
    let made = claim.persistent(text(&flex["driver"]), text(&document["metadata"]["name"]));
    let example = finish(made, flex, secrets);
    Example { grows: flex["driver"] == "nodeplug/image", ..example }
}

fn finish(mut volume: Volume, flex: &Value, secrets: &Secrets) -> Example {
    volume = volume.fs_type(flex["fsType"].as_str().unwrap_or_default());
    if let Some(name) = flex["secretRef"]["name"].as_str() {
        let (kind, keys) = secrets.get(name).unwrap_or_else(|| panic!("no line makes the Secret `{name}`"));
        for key in keys {
            volume = volume.secret(key, b"correct horse");
        }
        volume = volume.secret_type(kind);
    }
    let options = flex["options"].as_object().into_iter().flatten();
    for (key, value) in options {
        volume = volume.option(key, text(value));
    }
    let read_only = flex["readOnly"] == true || flex["options"]["readOnly"] == "true";
    Example { volume, read_only, grows: false }
}

/// A string; the API server takes nothing else for an option.
#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}
