//! Drivers that attach, and volumes that grow.

use harness::kubelet::{Attacher, Kubelet, Outcome, Recorded};
use harness::suite::scripted;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::scripts::{FAIL, INIT, OK, TMPFS, UNMOUNT, script, tmpfs};

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("attaching_is_as_a_whole_kubelet_does_it", &[], as_a_whole_kubelet),
        scripted("inline_volumes_of_one_name_share_their_device", &[], one_name),
        scripted("attaching_has_defaults", &[], defaults),
        scripted("an_attached_volume_is_asked_for", &[], is_attached),
        scripted("a_name_that_fails_fails_the_attaching", &[], failing_name),
        scripted("a_volume_grows_by_two_calls", &[], grows),
        scripted("an_attached_volume_grows_at_its_device", &[], grows_at_its_device),
        scripted("a_driver_that_needs_no_second_call_gets_none", &[], grows_by_one_call),
        scripted("an_inline_volume_does_not_grow", &[], inline_does_not_grow),
    ]
}

const ATTACHING: &str = r#"echo '{"status":"Success","capabilities":{"attach":true}}'"#;
const DEVICE: &str = r#"echo '{"status":"Success","device":"/dev/refdisk0"}'"#;

fn attaching() -> String {
    script(&[
        ("init", ATTACHING),
        ("getvolumename", r#"echo '{"status":"Success","volumeName":"ignored"}'"#),
        ("attach|waitforattach", DEVICE),
        ("isattached", r#"echo '{"status":"Success","attached":true}'"#),
        ("mountdevice", TMPFS),
        ("mount", OK),
        ("unmount|unmountdevice", UNMOUNT),
        ("detach|expandvolume|expandfs", OK),
    ])
}

fn lines(kubelet: &Kubelet, driver: &str) -> Vec<String> {
    let line = |c: Recorded| format!("{}: {}", c.caller, c.arguments.join(" "));
    kubelet.calls().into_iter().filter(|c| c.driver == driver).map(line).collect()
}

fn as_a_whole_kubelet(node: &VolumeNode) {
    node.install_script("vendor/loggeratt", &attaching());
    let kubelet = node.kubelet().attacher(Attacher::Both);
    let mut pod = kubelet.pod("default", "loggeratt");
    pod.uid = "2b1786e6-1e52-49e3-9067-e6a278619580".to_owned();
    let volume =
        pod.inline("vendor/loggeratt", "vol").fs_type("ext4").option("volumeID", "disk-7").read_only();
    kubelet.set_up(&volume).mounted();
    kubelet.tear_down(&volume).unmounted();
    let json = r#"{"kubernetes.io/fsType":"ext4","kubernetes.io/pvOrVolumeName":"vol","kubernetes.io/readwrite":"ro","volumeID":"disk-7"}"#;
    let mount = concat!(
        r#"{"kubernetes.io/fsType":"ext4","kubernetes.io/pod.name":"loggeratt","#,
        r#""kubernetes.io/pod.namespace":"default","#,
        r#""kubernetes.io/pod.uid":"2b1786e6-1e52-49e3-9067-e6a278619580","#,
        r#""kubernetes.io/pvOrVolumeName":"vol","kubernetes.io/readwrite":"ro","#,
        r#""kubernetes.io/serviceAccount.name":"default","volumeID":"disk-7"}"#,
    );
    let device = "/var/lib/kubelet/plugins/kubernetes.io/flexvolume/vendor/loggeratt/mounts/vol";
    let path = "/var/lib/kubelet/pods/2b1786e6-1e52-49e3-9067-e6a278619580/volumes/vendor~loggeratt/vol";
    let expect = [
        "kubelet: init".to_owned(),
        "kube-controller-manager: init".to_owned(),
        format!("kube-controller-manager: getvolumename {json}"),
        format!("kube-controller-manager: attach {json} localhost"),
        format!("kubelet: getvolumename {json}"),
        format!("kubelet: attach {json} localhost"),
        format!("kubelet: waitforattach /dev/refdisk0 {json}"),
        format!("kubelet: mountdevice {device} /dev/refdisk0 {json}"),
        format!("kubelet: mount {path} {mount}"),
        format!("kubelet: unmount {path}"),
        format!("kubelet: unmountdevice {device}"),
        "kube-controller-manager: detach vol localhost".to_owned(),
        "kubelet: detach vol localhost".to_owned(),
    ];
    assert_eq!(lines(&kubelet, "vendor/loggeratt"), expect);
    kubelet.end(&pod);
}

fn one_name(node: &VolumeNode) {
    node.install_script("test/disk", &attaching());
    let kubelet = node.kubelet();
    let [one, two] = ["one", "two"].map(|name| kubelet.pod("default", name).inline("test/disk", "data"));
    assert_eq!(one.device_path(), two.device_path());
    kubelet.set_up(&one).mounted();
    kubelet.set_up(&two).mounted();
    assert_eq!(mounts_at(&one.device_path()).len(), 1, "the second one finds the first one's");
    kubelet.tear_down(&one).unmounted();
    assert_eq!(mounts_at(&one.device_path()).len(), 1);
    kubelet.tear_down(&two).unmounted();
    assert!(!one.device_path().exists());
}

fn defaults(node: &VolumeNode) {
    node.install_script("test/disk", &script(&[("init", OK), ("mount", TMPFS), ("unmount", UNMOUNT)]));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    kubelet.set_up(&volume).mounted();
    assert!(kubelet.is_attached(&volume), "a driver that cannot say is believed");
    kubelet.tear_down(&volume).unmounted();
    let verbs = kubelet.verbs("test/disk");
    assert_eq!(verbs, ["init", "waitforattach", "mountdevice", "mount", "unmount"]);
}

fn is_attached(node: &VolumeNode) {
    node.install_script("test/disk", &attaching());
    let no = r#"echo '{"status":"Success"}'"#;
    node.install_script("test/gone", &script(&[("init", ATTACHING), ("isattached", no)]));
    let kubelet = node.kubelet();
    let pod = kubelet.pod("default", "web");
    assert!(kubelet.is_attached(&pod.inline("test/disk", "data")));
    assert!(!kubelet.is_attached(&pod.inline("test/gone", "data")));
    let call = kubelet.calls().pop().unwrap();
    assert_eq!((call.caller, call.arguments[2].as_str()), ("kube-controller-manager", "localhost"));
}

fn failing_name(node: &VolumeNode) {
    node.install_script("test/disk", &script(&[("init", ATTACHING), ("getvolumename", FAIL)]));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    let outcome = kubelet.set_up(&volume);
    assert_eq!(outcome.refused(), "getvolumename command failed, status: Failure, reason: no disk");
    assert!(kubelet.events()[0].starts_with("AttachVolume.Attach failed"), "{:?}", kubelet.events());
}

fn grows(node: &VolumeNode) {
    let verbs =
        [("init", r#"echo '{"status":"Success","capabilities":{"attach":false}}'"#), ("mount", TMPFS)];
    let more = [("unmount", UNMOUNT), ("expandvolume", OK), ("expandfs", OK)];
    node.install_script("test/disk", &script(&[&verbs[..], &more].concat()));
    let kubelet = node.kubelet();
    let volume =
        kubelet.pod("default", "web").persistent("test/disk", "pv-1").fs_type("ext4").secret("k", b"v");
    kubelet.set_up(&volume).mounted();
    assert_eq!(kubelet.expand(&volume, 2048, 1024), Outcome::Expanded);
    let json = r#"{"kubernetes.io/fsType":"ext4","kubernetes.io/pvOrVolumeName":"pv-1","kubernetes.io/readwrite":"rw"}"#;
    let (device, path) = (volume.device_path(), volume.path());
    let expect = [
        format!("kube-controller-manager: getvolumename {json}"),
        format!("kube-controller-manager: expandvolume {json} {} 2048 1024", device.display()),
        // The device's path is an empty argument.
        format!("kubelet: expandfs {json}  {} 2048 1024", path.display()),
    ];
    let lines = lines(&kubelet, "test/disk");
    assert_eq!(lines[lines.len() - 3..], expect);
    assert_eq!(kubelet.calls().pop().unwrap().arguments.len(), 6);
    kubelet.end(volume.pod());
}

fn grows_at_its_device(node: &VolumeNode) {
    node.install_script("test/disk", &attaching());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").persistent("test/disk", "pv-1");
    kubelet.set_up(&volume).mounted();
    assert_eq!(kubelet.expand(&volume, 2, 1), Outcome::Expanded);
    let arguments = kubelet.calls().pop().unwrap().arguments;
    let device = volume.device_path();
    assert_eq!(arguments[2..], ["/dev/refdisk0", device.to_str().unwrap(), "2", "1"]);
}

fn grows_by_one_call(node: &VolumeNode) {
    let init = r#"echo '{"status":"Success","capabilities":{"attach":false,"requiresFSResize":false}}'"#;
    node.install_script("test/disk", &script(&[("init", init), ("mount", TMPFS)]));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").persistent("test/disk", "pv-1");
    kubelet.set_up(&volume).mounted();
    assert_eq!(kubelet.expand(&volume, 2, 1), Outcome::Expanded);
    assert_eq!(kubelet.verbs("test/disk"), ["init", "mount"]);
}

fn inline_does_not_grow(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    node.install_script("test/none", &script(&[("init", INIT)]));
    let kubelet = node.kubelet();
    let pod = kubelet.pod("default", "web");
    let outcome = kubelet.expand(&pod.inline("test/disk", "data"), 2, 1);
    assert_eq!(outcome.refused(), "PersistentVolume not found for spec: data");
    // The kubelet would grow a device of which it has no name.
    let outcome = kubelet.expand(&pod.persistent("test/none", "pv"), 2, 1);
    assert!(outcome.refused().contains("no device path"), "{outcome:?}");
}
