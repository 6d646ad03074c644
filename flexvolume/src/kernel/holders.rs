//! Who keeps a mount busy.
//!
//! A process is found by what it holds, as `/proc/PID` lists it. Only texts and the targets of links are
//! read: to follow such a link asks the file's server (an NFS client revalidates at the end of a jump),
//! and any dead server of the node, of whatever volume, would stop the search.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::daemon::processes;
use super::workshop;

/// What is sought: the mounts, and the file system itself where it is the volume's alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sought {
    /// Mount ids of this mount namespace, as in the first field of `/proc/self/mountinfo`.
    pub mounts: Vec<u64>,
    /// The device, `major:minor` as in the third field, of a file system that nothing but the volume
    /// uses: each of its mounts counts. Not for a bind mount, whose file system is also the node's.
    pub device: Option<String>,
}

/// What a process has of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// It is its working folder.
    WorkingFolder,
    /// It is its root folder.
    Root,
    /// It runs a program from it.
    Program,
    /// It has a file of it open.
    OpenFile,
    /// It has a file of it mapped into its memory.
    MappedFile,
    /// Its mount namespace still has the mount. That keeps the file system in use, and not this
    /// namespace's mount busy.
    Namespace,
}

/// A process that keeps a mount busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: i32,
    /// Its command's name, up to 15 characters.
    pub command: String,
    /// What it holds; the first thing found.
    pub holds: Holds,
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkingFolder => "working folder",
            Self::Root => "root folder",
            Self::Program => "program",
            Self::OpenFile => "open file",
            Self::MappedFile => "mapped file",
            Self::Namespace => "mount namespace",
        })
    }
}

/// `` `sleep` (pid 123) ``
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.command, self.pid)
    }
}

impl Sought {
    /// The mounts that lie at `point` now, one over the other; with `whole`, every mount of the last
    /// one's file system.
    pub fn at(point: &Path, whole: bool) -> Self {
        let mounts = mounts_of("self");
        let here: Vec<_> = mounts.iter().filter(|mount| mount.point == point).collect();
        let device = here.last().filter(|_| whole).map(|mount| mount.device.clone());
        Self { mounts: here.iter().map(|mount| mount.id).collect(), device }
    }
}

/// Up to `most` holders that are found until `deadline`, this process not among them: first those with
/// something open, then mount namespaces, one process for each. Memory maps are only looked at when
/// nothing else was found. It must be called in a process with one thread (see [`workshop`]).
pub fn of(sought: &Sought, most: usize, deadline: Instant) -> Vec<Holder> {
    let mut namespaces = Namespaces::new(sought);
    let (mut holders, mut copies) = (Vec::new(), Vec::new());
    for pid in others() {
        if Instant::now() >= deadline || holders.len() >= most {
            break;
        }
        let (space, first) = namespaces.of(pid);
        if space.sought.is_empty() {
            continue;
        }
        if let Some(holds) = open_by(pid, &space) {
            holders.push(holder(pid, holds));
        } else if first && space.foreign {
            copies.push(holder(pid, Holds::Namespace));
        }
    }
    if holders.is_empty() {
        holders = mapping(sought, most, deadline);
    }
    holders.extend(copies);
    holders.truncate(most);
    holders
}

fn others() -> impl Iterator<Item = i32> {
    let own = std::process::id().cast_signed();
    processes().filter(move |pid| *pid != own)
}

fn holder(pid: i32, holds: Holds) -> Holder {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let command: String = command.trim_end().chars().filter(|c| !c.is_control()).collect();
    Holder { pid, command: if command.is_empty() { "?".to_owned() } else { command }, holds }
}

/// The first thing of the sought that the process has.
fn open_by(pid: i32, space: &Space) -> Option<Holds> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let links = [("cwd", Holds::WorkingFolder), ("root", Holds::Root), ("exe", Holds::Program)];
    let at_sought = |name: &str| fs::read_link(folder.join(name)).is_ok_and(|path| space.shows(&path));
    if let Some((_, holds)) = links.iter().find(|(name, _)| at_sought(name)) {
        return Some(*holds);
    }
    let mut open = fs::read_dir(folder.join("fdinfo")).into_iter().flatten().flatten();
    let is_sought = |path: &Path| mount_of(path).is_some_and(|id| space.sought.contains(&id));
    open.any(|entry| is_sought(&entry.path())).then_some(Holds::OpenFile)
}

/// The mount that an open file lies on (proc_pid_fdinfo(5)).
fn mount_of(fdinfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(fdinfo).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// The processes that have mapped a file of the sought. In a child: listing a process's maps waits for
/// its memory map, which another thread of it may hold for as long as a dead server does not answer, and
/// a map's link must be followed.
fn mapping(sought: &Sought, most: usize, deadline: Instant) -> Vec<Holder> {
    let search = || {
        let mut namespaces = Namespaces::new(sought);
        let found = others().filter(|pid| maps(*pid, &namespaces.of(*pid).0.sought));
        Ok(found.take(most).flat_map(i32::to_ne_bytes).collect())
    };
    let bytes = workshop::apart(deadline, &[], search).unwrap_or_default();
    let pids = bytes.chunks_exact(4).filter_map(|c| c.try_into().ok()).map(i32::from_ne_bytes);
    pids.map(|pid| holder(pid, Holds::MappedFile)).collect()
}

fn maps(pid: i32, sought: &[u64]) -> bool {
    if sought.is_empty() {
        return false;
    }
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let mount = |path: PathBuf| statx(CWD, path, flags, StatxFlags::MNT_ID).ok().map(|seen| seen.stx_mnt_id);
    let files = fs::read_dir(format!("/proc/{pid}/map_files")).into_iter().flatten().flatten();
    files.filter_map(|entry| mount(entry.path())).any(|id| sought.contains(&id))
}

/// The mount namespaces of the node's processes, each read once.
struct Namespaces {
    sought: Sought,
    /// What the sought mounts show: device and folder.
    shown: Vec<(String, String)>,
    own: Option<PathBuf>,
    known: HashMap<PathBuf, Rc<Space>>,
}

/// A mount namespace.
#[derive(Debug, Default)]
struct Space {
    mounts: Vec<Mount>,
    /// The ids of the sought mounts in it: here those that were asked for, elsewhere those that show
    /// the same part of the same file system.
    sought: Vec<u64>,
    foreign: bool,
}

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    device: String,
    root: String,
    point: PathBuf,
}

impl Namespaces {
    fn new(sought: &Sought) -> Self {
        let of_sought = |mount: &Mount| sought.mounts.contains(&mount.id);
        let shown = mounts_of("self").into_iter().filter(of_sought).map(|m| (m.device, m.root)).collect();
        let own = fs::read_link("/proc/self/ns/mnt").ok();
        Self { sought: sought.clone(), shown, own, known: HashMap::new() }
    }

    /// The process's namespace, and whether it is the first process seen of it.
    fn of(&mut self, pid: i32) -> (Rc<Space>, bool) {
        let Ok(name) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else {
            return (Rc::default(), false);
        };
        if let Some(space) = self.known.get(&name) {
            return (Rc::clone(space), false);
        }
        let foreign = Some(&name) != self.own.as_ref();
        let space = Rc::new(self.read(mounts_of(&pid.to_string()), foreign));
        self.known.insert(name, Rc::clone(&space));
        (space, true)
    }

    fn read(&self, mounts: Vec<Mount>, foreign: bool) -> Space {
        let same = |mount: &Mount| {
            let here = if foreign {
                self.shown.iter().any(|(device, root)| *device == mount.device && *root == mount.root)
            } else {
                self.sought.mounts.contains(&mount.id)
            };
            here || self.sought.device.as_ref() == Some(&mount.device)
        };
        let sought = mounts.iter().filter(|mount| same(mount)).map(|mount| mount.id).collect();
        Space { mounts, sought, foreign }
    }
}

impl Space {
    /// Whether the path lies on a sought mount: on the innermost mount above it, the last one there.
    fn shows(&self, path: &Path) -> bool {
        let above = self.mounts.iter().filter(|mount| path.starts_with(&mount.point));
        let nearest = above.max_by_key(|mount| mount.point.components().count());
        nearest.is_some_and(|mount| self.sought.contains(&mount.id))
    }
}

/// The mounts in a process's namespace; none where it is gone.
fn mounts_of(pid: &str) -> Vec<Mount> {
    let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    mountinfo.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// Fields 1, 3, 4 and 5 of a line (proc_pid_mountinfo(5)).
fn entry(line: &[u8]) -> Option<Mount> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let (device, root) = (text(fields.nth(1)?), text(fields.next()?));
    Some(Mount { id, device, root, point: unescape(fields.next()?) })
}

/// A space, tab, newline and backslash stand as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            bytes.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "30 1 8:1 / / rw - ext4 /dev/r rw\n\
        36 30 98:0 /pool /a rw - ext4 /dev/x rw\n\
        37 36 98:0 /pool/b /a/in\\040side rw - ext4 /dev/x rw\n\
        38 30 98:01 /pool /c rw - ext4 /dev/y rw\nnonsense\n";

    fn space(mounts: &[u64], device: Option<&str>, foreign: bool) -> Space {
        let sought = Sought { mounts: mounts.to_vec(), device: device.map(str::to_owned) };
        let shown = vec![("98:0".to_owned(), "/pool".to_owned())];
        let namespaces = Namespaces { sought, shown, own: None, known: HashMap::new() };
        namespaces.read(MOUNTINFO.lines().filter_map(|line| entry(line.as_bytes())).collect(), foreign)
    }

    #[test]
    fn a_holder_reads_as_its_command_and_number() {
        let holder = Holder { pid: 123, command: "sleep".into(), holds: Holds::WorkingFolder };
        assert_eq!(holder.to_string(), "`sleep` (pid 123)");
        assert_eq!(holder.holds.to_string(), "working folder");
    }

    #[test]
    fn a_mount_is_told_by_its_id_here_and_by_what_it_shows_elsewhere() {
        assert_eq!(space(&[38], None, false).sought, [38]);
        assert_eq!(space(&[38], Some("98:0"), false).sought, [36, 37, 38]);
        assert_eq!(space(&[38], None, true).sought, [36]);
        assert_eq!(space(&[38], Some("98:0"), true).sought, [36, 37]);
        assert!(space(&[99], None, false).sought.is_empty());
    }

    #[test]
    fn a_path_lies_on_the_innermost_mount() {
        let space = space(&[36], None, false);
        let cases = [
            ("/a", true),
            ("/a/x (deleted)", true),
            ("/a/in side", false),
            ("/a/in side/x", false),
            ("/ab", false),
            ("/", false),
            ("socket:[1]", false),
        ];
        for (path, expect) in cases {
            assert_eq!(space.shows(Path::new(path)), expect, "{path}");
        }
    }
}
