//! The mounts of this process, as the kernel lists them (proc_pid_mountinfo(5)).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::{Context, Kind, Result};

/// The list of the calling thread: a thread may be in a mount namespace of its own.
const LIST: &str = "/proc/thread-self/mountinfo";
/// Room for the mounts of a small node.
const PAGE: usize = 4096;
/// What the kernel writes behind a path whose folder or file was deleted.
const DELETED: &[u8] = b"//deleted";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number; used again after it is unmounted.
    pub id: u32,
    /// The number of the mount that it lies on.
    pub parent: u32,
    /// Major and minor number of the file system, as st_dev has them for most.
    pub device: (u32, u32),
    /// What of the file system is mounted: `/` for all of it.
    pub root: PathBuf,
    /// Whether what is mounted was deleted where it came from.
    pub deleted: bool,
    /// Where it is mounted, seen from the process's root.
    pub point: PathBuf,
    /// The mount's own options: `rw,nosuid`.
    pub options: String,
    /// `shared:1`, `master:2`, `propagate_from:3`, `unbindable`; none for a private mount.
    pub propagation: Vec<String>,
    /// The file system: `ext4`, `fuse.sshfs`.
    pub kind: String,
    /// The device, the server's folder, or any word.
    pub source: OsString,
    /// The file system's options.
    pub super_options: String,
}

impl Mount {
    /// Whether the mount's own options have `option`, such as `ro`.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }
}

/// All mounts that this thread sees, in the kernel's order.
pub fn read() -> Result<Vec<Mount>> {
    let list =
        listed().doing(Kind::Io, || format!("read `{LIST}`")).map_err(|e| e.hint("/proc must be mounted"))?;
    // A line that cannot be read is a newer kernel's; the other mounts are as true without it.
    Ok(list.split(|b| *b == b'\n').filter_map(parse).collect())
}

fn listed() -> io::Result<Vec<u8>> {
    // The kernel writes a page at a time; fs::read would begin with a few bytes.
    let mut list = Vec::with_capacity(PAGE);
    File::open(LIST)?.read_to_end(&mut list)?;
    Ok(list)
}

/// The mounts at exactly `path`: a later one covers those before it.
pub fn at<'a>(mounts: &'a [Mount], path: &'a Path) -> impl DoubleEndedIterator<Item = &'a Mount> {
    mounts.iter().filter(move |m| m.point == path)
}

/// The mounts somewhere below `path`, without those at it. `/a/bc` is not below `/a/b`.
pub fn below<'a>(mounts: &'a [Mount], path: &'a Path) -> impl DoubleEndedIterator<Item = &'a Mount> {
    mounts.iter().filter(move |m| m.point != path && m.point.starts_with(path))
}

/// The mount at exactly `path` that is seen there: the one that no other mount at the same path lies on.
pub fn top<'a>(mounts: &'a [Mount], path: &'a Path) -> Option<&'a Mount> {
    at(mounts, path).find(|m| !at(mounts, path).any(|other| other.parent == m.id && other.id != m.id))
}

/// One line; `None` where it is not one.
///
/// ```text
/// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
/// ```
pub fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let mut next = || fields.next();
    let (id, parent) = (number(next()?)?, number(next()?)?);
    let device = next()?;
    let colon = device.iter().position(|b| *b == b':')?;
    let device = (number(device.get(..colon)?)?, number(device.get(colon + 1..)?)?);
    let root = unescape(next()?);
    let (root, deleted) = match root.strip_suffix(DELETED) {
        Some(kept) => (kept.to_vec(), true),
        None => (root, false),
    };
    let point = unescape(next()?);
    let options = text(next()?);
    let mut propagation = Vec::new();
    loop {
        match next()? {
            b"-" => break,
            field => propagation.push(text(field)),
        }
    }
    Some(Mount {
        id,
        parent,
        device,
        root: path(root),
        deleted,
        point: path(point),
        options,
        propagation,
        kind: text(next()?),
        source: OsString::from_vec(unescape(next()?)),
        super_options: text(next()?),
    })
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    OsStr::from_bytes(&unescape(field)).to_string_lossy().into_owned()
}

/// Space, tab, newline, backslash and `#` stand as three octal digits behind a backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', Some((byte, after))) = (first, octal(tail)) {
            plain.push(byte);
            rest = after;
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

fn octal(digits: &[u8]) -> Option<(u8, &[u8])> {
    let (three, after) = digits.split_at_checked(3)?;
    let value = three.iter().try_fold(0_u32, |sum, d| Some(sum * 8 + char::from(*d).to_digit(8)?))?;
    Some((u8::try_from(value).ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str) -> Mount {
        parse(line.as_bytes()).unwrap_or_else(|| panic!("not a line: {line}"))
    }

    #[test]
    fn every_field_is_read() {
        let seen = mount("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue");
        assert_eq!(
            seen,
            Mount {
                id: 36,
                parent: 35,
                device: (98, 0),
                root: "/mnt1".into(),
                deleted: false,
                point: "/mnt2".into(),
                options: "rw,noatime".into(),
                propagation: vec!["master:1".into()],
                kind: "ext3".into(),
                source: "/dev/root".into(),
                super_options: "rw,errors=continue".into(),
            }
        );
        assert!(seen.has("noatime") && !seen.has("no"));
    }

    #[test]
    fn optional_fields_may_be_none_or_many() {
        let cases = [
            ("1 0 0:1 / / rw - tmpfs none rw", &[][..]),
            ("1 0 0:1 / / rw shared:5 - tmpfs none rw", &["shared:5"]),
            (
                "1 0 0:1 / / rw shared:5 master:2 propagate_from:1 - tmpfs none rw",
                &["shared:5", "master:2", "propagate_from:1"],
            ),
        ];
        for (line, expect) in cases {
            assert_eq!(mount(line).propagation, expect, "{line}");
        }
    }

    #[test]
    fn escapes_and_bytes_are_undone() {
        let cases: [(&[u8], &[u8]); 6] = [
            (br"/a\040b", b"/a b"),
            (br"/a\011\012\134\043", b"/a\t\n\\#"),
            (br"/a\0400", b"/a 0"),
            (br"/a\04", br"/a\04"),
            (br"/a\999", br"/a\999"),
            (b"/\xff\xc3", b"/\xff\xc3"),
        ];
        for (written, expect) in cases {
            let line = [b"1 0 0:1 / ", written, b" rw - tmpfs none rw"].concat();
            assert_eq!(parse(&line).unwrap().point.as_os_str().as_bytes(), expect);
        }
    }

    #[test]
    fn a_deleted_source_is_told_from_a_folder_of_that_name() {
        let gone = mount("1 0 8:1 /vol/a//deleted /mnt rw - ext4 /dev/sda1 rw");
        assert_eq!((gone.root.to_str().unwrap(), gone.deleted), ("/vol/a", true));
        let there = mount(r"1 0 8:1 /vol/a\040(deleted) /mnt rw - ext4 /dev/sda1 rw");
        assert_eq!((there.root.to_str().unwrap(), there.deleted), ("/vol/a (deleted)", false));
    }

    #[test]
    fn what_is_not_a_line_is_none() {
        for line in ["", "1 0", "1 0 0:1 / / rw shared:1", "x 0 0:1 / / rw - a b c", "1 0 01 / / rw - a b c"]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(mount("1 0 0:1 / / rw -  none rw").kind, "");
    }

    #[test]
    fn paths_match_by_component_and_the_top_of_a_stack_is_found() {
        let mounts: Vec<_> = [
            "1 0 0:1 / / rw - tmpfs none rw",
            "2 1 0:2 / /a/b rw - tmpfs first rw",
            "3 1 0:3 / /a/bc rw - tmpfs none rw",
            "5 4 0:5 / /a/b rw - tmpfs third rw",
            "4 2 0:4 / /a/b rw - tmpfs second rw",
            "6 5 0:6 / /a/b/c rw - tmpfs none rw",
        ]
        .map(mount)
        .into();
        let ids = |list: Vec<&Mount>| list.iter().map(|m| m.id).collect::<Vec<_>>();
        assert_eq!(ids(at(&mounts, Path::new("/a/b")).collect()), [2, 5, 4]);
        assert_eq!(ids(below(&mounts, Path::new("/a/b")).collect()), [6]);
        assert_eq!(ids(below(&mounts, Path::new("/a")).collect()), [2, 3, 5, 4, 6]);
        assert_eq!(top(&mounts, Path::new("/a/b")).unwrap().source, "third");
        assert_eq!(top(&mounts, Path::new("/a")), None);
        assert_eq!(top(&mounts, Path::new("/")).unwrap().id, 1);
    }

    #[test]
    fn this_process_has_a_root() {
        let mounts = read().unwrap();
        assert!(mounts.iter().any(|m| m.point == Path::new("/")));
    }
}
