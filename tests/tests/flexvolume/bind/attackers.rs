//! Pods that own a folder beneath a root, and exchange what is in it for something else.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::call::tool;
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{end, from, lay_out, refused};
use crate::ours::{Call, folder};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("cve_2017_1002101_a_symlink_at_any_component_is_not_followed", &[], placed),
        volume("cve_2021_25741_a_component_exchanged_meanwhile_is_not_followed", &[], exchanged),
        volume("a_folder_made_while_components_are_exchanged_is_made_inside", &[], made_meanwhile),
        volume("the_group_is_given_nothing_outside_while_folders_are_exchanged", &[], given_meanwhile),
        volume("cve_2017_1002102_an_unmount_deletes_no_file", &[], deletes_nothing),
    ]
}

/// How often a call is made while somebody works against it.
const ROUNDS: usize = 60;

/// Exchanges the two names again and again while `work` is done.
fn while_exchanging(one: &Path, other: &Path, work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

fn deep() -> PathBuf {
    let deep = PathBuf::from("/srv/shared/a/b/c");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("marker"), "inside").unwrap();
    deep
}

fn placed(node: &VolumeNode) {
    lay_out(node);
    let deep = deep();
    for outside in ["/srv/outside/b/c", "/srv/outside/c"] {
        fs::create_dir_all(outside).unwrap();
    }
    let kubelet = node.kubelet();
    let sources = ["a", "a/b", "a/b/c"];
    for link in sources {
        let path = Path::new("/srv/shared").join(link);
        let aside = path.with_file_name("aside");
        let ways =
            ["/srv/outside", "../../../../../../srv/outside", "/proc/1/root/srv/outside", ".", "aside", "/"];
        for to in ways {
            fs::rename(&path, &aside).unwrap();
            symlink(to, &path).unwrap();
            for extra in ["none", "dir"] {
                let volume = from(&kubelet, deep.to_str().unwrap()).option("create", extra);
                refused(node, &kubelet, &volume, &["symlink"]);
                let volume = from(&kubelet, "/srv/shared").option("subPath", "a/b/c").option("create", extra);
                refused(node, &kubelet, &volume, &["symlink"]);
            }
            fs::remove_file(&path).unwrap();
            fs::rename(&aside, &path).unwrap();
        }
    }
    let volume = from(&kubelet, deep.to_str().unwrap());
    kubelet.set_up(&volume).mounted();
    end(node, &kubelet, &volume);
}

fn exchanged(node: &VolumeNode) {
    lay_out(node);
    let deep = deep();
    for outside in ["/srv/outside/b/c", "/srv/outside/c"] {
        fs::create_dir_all(outside).unwrap();
        fs::write(Path::new(outside).join("marker"), "outside").unwrap();
    }
    let kubelet = node.kubelet();
    let (mut inside, mut refused) = (0, 0);
    for component in ["/srv/shared/a", "/srv/shared/a/b", "/srv/shared/a/b/c"] {
        symlink("/srv/outside", "/srv/shared/link").unwrap();
        let volume = from(&kubelet, deep.to_str().unwrap());
        folder(&volume);
        while_exchanging(Path::new(component), Path::new("/srv/shared/link"), || {
            for _ in 0..ROUNDS {
                let answer = Call::mount(&volume).object();
                if answer["status"] == "Success" {
                    // Of the mount itself: the path to its source may lead elsewhere by now.
                    let marker = fs::read_to_string(volume.path().join("marker")).unwrap();
                    assert_eq!(marker, "inside", "{component}");
                    inside += 1;
                } else {
                    assert!(mounts_at(&volume.path()).is_empty(), "{component}: {answer}");
                    refused += 1;
                }
                Call::unmount(&volume).succeeds();
            }
        });
        // Whichever of the two has the name now.
        let link = Path::new("/srv/shared/link");
        if link.symlink_metadata().unwrap().is_dir() {
            renameat_with(CWD, component, CWD, link, RenameFlags::EXCHANGE).unwrap();
        }
        fs::remove_file(link).unwrap();
        end(node, &kubelet, &volume);
    }
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused: nobody was exchanged in time");
}

fn made_meanwhile(node: &VolumeNode) {
    lay_out(node);
    deep();
    let kubelet = node.kubelet();
    symlink("/srv/outside", "/srv/shared/link").unwrap();
    let before = tree("/srv/outside");
    while_exchanging(Path::new("/srv/shared/a/b"), Path::new("/srv/shared/link"), || {
        for n in 0..ROUNDS {
            let volume = from(&kubelet, &format!("/srv/shared/a/b/new-{n}/deep")).option("create", "dir");
            let volume = volume.option("uid", "1000").fs_group(1234).option("fsGroupPolicy", "recursive");
            folder(&volume);
            let answer = Call::mount(&volume).object();
            if answer["status"] == "Success" {
                assert_eq!(fs::metadata(volume.path()).unwrap().uid(), 1000);
            }
            Call::unmount(&volume).succeeds();
            fs::remove_dir_all(volume.pod().folder()).unwrap();
        }
    });
    assert_eq!(tree("/srv/outside"), before);
    node.assert_nothing_left("after folders that were made");
}

fn given_meanwhile(node: &VolumeNode) {
    lay_out(node);
    for n in 0..30 {
        fs::create_dir_all(format!("/srv/shared/d{n}/sub")).unwrap();
        fs::write(format!("/srv/shared/d{n}/sub/file"), "").unwrap();
    }
    symlink("/srv/outside", "/srv/shared/link").unwrap();
    let before = tree("/srv/outside");
    let kubelet = node.kubelet();
    let mut given = 0;
    while_exchanging(Path::new("/srv/shared/d15"), Path::new("/srv/shared/link"), || {
        for n in 0..ROUNDS {
            let group = 1000 + u32::try_from(n).unwrap();
            let volume = from(&kubelet, "/srv/shared").fs_group(group).option("fsGroupPolicy", "recursive");
            folder(&volume);
            given += usize::from(Call::mount(&volume).object()["status"] == "Success");
            Call::unmount(&volume).succeeds();
            fs::remove_dir_all(volume.pod().folder()).unwrap();
        }
    });
    assert_eq!(tree("/srv/outside"), before);
    assert!(given > 0, "no walk came to its end");
    node.assert_nothing_left("after groups that were given");
}

/// Whatever is in the folder, in the mount, or behind a symlink of the pod.
fn deletes_nothing(node: &VolumeNode) {
    lay_out(node);
    symlink("/srv/outside", "/srv/shared/way-out").unwrap();
    let kubelet = node.kubelet();
    let volume = from(&kubelet, "/srv/shared");
    let (inside, outside) = (tree("/srv/shared"), tree("/srv/outside"));
    kubelet.set_up(&volume).mounted();
    end(node, &kubelet, &volume);
    assert_eq!((tree("/srv/shared"), tree("/srv/outside")), (inside.clone(), outside.clone()));
    // The pod's own folder was exchanged for a symlink before the unmount.
    kubelet.set_up(&volume).mounted();
    tool(&["umount", volume.path().to_str().unwrap()]);
    fs::remove_dir(volume.path()).unwrap();
    symlink("/srv/shared", volume.path()).unwrap();
    let message = Call::unmount(&volume).object();
    assert_eq!((tree("/srv/shared"), tree("/srv/outside")), (inside.clone(), outside.clone()), "{message}");
    fs::remove_file(volume.path()).unwrap();
    // And a folder with files in it, on which nothing is mounted.
    folder(&volume);
    fs::write(volume.path().join("precious"), "data").unwrap();
    fs::write(volume.path().join("other"), "data").unwrap();
    let message = Call::unmount(&volume).fails();
    assert!(message.contains("and 1 more") && message.contains("never deleted here"), "{message}");
    assert_eq!(fs::read_to_string(volume.path().join("precious")).unwrap(), "data");
    fs::remove_dir_all(volume.path()).unwrap();
    Call::unmount(&volume).succeeds();
    end(node, &kubelet, &volume);
    assert_eq!((tree("/srv/shared"), tree("/srv/outside")), (inside, outside));
}

/// Every name below, with its owner and permissions.
fn tree(folder: &str) -> String {
    tool(&["find", folder, "-printf", "%p %U %G %m %s\n"])
}
