//! Raw rtnetlink over libc, for the floor of the benchmark: the same kernel work as an ADD and a DEL in
//! bridge mode, and nothing around it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sched::{CloneFlags, setns};

const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const NESTED: u16 = 0x8000;
const RTMGRP_LINK: u32 = 1;

/// A message, or several in a row, as they go to the kernel.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    start: usize,
    count: u32,
}

impl Batch {
    fn message(&mut self, kind: u16, flags: i32, header: &[u8]) {
        self.start = self.bytes.len();
        self.count += 1;
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).unwrap_or(0);
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(header);
        self.close();
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.raw(kind, value);
        self.close();
    }

    fn raw(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The message's length covers what was added last.
    fn close(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.start).unwrap_or(0);
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
    let mut batch = Batch::default();
    for (kind, value) in list {
        batch.raw(*kind, value);
    }
    batch.bytes
}

fn link_header(index: i32, up: bool) -> Vec<u8> {
    let flags = if up { libc::IFF_UP.cast_unsigned() } else { 0 };
    let mut header = vec![0, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header
}

/// What the floor's ADD makes.
#[derive(Debug)]
pub struct Floor<'a> {
    /// The pod's namespace.
    pub netns: &'a str,
    /// The host end.
    pub host: &'a str,
    /// The bridge that takes it.
    pub bridge: &'a str,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Ipv4Addr,
}

impl Floor<'_> {
    /// One message on the host, one batch in the pod.
    pub fn add(&self) -> io::Result<()> {
        let netns = File::open(self.netns)?;
        let bridge = index_of(self.bridge)?;
        Socket::open(0)?.send(&self.pair(bridge, netns.as_raw_fd()))?;
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        Socket::open(0)?.send(&self.inside(index_of("eth0")?))
    }

    fn pair(&self, bridge: i32, netns: i32) -> Batch {
        let one = 1_u32.to_ne_bytes();
        let mtu = 1500_u32.to_ne_bytes();
        let queues = [(IFLA_NUM_TX_QUEUES, &one[..]), (IFLA_NUM_RX_QUEUES, &one[..])];
        let [a, b, c, d] = self.address.octets();
        let mut peer = link_header(0, false);
        peer.extend(attributes(&[
            (libc::IFLA_IFNAME, b"eth0\0"),
            (libc::IFLA_ADDRESS, &[0x0a, 0x58, a, b, c, d]),
            (libc::IFLA_MTU, &mtu),
            (IFLA_NET_NS_FD, &netns.to_ne_bytes()),
            queues[0],
            queues[1],
        ]));
        let data = attributes(&[(VETH_INFO_PEER | NESTED, &peer)]);
        let info = attributes(&[(IFLA_INFO_KIND, b"veth"), (IFLA_INFO_DATA | NESTED, &data)]);
        let mut batch = Batch::default();
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        batch.message(libc::RTM_NEWLINK, create, &link_header(0, true));
        batch.attribute(libc::IFLA_IFNAME, &[self.host.as_bytes(), b"\0"].concat());
        batch.attribute(libc::IFLA_ADDRESS, &[0x02, 0x58, a, b, c, d]);
        batch.attribute(libc::IFLA_MTU, &mtu);
        batch.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        for (kind, value) in queues {
            batch.attribute(kind, value);
        }
        batch.attribute(libc::IFLA_LINKINFO | NESTED, &info);
        batch
    }

    fn inside(&self, eth0: i32) -> Batch {
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let inet = u8::try_from(libc::AF_INET).unwrap_or(2);
        let address = self.address.octets();
        let mut batch = Batch::default();
        batch.message(libc::RTM_NEWLINK, 0, &link_header(eth0, true));
        let mut header = vec![inet, self.prefix, 0, 0];
        header.extend(eth0.to_ne_bytes());
        batch.message(libc::RTM_NEWADDR, create, &header);
        batch.attribute(libc::IFA_LOCAL, &address);
        batch.attribute(libc::IFA_ADDRESS, &address);
        // Family, lengths, tos, table main, protocol boot, scope universe, type unicast, flags.
        let route = [inet, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        batch.message(libc::RTM_NEWROUTE, create, &route);
        batch.attribute(libc::RTA_GATEWAY, &self.gateway.octets());
        batch.attribute(libc::RTA_OIF, &eth0.to_ne_bytes());
        batch
    }
}

/// Deletes a link by a detached child, and returns when the kernel says that it is gone. The child waits
/// out the kernel's barrier.
pub fn delete(host: &str) -> io::Result<()> {
    let index = index_of(host)?;
    let news = Socket::open(RTMGRP_LINK)?;
    // SAFETY: this program has one thread, so the child may use everything that the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => reap(index),
        _ => news.until_gone(index),
    }
}

fn reap(index: i32) -> ! {
    for descriptor in 0..3 {
        // SAFETY: closing the three standard descriptors; nothing in this child uses them.
        unsafe { libc::close(descriptor) };
    }
    let mut batch = Batch::default();
    batch.message(libc::RTM_DELLINK, 0, &link_header(index, false));
    let code = i32::from(Socket::open(0).and_then(|s| s.send(&batch)).is_err());
    // SAFETY: ends the child at once; the parent's exit handlers are not the child's to run.
    unsafe { libc::_exit(code) }
}

struct Socket(OwnedFd);

impl Socket {
    fn open(groups: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes plain integers and gives a new descriptor or -1.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(raw) });
        if groups != 0 {
            socket.join(groups)?;
        }
        Ok(socket)
    }

    fn join(&self, groups: u32) -> io::Result<()> {
        // SAFETY: all zeroes is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or(16);
        address.nl_groups = groups;
        let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or(0);
        // SAFETY: the pointer is to a live sockaddr_nl of the size that is given.
        let done = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), size) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends a batch and takes an acknowledgement of each of its messages.
    fn send(&self, batch: &Batch) -> io::Result<()> {
        // SAFETY: the pointer and the length are of a live vector.
        let sent =
            unsafe { libc::send(self.0.as_raw_fd(), batch.bytes.as_ptr().cast(), batch.bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut left = batch.count;
        while left > 0 {
            for (kind, payload) in self.receive()? {
                if i32::from(kind) == libc::NLMSG_ERROR {
                    match word(&payload, 0) {
                        0 => left -= 1,
                        code => return Err(io::Error::from_raw_os_error(-code)),
                    }
                }
            }
        }
        Ok(())
    }

    fn until_gone(&self, index: i32) -> io::Result<()> {
        loop {
            let news = self.receive()?;
            // The bridge announces the end of its port first, under its own family.
            let own = |payload: &[u8]| payload.first() == Some(&0) && word(payload, 4) == index;
            if news.iter().any(|(kind, payload)| *kind == libc::RTM_DELLINK && own(payload)) {
                return Ok(());
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<(u16, Vec<u8>)>> {
        let mut bytes = [0_u8; 8192];
        // SAFETY: the pointer and the length are of a live array.
        let got = unsafe { libc::recv(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        let mut rest = &bytes[..got];
        let mut messages = Vec::new();
        while rest.len() >= 16 {
            let length = usize::try_from(word(rest, 0)).unwrap_or(0).clamp(16, rest.len());
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            messages.push((kind, rest[16..length].to_vec()));
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(messages)
    }
}

fn word(bytes: &[u8], at: usize) -> i32 {
    let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    i32::from_ne_bytes(four.unwrap_or_default())
}

fn index_of(name: &str) -> io::Result<i32> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a string that ends in NUL and lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index.cast_signed()) }
}
