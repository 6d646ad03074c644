//! The calls of a whole kubelet and of its controller manager.

use std::fs;

use harness::kubelet::{Attacher, Kubelet, Volume};
use harness::suite::volume;
use harness::volume_look::{files, mounts_at};
use harness::volume_node::{OURS, VolumeNode};
use libtest_mimic::Trial;
use serde_json::json;

use crate::ours::{Call, STATE, program};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("every_call_of_a_whole_kubelet_gets_its_answer", &[], calls_of_a_whole_kubelet),
        volume("each_name_has_its_capabilities", &[], capabilities),
        volume("the_calls_of_drivers_that_attach_are_agreed_with", &[], attaching_calls),
        volume("a_driver_taken_for_one_that_attaches_does_no_harm", &[], taken_for_attaching),
    ]
}

/// The calls that a whole kubelet 1.36.2 and its controller manager were seen to make, by the capability
/// `attach`.
const SEEN: &[(&str, bool, &[&str])] = &[
    ("kubelet", false, &["init"]),
    ("kube-controller-manager", false, &["init"]),
    ("kubelet", true, &["init"]),
    ("kube-controller-manager", true, &["getvolumename", ATTACHED]),
    ("kube-controller-manager", true, &["attach", ATTACHED, "localhost"]),
    ("kubelet", true, &["getvolumename", ATTACHED]),
    ("kubelet", true, &["attach", ATTACHED, "localhost"]),
    ("kubelet", true, &["waitforattach", "/dev/refdisk0", ATTACHED]),
    ("kubelet", true, &["mountdevice", DEVICE_FOLDER, "/dev/refdisk0", ATTACHED]),
    (
        "kubelet",
        true,
        &[
            "mount",
            "/var/lib/kubelet/pods/2b1786e6-1e52-49e3-9067-e6a278619580/volumes/vendor~loggeratt/vol",
            r#"{"kubernetes.io/fsType":"ext4","kubernetes.io/pod.name":"loggeratt","kubernetes.io/pod.namespace":"default","kubernetes.io/pod.uid":"2b1786e6-1e52-49e3-9067-e6a278619580","kubernetes.io/pvOrVolumeName":"vol","kubernetes.io/readwrite":"ro","kubernetes.io/serviceAccount.name":"default","volumeID":"disk-7"}"#,
        ],
    ),
    ("kube-controller-manager", true, &["detach", "vol", "localhost"]),
    (
        "kubelet",
        true,
        &[
            "unmount",
            "/var/lib/kubelet/pods/2b1786e6-1e52-49e3-9067-e6a278619580/volumes/vendor~loggeratt/vol",
        ],
    ),
    ("kubelet", true, &["unmountdevice", DEVICE_FOLDER]),
    ("kubelet", true, &["detach", "vol", "localhost"]),
    (
        "kubelet",
        false,
        &[
            "mount",
            "/var/lib/kubelet/pods/d18e1b533c695e07976161b355b863fc/volumes/vendor~logger/v",
            r#"{"kubernetes.io/fsType":"","kubernetes.io/pod.name":"flexstatic-localhost","kubernetes.io/pod.namespace":"default","kubernetes.io/pod.uid":"d18e1b533c695e07976161b355b863fc","kubernetes.io/pvOrVolumeName":"v","kubernetes.io/readwrite":"rw","kubernetes.io/serviceAccount.name":"","opt1":"one"}"#,
        ],
    ),
    (
        "kubelet",
        false,
        &["unmount", "/var/lib/kubelet/pods/d18e1b533c695e07976161b355b863fc/volumes/vendor~logger/v"],
    ),
];
const ATTACHED: &str = r#"{"kubernetes.io/fsType":"ext4","kubernetes.io/pvOrVolumeName":"vol","kubernetes.io/readwrite":"ro","volumeID":"disk-7"}"#;
const DEVICE_FOLDER: &str = "/var/lib/kubelet/plugins/kubernetes.io/flexvolume/vendor/loggeratt/mounts/vol";

fn calls_of_a_whole_kubelet(node: &VolumeNode) {
    for name in OURS {
        for (caller, attach, arguments) in SEEN {
            if arguments[0] == "mount" {
                fs::create_dir_all(arguments[1]).unwrap();
            }
            let answer = Call::of(name, arguments).object();
            let told = format!("{caller} attach:{attach} {name} {}: {answer}", arguments[0]);
            if arguments[0] == "mount" {
                // The options are another driver's.
                let unknown = if *attach { "volumeID" } else { "opt1" };
                let message = answer["message"].as_str().unwrap();
                assert!(answer["status"] == "Failure", "{told}");
                assert!(name != "tmpfs" || message.contains(unknown), "{told}");
                fs::remove_dir(arguments[1]).unwrap();
            } else {
                assert_eq!(answer["status"], "Success", "{told}");
            }
        }
    }
    for pod in fs::read_dir("/var/lib/kubelet/pods").unwrap().flatten() {
        fs::remove_dir_all(pod.path()).unwrap();
    }
    let left: Vec<String> = files(STATE.as_ref()).iter().map(|f| f.display().to_string()).collect();
    assert!(left.is_empty(), "{left:?}");
    node.assert_nothing_left("after all calls");
}

fn capabilities(node: &VolumeNode) {
    // name, selinuxRelabel, supportsMetrics, requiresFSResize
    let table = [
        ("volume", false, false, true),
        ("tmpfs", true, true, false),
        ("bind", false, false, false),
        ("image", true, true, true),
        ("overlay", true, true, false),
        ("block", true, true, true),
        ("nfs", false, false, false),
        ("cifs", false, false, false),
        ("fuse", false, false, false),
    ];
    let kubelet = node.kubelet();
    for (name, relabel, metrics, resize) in table {
        let object = Call::of(name, &["init"]).succeeds();
        let expect = json!({
            "status": "Success",
            "capabilities": {
                "attach": false,
                "selinuxRelabel": relabel,
                "supportsMetrics": metrics,
                "fsGroup": false,
                "requiresFSResize": resize,
            },
        });
        assert_eq!(object, expect, "{name}");
        let seen = kubelet.look_up(&format!("nodeplug/{name}")).unwrap();
        assert!(!seen.attach && !seen.fs_group, "{name}");
        let seen = (seen.selinux_relabel, seen.supports_metrics, seen.requires_fs_resize);
        assert_eq!(seen, (relabel, metrics, resize), "{name}");
    }
    assert_eq!(kubelet.log(), Vec::<String>::new());
}

fn attaching_calls(_node: &VolumeNode) {
    let table = [
        (vec!["getvolumename", ATTACHED], json!({"status": "Success", "volumeName": "vol"})),
        (vec!["attach", ATTACHED, "node-1"], json!({"status": "Success"})),
        (vec!["isattached", ATTACHED, "node-1"], json!({"status": "Success", "attached": true})),
        (vec!["waitforattach", "/dev/x", ATTACHED], json!({"status": "Success", "device": "/dev/x"})),
        (vec!["waitforattach", "", ATTACHED], json!({"status": "Success", "device": ""})),
        (vec!["mountdevice", DEVICE_FOLDER, "/dev/x", ATTACHED], json!({"status": "Success"})),
        (vec!["unmountdevice", DEVICE_FOLDER], json!({"status": "Success"})),
        (vec!["detach", "vol", "node-1"], json!({"status": "Success"})),
        (
            vec!["expandvolume", ATTACHED, DEVICE_FOLDER, "2147483648", "1073741824"],
            json!({"status": "Success", "volumeNewSize": 2_147_483_648_u64}),
        ),
    ];
    for _ in 0..2 {
        for (arguments, expect) in &table {
            assert_eq!(Call::of("volume", arguments).object(), *expect, "{arguments:?}");
        }
    }
}

/// An administrator who wraps the driver, and says that it attaches.
fn taken_for_attaching(node: &VolumeNode) {
    let ours = program("tmpfs");
    let attaching = r#"echo '{"status":"Success","capabilities":{"attach":true,"fsGroup":false}}'"#;
    let script =
        format!("#!/bin/sh\ncase \"$1\" in init) {attaching} ;; *) exec {} \"$@\" ;; esac\n", ours.display());
    node.install_script("acme/tmpfs", &script);
    for attacher in [Attacher::Controller, Attacher::Both] {
        let kubelet: Kubelet = node.kubelet().attacher(attacher);
        let pods = ["one", "two"].map(|name| kubelet.pod("default", name));
        let volumes: Vec<Volume> = pods
            .iter()
            .map(|pod| pod.inline("acme/tmpfs", "data").option("size", "1Mi").secret("password", b"x"))
            .collect();
        for volume in &volumes {
            kubelet.set_up(volume).mounted();
            assert!(kubelet.is_attached(volume));
            assert_eq!(mounts_at(&volume.path()).len(), 1);
        }
        fs::write(volumes[0].path().join("mine"), "").unwrap();
        assert!(!volumes[1].path().join("mine").exists(), "each pod has a mount of its own");
        for volume in &volumes {
            kubelet.end(volume.pod());
        }
        let log = kubelet.log();
        assert!(log.is_empty(), "{log:?}");
    }
    fs::remove_dir_all("/var/lib/kubelet/plugins").unwrap();
    node.assert_nothing_left("after attaching");
}
