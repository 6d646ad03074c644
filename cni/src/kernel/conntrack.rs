//! The kernel's memory of connections: `conntrack -L` and `conntrack -D`, for the few that a change of host
//! ports contradicts. A connection without a handshake lives for as long as anybody sends, and what it was
//! once sent to gets its packets for so long.
//!
//! Both walk the whole table, however many connections there are. A list locks each of its buckets, which takes
//! 12 ms with the 262144 of a usual node; a delete passes over the empty ones, and takes 0.3 ms.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use netlink_bindings::utils::{
    IterableChunks, align, finalize_nested_header, push_header, push_header_type, push_nested_header,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use node::{Context, Error, Kind, Result};

use super::nft::Forward;
use crate::port::Protocol;

const HEADER: usize = 16;
/// struct nfgenmsg.
const GENERAL: usize = 4;
/// The kernel sends dumps in pieces of at most 32 KiB.
const RECEIVE: usize = 32 << 10;
/// How many are deleted by one send.
const TOGETHER: usize = 100;
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ZONE: u16 = 18;
const ID: u16 = 12;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE_4: u16 = 1;
const DESTINATION_4: u16 = 2;
const SOURCE_6: u16 = 3;
const DESTINATION_6: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// `CTA_FILTER_FLAG_CTA_IP_SRC`, `…_IP_DST`, `…_PROTO_NUM`, `…_PROTO_SRC_PORT`, `…_PROTO_DST_PORT`
/// (net/netfilter/nf_internals.h).
const BY_SOURCE: u32 = 1 << 0;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A connection as the kernel remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    protocol: u8,
    /// Where it was sent to.
    pub to: SocketAddr,
    /// Who answers.
    pub by: SocketAddr,
    /// What names it to the kernel: its first direction, zone and number.
    name: Vec<u8>,
}

/// Which UDP connections over IPv4 are meant.
///
/// The kernel's filter (`ctnetlink_filter_match_tuple`) is right for these. SCTP's ports it does not look at, and IPv6
/// addresses it compares the wrong way round: it takes those that differ.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    port: u16,
    /// Sent to this address.
    to: Option<Ipv4Addr>,
    /// Answered by this one.
    by: Option<SocketAddrV4>,
}

impl Pattern {
    /// Whether connections to `port` can be named by one.
    pub fn is_for(port: &Forward) -> bool {
        port.protocol == Protocol::Udp && port.host.is_ipv4() && port.to.is_ipv4()
    }

    /// What was sent to `address` and the port of `port`, whoever answers.
    pub fn sent_to(address: Ipv4Addr, port: &Forward) -> Self {
        Self { port: port.port, to: Some(address), by: None }
    }

    /// What the pod of `port` answers, by that port; `None` for one that it [is not for](Self::is_for).
    pub fn led_by(port: &Forward) -> Option<Self> {
        let (IpAddr::V4(host), SocketAddr::V4(pod)) = (port.host, port.to) else { return None };
        let to = Some(host).filter(|host| !host.is_unspecified());
        Self::is_for(port).then_some(Self { port: port.port, to, by: Some(pod) })
    }

    /// What the kernel has to match.
    fn push(&self, bytes: &mut Vec<u8>) {
        let protocol = Protocol::Udp.number();
        let to = self.to.map(|ip| (DESTINATION_4, ip));
        push_tuple(bytes, ORIGINAL, to, protocol, (DESTINATION_PORT, self.port));
        if let Some(by) = self.by {
            push_tuple(bytes, REPLY, Some((SOURCE_4, *by.ip())), protocol, (SOURCE_PORT, by.port()));
        }
        let by_address = if self.to.is_some() { BY_DESTINATION } else { 0 };
        let reply = self.by.map(|_| BY_PROTOCOL | BY_SOURCE | BY_SOURCE_PORT);
        push_filter(bytes, BY_PROTOCOL | BY_DESTINATION_PORT | by_address, reply);
    }
}

/// Which of the values in the tuples of both directions count.
fn push_filter(bytes: &mut Vec<u8>, original: u32, reply: Option<u32>) {
    let filter = push_nested_header(bytes, FILTER);
    for (direction, by) in [(FILTER_ORIGINAL, Some(original)), (FILTER_REPLY, reply)] {
        let Some(by) = by else { continue };
        push_header(bytes, direction, 4);
        bytes.extend(by.to_ne_bytes());
    }
    finalize_nested_header(bytes, filter);
}

/// What one direction has to have: `ip` and `port` by the attributes of its source or its destination.
fn push_tuple(bytes: &mut Vec<u8>, kind: u16, ip: Option<(u16, Ipv4Addr)>, protocol: u8, port: (u16, u16)) {
    let tuple = push_nested_header(bytes, kind);
    if let Some((attribute, ip)) = ip {
        let nested = push_nested_header(bytes, TUPLE_IP);
        push_header(bytes, attribute, 4);
        bytes.extend(ip.octets());
        finalize_nested_header(bytes, nested);
    }
    let nested = push_nested_header(bytes, TUPLE_PROTOCOL);
    push_header(bytes, PROTOCOL_NUMBER, 1);
    bytes.extend([protocol, 0, 0, 0]);
    push_header(bytes, port.0, 2);
    bytes.extend(port.1.to_be_bytes());
    bytes.extend([0, 0]);
    finalize_nested_header(bytes, nested);
    finalize_nested_header(bytes, tuple);
}

/// One nfnetlink socket for connections.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

impl Conntrack {
    /// A socket in the current network namespace.
    pub fn open() -> Result<Self> {
        let socket = Socket::new(NETLINK_NETFILTER)
            .doing(Kind::Kernel, || "open a netlink socket for connections".to_owned())?;
        Ok(Self { socket, sequence: 1, received: Vec::with_capacity(RECEIVE) })
    }

    /// The connections to the host's port of `port`, whatever answers them. The kernel filters; one before
    /// 5.8 sends everything, which is filtered here.
    pub fn to_port(&mut self, port: &Forward) -> Result<Vec<Connection>> {
        let doing = || format!("list the connections to port {}/{}", port.port, port.protocol);
        let mut all = match self.list(port, true) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.list(port, false)
            }
            other => other,
        }
        .map_err(|e| explained(doing(), e))?;
        let at = |c: &Connection| c.protocol == port.protocol.number() && c.to.port() == port.port;
        all.retain(|c| at(c) && (port.host.is_unspecified() || c.to.ip() == port.host));
        Ok(all)
    }

    /// Forgets what matches any of the patterns. An error from a kernel before 6.12, which does nothing then: whoever
    /// asked has to go by the list.
    pub fn forget_all(&mut self, patterns: &[Pattern]) -> io::Result<()> {
        let mut chunks = patterns.chunks(TOGETHER);
        chunks.try_for_each(|some| {
            self.delete(some.iter().map(|p| (IPV4, |bytes: &mut Vec<u8>| p.push(bytes))))
        })
    }

    /// Forgets these connections. One that is gone is forgotten already.
    pub fn forget(&mut self, connections: &[Connection]) -> Result<()> {
        for some in connections.chunks(TOGETHER) {
            let each = some.iter().map(|c| (c.to.ip(), |bytes: &mut Vec<u8>| bytes.extend(&c.name)));
            self.delete(each).map_err(|e| explained(format!("forget {} connections", some.len()), e))?;
        }
        Ok(())
    }

    fn list(&mut self, port: &Forward, filtered: bool) -> io::Result<Vec<Connection>> {
        let mut bytes = Vec::with_capacity(128);
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let sequence = self.frame(&mut bytes, GET, flags, port.host, |bytes| {
            if filtered {
                push_tuple(bytes, ORIGINAL, None, port.protocol.number(), (DESTINATION_PORT, port.port));
                push_filter(bytes, BY_PROTOCOL | BY_DESTINATION_PORT, None);
            }
        });
        self.socket.send(&bytes, 0)?;
        let mut all = Vec::new();
        loop {
            self.receive()?;
            for message in messages(&self.received).filter(|m| m.sequence == sequence) {
                match message.kind {
                    libc::NLMSG_DONE => return message.refused().map(|()| all),
                    libc::NLMSG_ERROR => message.refused()?,
                    _ => all.extend(message.body.get(GENERAL..).and_then(Connection::read)),
                }
            }
        }
    }

    /// Each is an address of the family, and what is meant. The kernel carries out every one, and acknowledges the
    /// last.
    fn delete(
        &mut self,
        each: impl ExactSizeIterator<Item = (IpAddr, impl FnOnce(&mut Vec<u8>))>,
    ) -> io::Result<()> {
        let count = each.len();
        let mut bytes = Vec::with_capacity(count * 128);
        let mut last = 0;
        for (index, (like, fill)) in each.enumerate() {
            let ack = if index + 1 == count { libc::NLM_F_ACK } else { 0 };
            last = self.frame(&mut bytes, DELETE, libc::NLM_F_REQUEST | ack, like, fill);
        }
        self.socket.send(&bytes, 0)?;
        let mut result = Ok(());
        loop {
            self.receive()?;
            for message in messages(&self.received).filter(|m| m.kind == libc::NLMSG_ERROR) {
                match message.refused() {
                    Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                    other => result = result.and(other),
                }
                if message.sequence == last {
                    return result;
                }
            }
        }
    }

    fn frame(
        &mut self,
        bytes: &mut Vec<u8>,
        kind: u16,
        flags: i32,
        like: IpAddr,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> u32 {
        let start = bytes.len();
        let [low, high, ..] = flags.to_le_bytes();
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        bytes.extend([0; 4]);
        bytes.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
        bytes.extend(u16::from_le_bytes([low, high]).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        let family = if like.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        bytes.extend([u8::try_from(family).unwrap_or_default(), 0, 0, 0]);
        fill(bytes);
        let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        sequence
    }

    /// The kernel answers before `send` returns: an empty queue is an answer that never comes.
    fn receive(&mut self) -> io::Result<()> {
        self.received.clear();
        loop {
            match self.socket.recv(&mut self.received, libc::MSG_DONTWAIT) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }
}

impl Connection {
    fn read(attributes: &[u8]) -> Option<Self> {
        let original = tuple(find(attributes, ORIGINAL)?)?;
        let reply = tuple(find(attributes, REPLY)?)?;
        let mut name = Vec::with_capacity(96);
        for (kind, nested) in [(ORIGINAL, true), (ZONE, false), (ID, false)] {
            let Some(value) = find(attributes, kind) else { continue };
            push_header_type(&mut name, kind, u16::try_from(value.len()).ok()?, nested);
            name.extend(value);
            align(&mut name);
        }
        Some(Self { protocol: original.protocol, to: original.to, by: reply.from, name })
    }

    /// Whether the pod of `port` answers it.
    pub fn leads_to(&self, port: &Forward) -> bool {
        self.by == port.to
    }
}

/// One direction.
struct Tuple {
    protocol: u8,
    from: SocketAddr,
    to: SocketAddr,
}

fn tuple(attributes: &[u8]) -> Option<Tuple> {
    let (ip, protocol) = (find(attributes, TUPLE_IP)?, find(attributes, TUPLE_PROTOCOL)?);
    let address = |four, six| {
        let four = find(ip, four).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(IpAddr::from);
        four.or_else(|| find(ip, six).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(IpAddr::from))
    };
    let port = |kind| find(protocol, kind).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
    Some(Tuple {
        protocol: *find(protocol, PROTOCOL_NUMBER)?.first()?,
        from: SocketAddr::new(address(SOURCE_4, SOURCE_6)?, port(SOURCE_PORT)?),
        to: SocketAddr::new(address(DESTINATION_4, DESTINATION_6)?, port(DESTINATION_PORT)?),
    })
}

/// An attribute's value.
fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    IterableChunks::new(attributes).find(|(header, _)| header.r#type == kind).map(|(_, value)| value)
}

struct Message<'a> {
    kind: i32,
    sequence: u32,
    body: &'a [u8],
}

impl Message<'_> {
    /// The errno that an error message or the end of a dump begins with.
    fn refused(&self) -> io::Result<()> {
        let code = self.body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let word = |at| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        let length = usize::try_from(word(0)?).ok()?;
        let kind = bytes.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)?;
        let message = Message { kind: i32::from(kind), sequence: word(8)?, body: bytes.get(HEADER..length)? };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn explained(doing: String, error: io::Error) -> Box<Error> {
    let code = error.raw_os_error();
    let error = Error::caused(Kind::Kernel, doing, error);
    match code {
        Some(libc::EPERM | libc::EACCES) => error.hint("run as root or grant CAP_NET_ADMIN"),
        _ => error.hint("the kernel needs CONFIG_NF_CT_NETLINK (or its module loaded)"),
    }
}
