//! Which volumes of a driver are mounted on the node.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use node::{Context, Kind, Result};

/// The targets below `pods/<uid>/volumes/<folder_name>/` that are mounted for this process or for one of
/// the `kubelets`: an installer in a container sees other mounts than they do.
pub(super) fn volumes(kubelets: &[u32], proc: &Path, folder_name: &str) -> Result<BTreeSet<PathBuf>> {
    let own = Path::new("/proc/self/mountinfo");
    let mut list = fs::read(own).doing(Kind::Io, || format!("read `{}`", own.display()))?;
    for pid in kubelets {
        // It may have ended, and then it sees nothing.
        list.extend(fs::read(proc.join(pid.to_string()).join("mountinfo")).unwrap_or_default());
    }
    Ok(points(&list).filter(|point| is_volume(point, folder_name)).collect())
}

/// The mount points: the fifth field of each line (proc_pid_mountinfo(5)).
fn points(list: &[u8]) -> impl Iterator<Item = PathBuf> {
    let fields = list.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    fields.map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
}

/// Space, tab, line end and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    plain
}

/// `…/pods/<uid>/volumes/<vendor~driver>/<name>`, wherever the kubelet's root is.
fn is_volume(point: &Path, folder_name: &str) -> bool {
    let last: Vec<_> = point.iter().rev().take(5).collect();
    matches!(last.as_slice(), [_, driver, volumes, _, pods]
        if *driver == folder_name && *volumes == "volumes" && *pods == "pods")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_targets_of_the_driver_count() {
        let line = |point: &str| format!("36 35 98:0 / {point} rw,noatime master:1 - tmpfs tmpfs rw\n");
        let table = [
            ("/var/lib/kubelet/pods/u-1/volumes/nodeplug~nfs/data", true),
            ("/data/kubelet/pods/u-1/volumes/nodeplug~nfs/with\\040space", true),
            ("/var/lib/kubelet/pods/u-1/volumes/nodeplug~nfs4/data", false),
            ("/var/lib/kubelet/pods/u-1/volumes/acme~nodeplug~nfs/data", false),
            ("/var/lib/kubelet/pods/u-1/volumes/nodeplug~nfs", false),
            ("/var/lib/kubelet/pods/u-1/volumes/nodeplug~nfs/data/sub", false),
            ("/var/lib/kubelet/pods/u-1/volume-subpaths/data/c/0", false),
            ("/", false),
        ];
        for (point, expect) in table {
            let found = points(line(point).as_bytes()).filter(|p| is_volume(p, "nodeplug~nfs")).count();
            assert_eq!(found == 1, expect, "{point}");
        }
        assert_eq!(unescape(br"a\040b\134c\0"), br"a b\c\0");
    }
}
