//! What drivers left on a node: mounts, loop devices, processes, files, cgroups, folders of volumes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::call::tool;
use crate::kernel::cgroup::Cgroup;
use crate::kubelet;

/// Where our driver keeps its state.
pub const STATE: &str = "/run/nodeplug";

/// One mount of this thread's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number, which a later mount may be given again.
    pub id: u64,
    /// `major:minor` of its filesystem.
    pub device: String,
    /// The folder of the filesystem that is mounted.
    pub root: PathBuf,
    /// Where it is.
    pub path: PathBuf,
    /// The mount's own options, such as `ro` and `nosuid`.
    pub options: Vec<String>,
    /// `shared:7`, `master:3` and the like; empty for a private mount.
    pub propagation: Vec<String>,
    /// The filesystem's type.
    pub kind: String,
    /// The source, as it was given.
    pub source: String,
    /// The filesystem's options.
    pub super_options: Vec<String>,
}

/// The mounts of this thread's namespace, oldest first (proc(5), mountinfo).
pub fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("the mounts");
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("mountinfo: {line}"))).collect()
}

/// What is mounted at exactly this path, the lowest first.
pub fn mounts_at(path: &Path) -> Vec<Mount> {
    mounts().into_iter().filter(|m| m.path == path).collect()
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let mut left = left.skip(1);
    let device = left.next()?.to_owned();
    let root = unescape(left.next()?).into();
    let path = unescape(left.next()?).into();
    let options = list(left.next()?);
    let propagation = left.map(str::to_owned).collect();
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    let source = unescape(right.next()?);
    let super_options = list(right.next()?);
    Some(Mount { id, device, root, path, options, propagation, kind, source, super_options })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(unescape).collect()
}

/// Spaces, tabs, line feeds, backslashes and number signs are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3).unwrap_or((part, ""));
        match u8::from_str_radix(digits, 8) {
            Ok(byte) => out.push(char::from(byte)),
            Err(_) => out.extend(["\\", digits]),
        }
        out.push_str(rest);
    }
    out
}

/// A loop device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// `/dev/loop3`
    pub name: String,
    /// The file's path, as the kernel knew it.
    pub file: String,
    /// The file's number in its filesystem.
    pub inode: u64,
    /// Whether it goes with its last user.
    pub autoclear: bool,
    /// Whether it refuses writes.
    pub read_only: bool,
}

/// What on this machine is one node's: the filesystems that it alone has, by their device numbers. Loop
/// devices and processes are the whole machine's, and only these may be looked at, let alone be ended.
#[derive(Debug, Default)]
pub(crate) struct Territory {
    devices: BTreeSet<u64>,
    /// That of `/var/lib`: whoever sees it as this node does, is of this node.
    home: Option<u64>,
}

impl Territory {
    /// Takes `folder` by mounting something of the node's own there.
    pub(crate) fn claim(&mut self, folder: &str, mount: impl FnOnce(&str)) {
        let device = || fs::metadata(folder).unwrap_or_else(|e| panic!("look at `{folder}`: {e}")).dev();
        let before = device();
        mount(folder);
        let after = device();
        assert_ne!(before, after, "`{folder}` is still the host's");
        self.devices.insert(after);
        if folder == "/var/lib" {
            self.home = Some(after);
        }
    }

    /// The loop devices whose file is on this node.
    pub(crate) fn loops(&self) -> Vec<Loop> {
        let columns = "NAME,BACK-FILE,BACK-INO,BACK-MAJ:MIN,AUTOCLEAR,RO";
        let text = tool(&["losetup", "--json", "--list", "--output", columns]);
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let all = json["loopdevices"].as_array().cloned().unwrap_or_default();
        let ours = |json: &Value| device_number(json).is_some_and(|number| self.devices.contains(&number));
        all.iter().filter(|json| ours(json)).map(loop_of).collect()
    }

    /// The processes whose own root has this node's `/var/lib`, in whatever namespace they are.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let Some(home) = self.home else { return Vec::new() };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let device = |pid: &i32| fs::metadata(format!("/proc/{pid}/root/var/lib")).map(|m| m.dev()).ok();
        numbers.filter(|pid| device(pid) == Some(home)).collect()
    }
}

fn loop_of(json: &Value) -> Loop {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    Loop {
        name: text("name"),
        file: text("back-file"),
        inode: json["back-ino"].as_u64().unwrap_or_default(),
        autoclear: json["autoclear"] == true,
        read_only: json["ro"] == true,
    }
}

fn device_number(json: &Value) -> Option<u64> {
    let (major, minor) = json["back-maj:min"].as_str()?.trim().split_once(':')?;
    Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A process in words: its id, its command line, and the volume that its environment names.
pub fn process(pid: i32) -> String {
    let read = |what: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let environment = read("environ");
    let volume = environment.split('\0').find(|v| v.starts_with("NODEPLUG_VOLUME=")).unwrap_or_default();
    format!("process {pid} `{}` {volume}", read("cmdline").replace('\0', " ").trim())
}

/// What was there before.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) mounts: BTreeSet<(u64, PathBuf)>,
    pub(crate) loops: BTreeSet<String>,
    pub(crate) processes: BTreeSet<i32>,
    pub(crate) cgroups: BTreeSet<PathBuf>,
}

impl Kept {
    pub(crate) fn take(territory: &Territory, cgroup: Option<&Cgroup>) -> Self {
        Self {
            mounts: mounts().into_iter().map(|m| (m.id, m.path)).collect(),
            loops: territory.loops().into_iter().map(|l| l.name).collect(),
            processes: territory.processes().into_iter().collect(),
            cgroups: cgroup.map(Cgroup::below).unwrap_or_default().into_iter().collect(),
        }
    }
}

/// Everything that was not there before and should be gone.
pub(crate) fn leftovers(territory: &Territory, kept: &Kept, cgroup: Option<&Cgroup>) -> Vec<String> {
    let mut found = Vec::new();
    let new = mounts().into_iter().filter(|m| !kept.mounts.contains(&(m.id, m.path.clone())));
    found.extend(new.map(|m| format!("mount {} {} of {}", m.path.display(), m.kind, m.source)));
    let new = territory.loops().into_iter().filter(|l| !kept.loops.contains(&l.name));
    found.extend(new.map(|l| format!("loop {} of {}", l.name, l.file)));
    let mut processes = territory.processes();
    processes.retain(|p| !kept.processes.contains(p));
    found.extend(processes.iter().map(|pid| process(*pid)));
    found.extend(files(Path::new(STATE)).iter().map(|f| format!("file {}", f.display())));
    found.extend(cgroups(kept, cgroup, &processes).iter().map(|c| format!("cgroup {}", c.display())));
    found.extend(kubelet::volumes().iter().map(|v| format!("folder {}", v.display())));
    found
}

/// Cgroups beside the kubelet's own. One elsewhere would be the whole machine's, and is looked for by its
/// name among those that hold a process of this node.
fn cgroups(kept: &Kept, own: Option<&Cgroup>, processes: &[i32]) -> Vec<PathBuf> {
    let below = own.map(Cgroup::below).unwrap_or_default();
    let mut found: Vec<PathBuf> =
        below.into_iter().filter(|c| !kept.cgroups.contains(c) && !c.ends_with("kubelet.service")).collect();
    for pid in processes {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let paths = text.lines().filter_map(|l| l.splitn(3, ':').nth(2));
        found.extend(paths.filter(|p| p.contains("nodeplug-flexvolume")).map(PathBuf::from));
    }
    found.sort();
    found.dedup();
    found
}

/// The files below a folder, its sockets and pipes too.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Looks until nothing is left, or for five seconds; what is left then. Daemons end, and namespaces are
/// taken apart, a moment after whoever asked for it has its answer.
pub(crate) fn settled<T>(look: impl Fn() -> Vec<T>) -> Vec<T> {
    settled_within(Duration::from_secs(5), look)
}

/// [`settled`] with another limit.
pub(crate) fn settled_within<T>(limit: Duration, look: impl Fn() -> Vec<T>) -> Vec<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_empty() || start.elapsed() > limit {
            return found;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = r"36 35 98:0 /mnt1 /mnt/a\040b\134 rw,noatime shared:1 master:2 - ext3 /dev/root\011x rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.device.as_str()), (36, "98:0"));
        assert_eq!(
            (mount.root.as_path(), mount.path.as_path()),
            (Path::new("/mnt1"), Path::new("/mnt/a b\\"))
        );
        assert_eq!(
            (mount.options.join(" "), mount.propagation.join(" ")),
            ("rw noatime".to_owned(), "shared:1 master:2".to_owned())
        );
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("ext3", "/dev/root\tx"));
        assert_eq!(mount.super_options, ["rw", "errors=continue"]);
        assert_eq!(parse("36 35"), None);
    }
}
