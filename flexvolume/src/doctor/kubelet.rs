//! The folders in which the kubelet and the driver work.

use std::fs;
use std::path::Path;

use node::finding::{Finding, typed, unread};
use node::mountinfo::{self, Mount};
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::record::STATE;

const PODS: &str = "pods' folder";
const SPREAD: &str = "mount propagation";
const OWN: &str = "state";

/// The kubelet's folder of pods, and whether what is mounted there spreads.
pub(super) fn pods(root: &Path) -> Vec<Finding> {
    let folder = root.join("pods");
    let shown = folder.display();
    if !folder.is_dir() {
        let why = format!("`{shown}` is not there: no kubelet has run here, or it has another --root-dir");
        let remedy =
            "start the kubelet; where it has another --root-dir, write that as `kubeletRoot` into the policy";
        return vec![Finding::warning(PODS, why, remedy)];
    }
    let mounts = match mountinfo::read() {
        Ok(mounts) => mounts,
        Err(error) => return vec![unread(PODS, &error)],
    };
    let real = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
    let Some(mount) = above(&mounts, &real) else { return Vec::new() };
    if mount.has("ro") {
        let why = format!("`{shown}` is on a mount that is read-only");
        return vec![Finding::problem(PODS, why, format!("mount -o remount,rw {}", typed(&mount.point)))];
    }
    let shared = mount.propagation.iter().any(|word| word.starts_with("shared:"));
    if shared {
        return vec![Finding::fine(PODS, format!("`{shown}` is there, and its mount is shared"))];
    }
    let point = mount.point.display();
    let why = format!(
        "`{shown}` is on a mount that is not shared (`{point}`): a kubelet in a container does not see volumes, and \
         containers with `mountPropagation: HostToContainer` do not see later ones"
    );
    vec![Finding::warning(
        SPREAD,
        why,
        format!("mount --make-rshared {}, before the kubelet starts", typed(&mount.point)),
    )]
}

/// The mount that a path lies on.
fn above<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let over = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let deepest = over.max_by_key(|mount| mount.point.components().count())?;
    mountinfo::top(mounts, &deepest.point)
}

/// The folder of records.
pub(super) fn state() -> Option<Finding> {
    let there = Path::new(STATE).ancestors().find(|path| path.exists())?;
    let shown = there.display();
    if !there.is_dir() {
        let why = format!("`{shown}` is no folder, and `{STATE}` can't be made");
        return Some(Finding::problem(OWN, why, format!("mv {0} {0}.old", typed(there))));
    }
    let flags = statvfs(there).map_or(StatVfsMountFlags::empty(), |system| system.f_flag);
    flags.contains(StatVfsMountFlags::RDONLY).then(|| {
        let why = format!("`{STATE}` is on a read-only file system: no pod gets a volume");
        let remedy =
            format!("mount it writable: mount -o remount,rw \"$(findmnt -no TARGET -T {})\"", typed(there));
        Finding::problem(OWN, why, remedy)
    })
}
