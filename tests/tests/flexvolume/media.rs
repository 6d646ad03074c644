//! What the tests of images and of block devices have in common.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use harness::call::tool;
use harness::kernel::trace::{self, End};
use harness::kubelet::{Kubelet, Pod, Volume};
use harness::volume_look::{Mount, mounts_at};
use harness::volume_node::VolumeNode;

use crate::ours::{Call, folder};

/// The file systems that a pod can write to, and the smallest size that each is made with.
pub const WRITABLE: [(&str, &str); 3] = [("ext4", "16Mi"), ("xfs", "300Mi"), ("btrfs", "128Mi")];

/// What changes something. After a read, a kill leaves what it leaves before it.
pub const CHANGES: [i64; 32] = [
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_flock,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_ftruncate,
    libc::SYS_ioctl,
    libc::SYS_linkat,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pidfd_open,
    libc::SYS_ppoll,
    libc::SYS_pwrite64,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_umount2,
    libc::SYS_unlinkat,
    libc::SYS_unshare,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
];

/// [`CHANGES`], and the same changes by path alone, where the architecture has them.
pub fn changes() -> Vec<i64> {
    let mut all = CHANGES.to_vec();
    #[cfg(target_arch = "x86_64")]
    all.extend([
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_fork,
        libc::SYS_link,
        libc::SYS_mkdir,
        libc::SYS_poll,
        libc::SYS_rename,
        libc::SYS_rmdir,
        libc::SYS_unlink,
        libc::SYS_vfork,
    ]);
    all
}

/// An image for a new pod, of this path.
pub fn image(name: &str, path: &str) -> Volume {
    Pod::new("default", name).inline("nodeplug/image", "data").option("path", path)
}

/// The one mount of a volume.
#[track_caller]
pub fn mount_of(volume: &Volume) -> Mount {
    let mut mounts = mounts_at(&volume.path());
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    mounts.remove(0)
}

/// Whether the mount has this option.
pub fn has(mount: &Mount, option: &str) -> bool {
    mount.options.iter().any(|o| o == option)
}

/// Unmounts the volume, a second time too, and ends its pod.
#[track_caller]
pub fn end(kubelet: &Kubelet, volume: &Volume) {
    kubelet.tear_down(volume).unmounted();
    Call::unmount(volume).succeeds();
    kubelet.end(volume.pod());
}

/// The bytes that a mounted volume can hold.
pub fn size(volume: &Volume) -> u64 {
    let seen = rustix::fs::statvfs(volume.path()).unwrap();
    seen.f_blocks * seen.f_frsize
}

/// Fills a folder that an image is made of.
pub fn content(folder: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(format!("{folder}/index.html"), "Hello from an image!\n").unwrap();
}

/// An image of this file system with [`content`].
pub fn make_image(fs_type: &str, path: &str) {
    content("/srv/content");
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    match fs_type {
        "erofs" => drop(tool(&["mkfs.erofs", "-x", "-1", path, "/srv/content"])),
        "squashfs" => drop(tool(&["mksquashfs", "/srv/content", path, "-quiet", "-no-progress"])),
        "ext4" => {
            tool(&["truncate", "-s", "16M", path]);
            tool(&["mkfs.ext4", "-q", "-b", "4096", "-d", "/srv/content", path]);
        }
        "btrfs" => {
            tool(&["truncate", "-s", "128M", path]);
            tool(&["mkfs.btrfs", "-q", "-r", "/srv/content", path]);
        }
        other => {
            tool(&["truncate", "-s", "300M", path]);
            tool(&[&format!("mkfs.{other}"), "-q", path]);
        }
    }
}

/// For each change of `call`: prepares, kills the call right after it, and looks with `after`.
#[track_caller]
pub fn kill_after_each_change(
    name: &str,
    mut call: impl FnMut() -> (Call, Volume),
    mut after: impl FnMut(&Volume, &str),
) {
    let among = changes();
    let mut killed = 0;
    for n in 0.. {
        let (call, volume) = call();
        let end = trace::kill_after_nth(&call, &among, n);
        let when = match &end {
            End::Killed(number) => {
                format!("{name}: {} killed after change {n}, system call {number}", call.verb())
            }
            End::Finished(_) => format!("{name}: {} finished after {n} changes", call.verb()),
        };
        after(&volume, &when);
        if let End::Finished(answer) = end {
            assert!(answer.stdout.contains("Success"), "{when}: {answer:?}");
            break;
        }
        killed += 1;
    }
    assert!(killed > 5, "{name}: only {killed} changes");
}

/// Takes the volume away without a kubelet that remembers it.
#[track_caller]
pub fn give_up(node: &VolumeNode, volume: &Volume, when: &str) {
    let answer = Call::unmount(volume).run();
    assert!(answer.ok() && answer.stdout.contains("Success"), "{when}: {answer:?}");
    drop(fs::remove_dir_all(volume.pod().folder()));
    node.assert_nothing_left(when);
}

/// Mounts by a call of its own, as the kubelet's next try does.
#[track_caller]
pub fn try_again(volume: &Volume, when: &str) {
    folder(volume);
    if mounts_at(&volume.path()).is_empty() {
        let answer = Call::mount(volume).run();
        assert!(answer.ok() && answer.stdout.contains("Success"), "{when}: {answer:?}");
    }
    assert_eq!(mounts_at(&volume.path()).len(), 1, "{when}");
}

/// The device that a file lies on.
pub fn device(path: &Path) -> u64 {
    fs::metadata(path).unwrap().dev()
}
