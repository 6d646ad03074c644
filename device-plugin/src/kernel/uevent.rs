//! The kernel's announcements of devices that come and go (NETLINK_KOBJECT_UEVENT, lib/kobject_uevent.c). They
//! reach network namespaces of pods, but none that belongs to a user namespace.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use node::{Context, Kind, Result};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

/// The kernel's own group; the second is udev's.
const KERNEL: u32 = 1;

/// The kernel's buffer for one is 2048 bytes.
const LONGEST: usize = 4096;

/// The socket on which they arrive.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

/// What was told since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The subsystems of the devices that came, went or changed.
    pub subsystems: BTreeSet<String>,
    /// How many announcements that were.
    pub count: u64,
    /// Something was lost: everything may have changed.
    pub all: bool,
}

impl Uevents {
    /// Listens from now on.
    pub fn new() -> Result<Self> {
        let doing = || "listen to the kernel's uevents".to_owned();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))
            .doing(Kind::Kernel, doing)?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL)).doing(Kind::Kernel, doing)?;
        Ok(Self(socket))
    }

    /// Takes all that is there to be read; `WouldBlock` where there is nothing.
    pub fn read(&self) -> io::Result<Told> {
        let mut told = Told::default();
        let mut buffer = [0; LONGEST];
        loop {
            match recvfrom(&self.0, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _, sender)) => {
                    // Everybody with the right to may send to the group; the kernel's own come from 0.
                    let kernel = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
                    if kernel.is_some_and(|sender| sender.pid() == 0) {
                        told.count += 1;
                        told.subsystems.extend(buffer.get(..length).and_then(subsystem));
                    }
                }
                Err(Errno::NOBUFS) => told.all = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if told == Told::default() => return Err(Errno::AGAIN.into()),
                Err(Errno::AGAIN) => return Ok(told),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Uevents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The subsystem of an announcement: `ACTION@PATH`, then `KEY=VALUE`, each ended by a zero.
fn subsystem(message: &[u8]) -> Option<String> {
    let value = message.split(|b| *b == 0).find_map(|word| word.strip_prefix(b"SUBSYSTEM="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subsystem_is_read_from_an_announcement() {
        let message = b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=tty\0SEQNUM=9\0";
        assert_eq!(subsystem(message).as_deref(), Some("tty"));
        assert_eq!(subsystem(b"add@/devices/x\0ACTION=add\0"), None);
        assert_eq!(subsystem(b""), None);
    }
}
