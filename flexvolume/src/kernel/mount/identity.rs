//! Which mount a descriptor lies on, and whether it is that mount's root (statx(2)).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use node::{Context, Kind, Result, mountinfo};
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, statx};

/// Since Linux 6.8; unlike the older number it is never used again in this boot.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The mount that `fd` lies on: the number that is never used again (`STATX_MNT_ID_UNIQUE`, always above
/// 2^31), or on older kernels the one of mountinfo.
pub fn unique_id(fd: BorrowedFd<'_>) -> Result<u64> {
    let doing = || "ask for the id of a mount".to_owned();
    let answer = ask(fd, MNT_ID_UNIQUE).doing(Kind::Kernel, doing)?;
    if answer.stx_mask & MNT_ID_UNIQUE.bits() != 0 {
        return Ok(answer.stx_mnt_id);
    }
    listed_id(fd).map(u64::from).doing(Kind::Kernel, doing)
}

/// Whether `fd` is the root of a mount. The file system itself is not asked, so a dead server or FUSE
/// daemon does not hold this up.
pub fn is_root(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let answer = ask(fd, StatxFlags::empty())?;
    if answer.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(answer.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Before Linux 5.8: the mount's own point is where its root is.
    let id = listed_id(fd)?;
    let path = fs::read_link(super::magic_path(fd))?;
    let mounts = mountinfo::read().map_err(io::Error::other)?;
    Ok(mounts.iter().any(|m| m.id == id && m.point == path))
}

/// Asks the file system itself (`AT_STATX_FORCE_SYNC`): its server or daemon has to answer, and until it
/// does, this may not return. For a child (see [`workshop`](crate::kernel::workshop)).
pub fn ask_server(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_FORCE_SYNC;
    Ok(statx(fd, c"", flags, StatxFlags::BASIC_STATS).map(drop)?)
}

fn ask(fd: BorrowedFd<'_>, wanted: StatxFlags) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    Ok(statx(fd, c"", flags, wanted)?)
}

/// The number that mountinfo has for the mount that `fd` lies on.
pub fn listed_id(fd: BorrowedFd<'_>) -> io::Result<u32> {
    if let Some(id) = ask(fd, StatxFlags::MNT_ID).ok().as_ref().and_then(listed) {
        return Ok(id);
    }
    // Before Linux 5.8 the descriptor's own page says it (proc_pid_fdinfo(5)).
    let page = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let line = page.lines().find_map(|l| l.strip_prefix("mnt_id:"));
    line.and_then(|n| n.trim().parse().ok()).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// What lies under `name` in the open folder: its type, with a symlink not followed, and the number that mountinfo has
/// for the mount that is seen there, where the kernel tells (Linux 5.8).
pub fn listed_at(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<(FileType, Option<u32>)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let answer = statx(folder, name, flags, StatxFlags::TYPE | StatxFlags::MNT_ID)?;
    Ok((FileType::from_raw_mode(answer.stx_mode.into()), listed(&answer)))
}

fn listed(answer: &Statx) -> Option<u32> {
    let told = answer.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    u32::try_from(answer.stx_mnt_id).ok().filter(|_| told)
}
