//! Shares: the real mount.nfs and mount.cifs up to their mount(2), and a helper in a few lines of shell that
//! does with a folder of the node what a kernel with nfs and cifs would do with a server's.

mod crashes;
mod helpers;
mod real;
mod stuck;

use std::fs;
use std::path::Path;

use harness::kubelet::{Kubelet, Volume};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let modules = [crashes::trials(), helpers::trials(), real::trials(), stuck::trials()];
    modules.into_iter().flatten().collect()
}

/// What the server exports.
const EXPORT: &str = "/srv/export";
/// The helper of a test.
const HELPER: &str = "/opt/helper";
/// The line of a helper that mounts the export.
const BIND: &str = "mount --bind /srv/export \"$2\"";
/// A password that is hard to hand on.
const PASSWORD: &[u8] = b"p,w=1 x'\"#%41";

/// An export with a file in it, a helper of this shell line, and a policy that names it.
fn serve(node: &VolumeNode, line: &str) {
    fs::create_dir_all(EXPORT).unwrap();
    fs::write(Path::new(EXPORT).join("file"), "of the server\n").unwrap();
    help(node, line);
    policy(node, "");
}

/// Another helper.
fn help(node: &VolumeNode, line: &str) {
    node.write_program(Path::new(HELPER), &format!("#!/bin/sh\n{line}\n"));
}

/// A policy with the helper, and `more`.
fn policy(node: &VolumeNode, more: &str) {
    node.policy(&format!("backends: {{nfs: {{helper: {HELPER}}}, cifs: {{helper: {HELPER}}}}}\n{more}"));
}

/// A pod's volume of an NFS export.
fn nfs(kubelet: &Kubelet) -> Volume {
    let volume = kubelet.pod("shop", "web-0").inline("nodeplug/nfs", "data");
    volume.option("server", "127.0.0.1").option("share", "/export")
}

/// A pod's volume of an SMB share, with a user and a password.
fn cifs(kubelet: &Kubelet) -> Volume {
    let volume = kubelet.pod("shop", "web-0").inline("nodeplug/cifs", "data");
    let volume = volume.option("source", "//127.0.0.1/share");
    volume.secret("username", b"bob").secret("password", PASSWORD)
}

/// A call of the driver that the kubelet would not make; the status and the message.
fn call(kubelet: &Kubelet, volume: &Volume, verb: &str) -> (String, String) {
    let path = volume.path().display().to_string();
    let json = volume.mount_json().unwrap();
    let arguments = if verb == "mount" { vec![verb, &path, &json] } else { vec![verb, &path] };
    let answer = kubelet.call(volume.driver(), &arguments).one_object();
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

/// [`call`] that must succeed; its message.
#[track_caller]
fn succeeds(kubelet: &Kubelet, volume: &Volume, verb: &str) -> String {
    let (status, message) = call(kubelet, volume, verb);
    assert_eq!(status, "Success", "{message}");
    message
}

/// [`call`] that must fail; its message.
#[track_caller]
fn fails(kubelet: &Kubelet, volume: &Volume, verb: &str) -> String {
    let (status, message) = call(kubelet, volume, verb);
    assert_eq!(status, "Failure", "{message}");
    message
}
