//! Whose the files are: the pod's group, and shifted owners.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use harness::call::tool;
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{data, end, lay_out, only_mount, refused};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("the_group_gets_as_much_as_is_asked_and_nothing_outside", &["mknod"], group),
        volume("the_group_is_not_given_what_is_mounted_below", &[], other_mounts),
        volume("a_member_of_the_group_writes_and_a_stranger_does_not", &[], member),
        volume("shifted_owners_are_seen_and_written", &[], idmap),
        volume("a_shift_that_makes_no_sense_is_refused", &[], bad_idmaps),
    ]
}

/// Group and permissions.
fn of(path: impl AsRef<Path>) -> (u32, u32) {
    let about = fs::symlink_metadata(path).unwrap();
    (about.gid(), about.mode() & 0o7777)
}

fn set(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn group(node: &VolumeNode) {
    lay_out(node);
    symlink("/srv/outside/marker", "/srv/shared/link").unwrap();
    symlink("/srv/outside", "/srv/shared/way").unwrap();
    tool(&["mknod", "/srv/shared/null", "c", "1", "3"]);
    let kubelet = node.kubelet();
    // What is asked for; then whose the root, a file and a folder below are.
    let (kept, given) = ((0, 0o755), (1234, 0o2775));
    let table = [
        (Some("none"), kept, (0, 0o640), (0, 0o755)),
        (Some("root"), given, (0, 0o640), (0, 0o755)),
        (Some("onRootMismatch"), given, (1234, 0o660), (1234, 0o2775)),
        (Some("recursive"), given, (1234, 0o660), (1234, 0o2775)),
        (None, given, (1234, 0o660), (1234, 0o2775)),
    ];
    for (policy, root, file, folder) in table {
        for path in ["/srv/shared", "/srv/shared/sub", "/srv/shared/marker", "/srv/shared/sub/marker"] {
            chown(path, Some(0), Some(0)).unwrap();
            set(path, if path.ends_with("marker") { 0o640 } else { 0o755 });
        }
        let volume = data(&kubelet).fs_group(1234);
        let volume = policy.map_or(volume.clone(), |policy| volume.option("fsGroupPolicy", policy));
        kubelet.set_up(&volume).mounted();
        assert_eq!(of("/srv/shared"), root, "{policy:?}");
        assert_eq!((of("/srv/shared/marker"), of("/srv/shared/sub/marker")), (file, file), "{policy:?}");
        assert_eq!(of("/srv/shared/sub"), folder, "{policy:?}");
        for outside in ["/srv/outside", "/srv/outside/sub", "/srv/outside/marker", "/srv/outside/sub/marker"]
        {
            assert_eq!(of(outside).0, 0, "{policy:?} {outside}");
        }
        assert_eq!(of("/srv/shared/null").0, 0, "a device is nobody's to have");
        end(node, &kubelet, &volume);
    }
    // The root looks as if all were done: it is left at that, unless everything is asked for.
    chown("/srv/shared/marker", None, Some(0)).unwrap();
    for (policy, expect) in [("onRootMismatch", 0), ("recursive", 1234)] {
        let volume = data(&kubelet).fs_group(1234).option("fsGroupPolicy", policy);
        kubelet.set_up(&volume).mounted();
        assert_eq!(of("/srv/shared/marker").0, expect, "{policy}");
        end(node, &kubelet, &volume);
    }
    refused(node, &kubelet, &data(&kubelet).option("fsGroupPolicy", "OnRootMismatch"), &["`fsGroupPolicy`"]);
    for lie in ["-1", "4294967295", "4294967296", "0x10", "wheel"] {
        let volume = data(&kubelet).option("kubernetes.io/mounterArgs.FsGroup", lie);
        refused(node, &kubelet, &volume, &["fsGroup"]);
    }
}

fn other_mounts(node: &VolumeNode) {
    lay_out(node);
    tool(&["mount", "-t", "tmpfs", "below", "/srv/shared/sub"]);
    tool(&["mount", "--bind", "/srv/outside", "/srv/shared/sub"]);
    node.keep();
    let kubelet = node.kubelet();
    for recursive in ["false", "true"] {
        let volume =
            data(&kubelet).fs_group(1234).option("fsGroupPolicy", "recursive").option("recursive", recursive);
        kubelet.set_up(&volume).mounted();
        assert_eq!(of("/srv/shared/marker").0, 1234);
        assert_eq!((of("/srv/outside").0, of("/srv/outside/marker").0), (0, 0), "{recursive}");
        end(node, &kubelet, &volume);
    }
}

fn member(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let volume = data(&kubelet).option("subPath", "new").option("create", "dir").fs_group(1234);
    kubelet.set_up(&volume).mounted();
    let container = kubelet.container(&[&volume]);
    let written = container.run_as(1000, &[1234], "echo x > /mnt/data/file");
    assert!(written.ok(), "{written:?}");
    assert_eq!(of("/srv/shared/new/file").0, 1234);
    let stranger = container.run_as(1000, &[4321], "ls /mnt/data");
    assert!(!stranger.ok(), "{stranger:?}");
    drop(container);
    end(node, &kubelet, &volume);
}

fn idmap(node: &VolumeNode) {
    lay_out(node);
    set("/srv/shared", 0o755);
    let kubelet = node.kubelet();
    let volume = data(&kubelet).option("idmap", "0:100000:65536");
    kubelet.set_up(&volume).mounted();
    assert!(only_mount(&volume).options.contains(&"idmapped".to_owned()));
    let seen = fs::metadata(volume.path().join("marker")).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (100_000, 100_000));
    let container = kubelet.container(&[&volume]);
    // Who the volume says is the owner of the disk's root's files may write them, and nobody else.
    let owner = container.run_as(100_000, &[], "echo new > /mnt/data/made");
    assert!(owner.ok(), "{owner:?}");
    assert_eq!(fs::metadata("/srv/shared/made").unwrap().uid(), 0);
    let unmapped = container.run_as(5, &[], "echo x > /mnt/data/other");
    assert!(!unmapped.ok(), "{unmapped:?}");
    drop(container);
    end(node, &kubelet, &volume);
    assert_eq!(fs::metadata("/srv/shared/marker").unwrap().uid(), 0, "on the disk nothing changed");
}

fn bad_idmaps(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for bad in [
        "0",
        "0:1",
        "0:0:0",
        "a:b:c",
        "-1:0:1",
        "0:4294967295:2",
        "4294967295:0:1",
        "0:100000:65536:1",
        "0:1:1,1:2:1",
    ] {
        refused(node, &kubelet, &data(&kubelet).option("idmap", bad), &["`idmap`"]);
    }
}
