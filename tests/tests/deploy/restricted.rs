//! The containers of the manifests do their work with the rights that the manifests give them, and with no more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use harness::call;
use harness::device_manager::DeviceManager;
use harness::device_node::KUBELET;
use harness::suite::scripted;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::archive;
use crate::container::{Pod, Running, TOOLS};
use crate::folders::{documents, text};
use crate::laws;
use crate::manifests::set;

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("the_programs_run_in_the_image_s_otherwise_empty_root", TOOLS, empty_root),
        scripted("the_device_plugin_serves_with_the_rights_of_its_daemonset", TOOLS, device_plugin),
    ]
}

/// The files of a folder's ConfigMap.
fn map(path: &str) -> (String, BTreeMap<String, String>) {
    let map = documents(path, &text(path)).remove(0);
    let data = map["data"].as_object().unwrap().iter();
    let files = data.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect();
    (map["metadata"]["name"].as_str().unwrap().to_owned(), files)
}

/// The kernel's word for it.
fn assert_bare(container: &Running) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(container.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(container.status("NoNewPrivs"), "1");
    assert_eq!(container.status("Seccomp"), "2");
    assert_eq!(container.status("Uid"), "0\t0\t0\t0");
}

fn empty_root(_: &VolumeNode) {
    let rootfs = archive::unpack(&archive::made().archive, Path::new("/run/image"));
    for name in archive::PROGRAMS {
        let answer = call::try_tool(&["chroot", rootfs.to_str().unwrap(), &format!("/{name}"), "--version"]);
        assert!(answer.ok(), "{answer:?}");
        assert_eq!(answer.stdout.trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
    }
    let answer = call::try_tool(&["chroot", rootfs.to_str().unwrap(), "/bin/sh", "-c", "true"]);
    assert!(!answer.ok(), "there is no shell: {answer:?}");
}

fn get(socket: &Path, target: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(socket) else { return String::new() };
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    drop(stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)));
    answer
}

fn device_plugin(_: &VolumeNode) {
    let kubelet = DeviceManager::started(Path::new(KUBELET));
    fs::create_dir_all(Path::new(KUBELET).join("pod-resources")).unwrap();
    let set = set("device-plugin/deploy");
    let mut pod = Pod::new(laws::pod(&set), "worker-1");
    let (name, files) = map("device-plugin/deploy/configmap.yaml");
    pod.maps.insert(name, files);
    let mut container = pod.start("device-plugin");
    let licences = kubelet.wait_for_healthy("example.com/licence", 4);
    assert_eq!(licences.capacity(), 4);
    assert_bare(&container);
    let socket = pod.volume("run").join("device-plugin.sock");
    for probe in ["/healthz", "/readyz"] {
        container.until(probe, |_| get(&socket, probe).starts_with("HTTP/1.1 200"));
    }
    let answer = container.exec(&["/nodeplug-device-plugin", "explain", "example.com/licence"]);
    assert!(answer.ok() && answer.stdout.contains("4 devices"), "{answer:?}");
    assert_eq!(container.stop(), 0, "{}", container.log());
}
