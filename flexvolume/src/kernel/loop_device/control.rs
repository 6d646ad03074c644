//! The ioctls of loop devices, with the structures of linux/loop.h.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

const SET_FD: u32 = 0x4c00;
const CLR_FD: u32 = 0x4c01;
const SET_STATUS64: u32 = 0x4c04;
const GET_STATUS64: u32 = 0x4c05;
const SET_CAPACITY: u32 = 0x4c07;
const CONFIGURE: u32 = 0x4c0a;
const CTL_GET_FREE: u32 = 0x4c82;

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Info {
    /// st_dev of the file below.
    pub(super) device: u64,
    /// st_ino of it.
    pub(super) inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

impl Info {
    fn with(flags: u32) -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// The flags of a device that ends with its last user.
pub(super) fn flags(read_only: bool, direct_io: bool) -> u32 {
    AUTOCLEAR | if read_only { READ_ONLY } else { 0 } | if direct_io { DIRECT_IO } else { 0 }
}

/// The number of a device that is free now, made where none is.
pub(super) fn free(control: &File) -> io::Result<u32> {
    // SAFETY: the request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), request(CTL_GET_FREE)) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Gives the device its file and flags in one step.
pub(super) fn configure(device: &File, image: &File, flags: u32) -> io::Result<()> {
    let config = Config {
        fd: image.as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: Info::with(flags),
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one `struct loop_config`, which lives across the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), request(CONFIGURE), &raw const config) })
}

/// The same in two steps; a process killed between them leaves the device to `losetup -d`.
pub(super) fn set_file(device: &File, image: &File, flags: u32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    done(unsafe { libc::ioctl(device.as_raw_fd(), request(SET_FD), image.as_raw_fd()) })?;
    set_flags(device, flags).inspect_err(|_| {
        // SAFETY: the request takes no argument.
        unsafe { libc::ioctl(device.as_raw_fd(), request(CLR_FD)) };
    })
}

fn set_flags(device: &File, flags: u32) -> io::Result<()> {
    let info = Info::with(flags);
    let mut tries = 0;
    loop {
        // SAFETY: the kernel reads one `struct loop_info64`, which lives across the call.
        let set = done(unsafe { libc::ioctl(device.as_raw_fd(), request(SET_STATUS64), &raw const info) });
        match set {
            // Pages of the device's former file are still being written.
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && tries < 100 => {
                tries += 1;
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// What the device stands on; ENXIO where it is free.
pub(super) fn status(device: &File) -> io::Result<Info> {
    let mut info = Info::with(0);
    // SAFETY: the kernel writes one `struct loop_info64`, which lives across the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), request(GET_STATUS64), &raw mut info) })?;
    Ok(info)
}

/// Takes over the file's present size.
pub(super) fn set_capacity(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    done(unsafe { libc::ioctl(device.as_raw_fd(), request(SET_CAPACITY)) })
}

/// The C libraries do not agree whether a request is signed; all of these fit into both.
fn request(number: u32) -> libc::Ioctl {
    libc::Ioctl::from(number)
}

fn done(code: libc::c_int) -> io::Result<()> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
