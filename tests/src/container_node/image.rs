//! A container image of one static program, made here: no registry is asked.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::call::{tool, try_tool};

/// The image's name.
pub const IMAGE: &str = "localhost/harness:1";

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 6] = ["cat", "httpd", "ip", "sh", "sleep", "wget"];
const SCRATCH: &str = "/var/lib/harness/image";

/// Writes the archive, in the form of `docker save`, which `ctr` and podman both read. Its program sleeps.
pub fn archive() -> PathBuf {
    let folder = Path::new(SCRATCH);
    let (root, layer) = (folder.join("root"), folder.join("layer.tar"));
    let archive = folder.join("image.tar");
    if archive.exists() {
        return archive;
    }
    fs::create_dir_all(root.join("bin")).expect("make the image's root");
    fs::create_dir_all(root.join("etc")).expect("make the image's /etc");
    let text = |path: &Path| path.to_str().expect("ASCII").to_owned();
    tool(&["cp", "--dereference", BUSYBOX, &text(&root.join("bin/busybox"))]);
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("link an applet");
    }
    let alone = try_tool(&["chroot", &text(&root), "/bin/busybox", "true"]);
    assert!(alone.ok(), "`{BUSYBOX}` needs libraries: install Debian's busybox-static ({alone:?})");
    tool(&["tar", "--owner=0", "--group=0", "-C", &text(&root), "-cf", &text(&layer), "."]);
    let sum = tool(&["sha256sum", &text(&layer)]);
    let digest = format!("sha256:{}", sum.split(' ').next().unwrap_or_default());
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    for (name, json) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(folder.join(name), json.to_string()).expect("write the image's files");
    }
    let part = text(&folder.join("image.part"));
    tool(&["tar", "-C", SCRATCH, "-cf", &part, "manifest.json", "config.json", "layer.tar"]);
    fs::rename(part, &archive).expect("rename the archive");
    archive
}

/// This machine's, in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
