//! Grows a mounted file system to the size of its device, by an ioctl on its root folder.
//!
//! `root` may be an `O_PATH` descriptor. A file system that is as large already stays as it is; none is
//! ever shrunk.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use node::{Context, Error, Kind, Result};
use rustix::fs::{Mode, OFlags, fstatfs, openat};

/// `_IOW('f', 16, __u64)` of fs/ext4/ext4.h.
const EXT4_RESIZE_FS: u32 = 0x4008_6610;
/// `_IOR('X', 100, struct xfs_fsop_geom_v1)` of fs/xfs/libxfs/xfs_fs.h.
const XFS_GEOMETRY: u32 = 0x8070_5864;
/// `_IOW('X', 110, struct xfs_growfs_data)`.
const XFS_GROW_DATA: u32 = 0x4010_586e;
/// `_IOW(0x94, 3, struct btrfs_ioctl_vol_args)` of linux/btrfs.h.
const BTRFS_RESIZE: u32 = 0x5000_9403;

/// `struct xfs_fsop_geom_v1`: what is needed of it, and room for the rest.
#[repr(C)]
struct XfsGeometry {
    block_size: u32,
    before: [u32; 6],
    inode_percent: u32,
    data_blocks: u64,
    rest: [u64; 9],
}

/// `struct xfs_growfs_data`.
#[repr(C)]
struct XfsGrowData {
    new_blocks: u64,
    inode_percent: u32,
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct BtrfsArguments {
    fd: i64,
    name: [u8; 4088],
}

const _: () = assert!(
    size_of::<XfsGeometry>() == 112 && size_of::<XfsGrowData>() == 16 && size_of::<BtrfsArguments>() == 4096
);

/// Grows a mounted ext4 to `bytes` (the device's size, rounded down to blocks). [`Kind::Unavailable`] where
/// root lacks CAP_SYS_RESOURCE: then it can grow at the next mount, by resize2fs.
pub fn ext4(root: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let doing = || "grow the mounted ext4".to_owned();
    let status = fstatfs(root).map_err(io::Error::from).doing(Kind::Kernel, doing)?;
    let block = u64::try_from(status.f_bsize).unwrap_or(0);
    let mut blocks = bytes.checked_div(block).unwrap_or(0);
    let folder = open(root).doing(Kind::Io, doing)?;
    request(&folder, EXT4_RESIZE_FS, &mut blocks).map_err(|e| refused(e, doing()))
}

/// Grows a mounted xfs to `bytes` (the device's size, rounded down to blocks).
pub fn xfs(root: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let doing = || "grow the mounted xfs".to_owned();
    let folder = open(root).doing(Kind::Io, doing)?;
    let mut geometry =
        XfsGeometry { block_size: 0, before: [0; 6], inode_percent: 0, data_blocks: 0, rest: [0; 9] };
    request(&folder, XFS_GEOMETRY, &mut geometry)
        .doing(Kind::Kernel, || "measure the mounted xfs".to_owned())?;
    let new_blocks = bytes.checked_div(u64::from(geometry.block_size)).unwrap_or(0);
    if new_blocks <= geometry.data_blocks {
        return Ok(());
    }
    let mut wanted = XfsGrowData { new_blocks, inode_percent: geometry.inode_percent };
    request(&folder, XFS_GROW_DATA, &mut wanted).map_err(|e| refused(e, doing()))
}

/// Grows a mounted btrfs of one device to all of it.
pub fn btrfs(root: BorrowedFd<'_>) -> Result<()> {
    let doing = || "grow the mounted btrfs".to_owned();
    let folder = open(root).doing(Kind::Io, doing)?;
    let mut wanted = BtrfsArguments { fd: 0, name: [0; 4088] };
    for (byte, letter) in wanted.name.iter_mut().zip(b"1:max") {
        *byte = *letter;
    }
    request(&folder, BTRFS_RESIZE, &mut wanted).map_err(|e| refused(e, doing()))
}

/// An ioctl needs a folder that is really open.
fn open(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(openat(root, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Each number above goes with one structure, of the size that the number itself has in it.
fn request<T>(folder: &OwnedFd, number: u32, argument: &mut T) -> io::Result<()> {
    debug_assert_eq!(usize::try_from(number >> 16 & 0x3fff), Ok(size_of::<T>()));
    let argument: *mut c_void = (&raw mut *argument).cast();
    // SAFETY: the kernel reads or writes as many bytes as the number says, which is the structure's size,
    // and the structure lives across the call.
    let code = unsafe { libc::ioctl(folder.as_fd().as_raw_fd(), libc::Ioctl::from(number), argument) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn refused(cause: io::Error, doing: String) -> Box<Error> {
    match cause.raw_os_error() {
        Some(libc::EPERM) => Error::caused(Kind::Unavailable, doing, cause)
            .hint("growing a mounted file system needs CAP_SYS_RESOURCE (ext4) or CAP_SYS_ADMIN"),
        // Somebody else resizes it right now.
        Some(libc::EBUSY | libc::EAGAIN | libc::EINPROGRESS | libc::ETXTBSY) => {
            Error::caused(Kind::TryAgain, doing, cause)
        }
        _ => Error::caused(Kind::Kernel, doing, cause),
    }
}
