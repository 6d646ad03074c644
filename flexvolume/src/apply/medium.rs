//! Images, loop devices, and the programs that make, check and grow a file system.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result, mountinfo};
use rustix::fs::{FallocateFlags, Gid, Mode, OFlags, Uid};

use super::hands::{Device, Handle, Hands};
use crate::kernel::helper::{self, Helper, Outcome};
use crate::kernel::loop_device::{self, Loop, Wish};
use crate::kernel::superblock::{self, Content};
use crate::kernel::{block_device, grow, path};
use crate::plan::{Allocate, Medium, Setting, Source};
use crate::policy::ImageFs;
use crate::record::Unfinished;

/// Where distributions have their programs.
const PROGRAMS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// What a helper's end leaves of the call's time.
const MARGIN: Duration = Duration::from_secs(2);
/// A loop device ends a moment after its last user.
const ENDING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Does one step.
pub(super) fn take(step: &Medium, hands: &mut Hands<'_>) -> Result<()> {
    match step {
        Medium::Create(path) => create(hands, path),
        Medium::Publish { from, to } => {
            path::rename_beneath(hands.opened(Handle::ImageFolder)?, &last(from), &last(to))
        }
        Medium::Remove(path) => remove(path),
        Medium::Delete(path) => delete(path),
        Medium::Lengthen { to, allocate } => lengthen(&image(hands)?, *to, *allocate),
        Medium::Loop { read_only, alone } => put_loop(hands, *read_only, *alone),
        Medium::Reuse(number) => {
            hands.device = Some(Device::Loop(Loop::open(*number)?));
            Ok(())
        }
        Medium::Capacity => match hands.device()? {
            Device::Loop(device) => device.set_capacity(),
            Device::Block(..) => Ok(()),
        },
        Medium::Format { fs, arguments } => {
            let made = format(hands, *fs, arguments);
            hands.unfinished = made.is_err() && matches!(hands.device, Some(Device::Block(..)));
            made
        }
        Medium::Formatted => formatted(hands),
        Medium::Finish(unfinished) => {
            if let Err(error) = finish(hands, unfinished) {
                hands.notes.push(format!("{step}: {}", error.chain()));
            }
            Ok(())
        }
        Medium::Check { shown, thorough } => check(hands, shown, *thorough),
        Medium::Resize => resize(hands),
        Medium::Grow { fs, bytes } => match fs {
            ImageFs::Ext4 => grow::ext4(hands.tree()?.as_fd(), *bytes),
            ImageFs::Xfs => grow::xfs(hands.tree()?.as_fd(), *bytes),
            ImageFs::Btrfs => grow::btrfs(hands.tree()?.as_fd()),
            ImageFs::Erofs | ImageFs::Squashfs => Ok(()),
        },
        Medium::Root { mode, uid, gid } => own_root(hands, *mode, *uid, *gid),
    }
}

/// A source as the kernel takes it.
pub(super) fn source(source: &Source, hands: &Hands<'_>) -> Result<Option<String>> {
    match source {
        Source::None => Ok(None),
        Source::Named(name) => Ok(Some(name.clone())),
        Source::Device => Ok(Some(hands.device()?.path().to_string_lossy().into_owned())),
        Source::Image => Ok(Some(format!("/proc/self/fd/{}", hands.opened(Handle::Image)?.as_raw_fd()))),
    }
}

/// Makes a file system of the image itself (erofs, Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE); a kernel
/// that wants a block device gets a loop device over it.
pub(super) fn make_of_image(
    hands: &mut Hands<'_>,
    kind: &str,
    settings: &[Setting],
    read_only: bool,
) -> Result<()> {
    let file = source(&Source::Image, hands)?;
    match hands.make(kind, file.as_deref(), settings, read_only) {
        Err(error) if error.errno() == Some(libc::ENOTBLK) => {
            put_loop(hands, true, false)?;
            let device = source(&Source::Device, hands)?;
            hands.make(kind, device.as_deref(), settings, read_only)
        }
        other => other,
    }
}

fn last(path: &Path) -> PathBuf {
    path.file_name().map(PathBuf::from).unwrap_or_default()
}

fn image(hands: &Hands<'_>) -> Result<File> {
    let image = hands.opened(Handle::Image)?.try_clone_to_owned();
    image.map(File::from).doing(Kind::Io, || "use the image".to_owned())
}

fn create(hands: &mut Hands<'_>, path: &Path) -> Result<()> {
    let image = path::create_file(hands.opened(Handle::ImageFolder)?, &last(path), 0o600)?;
    hands.open.insert(Handle::Image, image.into());
    Ok(())
}

fn lengthen(image: &File, to: u64, allocate: Allocate) -> Result<()> {
    let doing = || "take the space for the image".to_owned();
    match allocate {
        Allocate::Full => {
            let taken = rustix::fs::fallocate(image, FallocateFlags::empty(), 0, to);
            taken.map_err(std::io::Error::from).doing(Kind::Io, doing).map_err(|e| match e.errno() {
                Some(libc::EOPNOTSUPP) => {
                    e.hint("the file system below the image cannot allocate: set `allocate: sparse`")
                }
                _ => room(e),
            })
        }
        Allocate::Sparse => image.set_len(to).doing(Kind::Io, doing).map_err(room),
    }
}

fn room(error: Box<Error>) -> Box<Error> {
    match error.errno() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
            error.hint("make room where the image lies, or ask for a smaller `size`")
        }
        _ => error,
    }
}

/// Opens a path that has no symlink, step by step: a folder on the way may have been exchanged since.
fn root_of(path: &Path) -> Result<(std::os::fd::OwnedFd, PathBuf)> {
    let root = path::open_root(Path::new("/"))?;
    Ok((root, path.strip_prefix("/").unwrap_or(path).to_owned()))
}

fn remove(path: &Path) -> Result<()> {
    let (root, relative) = root_of(path)?;
    path::remove_file_beneath(root.as_fd(), &relative)
}

fn delete(path: &Path) -> Result<()> {
    let (root, relative) = root_of(path)?;
    let image = match path::beneath(root.as_fd(), &relative, path::Want::Read) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        other => File::from(other?),
    };
    wait_until_free(&image, path)?;
    path::remove_file_beneath(root.as_fd(), &relative)
}

/// Waits a moment for the loop devices over `image` to end, unless they are mounted. [`Kind::Conflict`] names
/// those that do not, and where they are mounted.
pub fn wait_until_free(image: &File, shown: &Path) -> Result<()> {
    wait_until_none(image, shown, |_| true)
}

/// The same, for those that write.
pub fn wait_until_read_only(image: &File, shown: &Path) -> Result<()> {
    wait_until_none(image, shown, |number| !loop_device::is_read_only(number))
}

fn wait_until_none(image: &File, shown: &Path, counts: impl Fn(u32) -> bool) -> Result<()> {
    let until = Instant::now() + ENDING;
    loop {
        let mut over = loop_device::over(image)?;
        over.retain(|number| counts(*number));
        if over.is_empty() {
            return Ok(());
        }
        let mounts = mountinfo::read()?;
        let points: Vec<_> = over.iter().map(|number| (*number, points(&mounts, *number))).collect();
        if Instant::now() >= until || points.iter().any(|(_, at)| !at.is_empty()) {
            return Err(in_use(shown, &points));
        }
        thread::sleep(PAUSE);
    }
}

/// Where a loop device is mounted. The number of a btrfs is its own, and its source tells.
fn points(mounts: &[mountinfo::Mount], number: u32) -> Vec<String> {
    let node = format!("/dev/loop{number}");
    let on = |m: &&mountinfo::Mount| m.device == (7, number) || m.source == node.as_str();
    mounts.iter().filter(on).map(|m| m.point.display().to_string()).collect()
}

fn in_use(shown: &Path, users: &[(u32, Vec<String>)]) -> Box<Error> {
    let words = |(number, points): &(u32, Vec<String>)| match points.as_slice() {
        [] => format!("/dev/loop{number}"),
        points => format!("/dev/loop{number}, mounted at {}", points.join(" and ")),
    };
    let users: Vec<String> = users.iter().map(words).collect();
    Error::caused(
        Kind::Conflict,
        format!("use the image `{}`", shown.display()),
        format!("it is in use by {}", users.join("; ")),
    )
    .hint("an image is written to by one pod, or read by many with `access: ro`: end the other use first")
}

/// The lock on the image's inode stays with the loop device: it holds the open file. So nobody who asks gets
/// the image a second time, by whatever name.
fn put_loop(hands: &mut Hands<'_>, read_only: bool, alone: bool) -> Result<()> {
    hands.device = None;
    let image = image(hands)?;
    let locked = if alone { image.try_lock() } else { image.try_lock_shared() };
    match locked {
        Err(TryLockError::WouldBlock) => {
            let doing = if alone { "have the image alone" } else { "share the image" };
            return Err(Error::caused(Kind::Conflict, doing, "another process holds a lock on it")
                .hint("`lslocks` on the node names the process; loop devices hold such a lock, too"));
        }
        // Some network file systems have no such locks; the list of loop devices was looked at.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let device = loop_device::attach(&image, Wish { read_only, direct_io: !read_only })?;
    hands.device = Some(Device::Loop(device));
    Ok(())
}

/// Runs `program` on the device in hand.
fn run(hands: &Hands<'_>, program: &str, arguments: &[String]) -> Result<Outcome> {
    let found = PROGRAMS.iter().map(|folder| Path::new(folder).join(program)).find(|p| p.exists());
    let path = found.unwrap_or_else(|| Path::new("/usr/sbin").join(program));
    let device = hands.device()?.path();
    let words: Vec<_> = arguments.iter().map(Into::into).chain([device.into_os_string()]).collect();
    let kept = hands.locked();
    let deadline = hands.deadline.checked_sub(MARGIN).unwrap_or(hands.deadline);
    helper::run(&Helper { keep: &kept, ..Helper::new(&path, &words, deadline) })
}

fn failed(program: &str, outcome: &Outcome) -> Box<Error> {
    let words = if outcome.text.is_empty() { outcome.status.to_string() } else { outcome.text.clone() };
    Error::caused(Kind::Kernel, format!("run `{program}`"), words)
}

fn format(hands: &Hands<'_>, fs: ImageFs, arguments: &[String]) -> Result<()> {
    let program = format!("mkfs.{}", fs.name());
    let outcome = run(hands, &program, arguments)?;
    if outcome.status.success() { Ok(()) } else { Err(failed(&program, &outcome)) }
}

fn formatted(hands: &mut Hands<'_>) -> Result<()> {
    match &mut hands.remembered {
        Some((id, record)) => {
            record.format = None;
            record.write(id)
        }
        None => Ok(()),
    }
}

/// Formats a device again whose formatting was cut off. What has become of it meanwhile is looked at: it must
/// be the same disk, nobody's, and without anything that has a name.
fn finish(hands: &mut Hands<'_>, unfinished: &Unfinished) -> Result<()> {
    let device = match block_device::open(&unfinished.device) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        other => other?,
    };
    let same = (device.sequence(), device.size) == (unfinished.sequence, unfinished.size);
    if !same || device.user().is_some() || device.is_claimed()? {
        return Ok(());
    }
    match superblock::probe(&device.file, device.size)? {
        Content::Filesystem(_) | Content::Other(_) => return Ok(()),
        Content::Empty | Content::Unknown => {}
    }
    hands.device = Some(Device::Block(device.file, device.path));
    let made = format(hands, unfinished.fs, &unfinished.arguments);
    hands.device = None;
    made
}

/// The exit codes of e2fsck(8): 1 is "repaired", 2 "repaired, restart the node", which is about a mounted
/// root.
fn check(hands: &mut Hands<'_>, shown: &Path, thorough: bool) -> Result<()> {
    let flags: &[&str] = if thorough { &["-p", "-f"] } else { &["-p"] };
    let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
    let outcome = run(hands, "e2fsck", &flags)?;
    match outcome.status.code() {
        Some(0) => Ok(()),
        Some(1..=3) => {
            hands.notes.push(format!("the ext4 in `{}` was repaired by e2fsck", shown.display()));
            Ok(())
        }
        _ => Err(failed("e2fsck", &outcome).hint(format!(
            "while no pod uses it, run `e2fsck -f {}` on the node and decide what it asks",
            shown.display()
        ))),
    }
}

fn resize(hands: &Hands<'_>) -> Result<()> {
    let outcome = run(hands, "resize2fs", &[])?;
    if outcome.status.success() { Ok(()) } else { Err(failed("resize2fs", &outcome)) }
}

fn own_root(hands: &Hands<'_>, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let doing = || "open the root folder".to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(hands.tree()?, c".", flags, Mode::empty()).doing(Kind::Kernel, doing)?;
    let seen = rustix::fs::fstat(&root).doing(Kind::Kernel, doing)?;
    let uid = uid.filter(|uid| *uid != seen.st_uid).map(Uid::from_raw);
    let gid = gid.filter(|gid| *gid != seen.st_gid).map(Gid::from_raw);
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(&root, uid, gid).doing(Kind::Kernel, doing)?;
    }
    // After the owner: chown clears what chmod sets.
    match mode.filter(|mode| *mode != seen.st_mode & 0o7777 || uid.is_some() || gid.is_some()) {
        Some(mode) => rustix::fs::fchmod(&root, Mode::from_raw_mode(mode)).doing(Kind::Kernel, doing),
        None => Ok(()),
    }
}
