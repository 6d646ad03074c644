//! A blocking NETLINK_ROUTE socket that sends several requests in one system call.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use node::{Context, Error, Kind, Result};

/// Where the kernel writes why it refused (`NLMSGERR_ATTR_MSG` in linux/netlink.h).
const MESSAGE: u16 = 1;
/// Large enough for one skb of a dump on every kernel (32 KiB since 4.19).
const ROOM: usize = 64 * 1024;
/// Acknowledgements of more requests than some 250 overrun the socket's receive buffer, and are lost.
const TOGETHER: usize = 64;
/// The kernel answers in milliseconds, after an RCU barrier under load in seconds. Silence for longer is a
/// lost answer, which an error tells and waiting does not.
pub const PATIENCE: TimeVal = TimeVal::new(30, 0);
/// How often an interrupted dump is asked again before the caller hears of it.
const DUMP_TRIES: usize = 8;

/// One message and its flags beside REQUEST and ACK.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub message: RouteNetlinkMessage,
    /// NLM_F_CREATE and the like.
    pub flags: u16,
}

/// Why the kernel refused a request: the errno and its own words, where it has any.
#[derive(Debug)]
pub struct Refusal {
    errno: i32,
    words: Option<String>,
    io: io::Error,
}

impl Refusal {
    fn new(message: &ErrorMessage) -> Self {
        let errno = message.raw_code().abs();
        let words = message.header.get(NetlinkHeader::default().buffer_len_of()..).and_then(words_of);
        Self { errno, words, io: io::Error::from_raw_os_error(errno) }
    }

    /// The positive errno.
    pub fn errno(&self) -> i32 {
        self.errno
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words.as_deref().unwrap_or("the kernel refused"))
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.io)
    }
}

trait HeaderLength {
    fn buffer_len_of(&self) -> usize;
}

impl HeaderLength for NetlinkHeader {
    fn buffer_len_of(&self) -> usize {
        netlink_packet_core::Emitable::buffer_len(self)
    }
}

fn words_of(attributes: &[u8]) -> Option<String> {
    let found = NlasIterator::new(attributes).flatten().find(|nla| nla.kind() == MESSAGE)?;
    let text = String::from_utf8_lossy(found.value());
    Some(text.trim_end_matches('\0').to_owned())
}

/// A socket in the network namespace that its thread was in when it was opened.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RouteSocket {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Self> {
        let this = Self::bare(PATIENCE)?;
        let doing = || "open a netlink socket".to_owned();
        // Short acknowledgements, the kernel's own words in them, and filters that really filter.
        this.socket.set_cap_ack(true).doing(Kind::Kernel, doing)?;
        this.socket.set_ext_ack(true).doing(Kind::Kernel, doing)?;
        this.socket.set_netlink_get_strict_chk(true).doing(Kind::Kernel, doing)?;
        Ok(this)
    }

    /// A socket for one plain request, or for [`RouteSocket::listen`]; it waits for an answer as long as
    /// `patience`.
    pub fn bare(patience: TimeVal) -> Result<Self> {
        let doing = || "open a netlink socket".to_owned();
        let socket = Socket::new(NETLINK_ROUTE).doing(Kind::Kernel, doing)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).doing(Kind::Kernel, doing)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(ROOM) })
    }

    /// Sends `requests` together; the kernel carries out every one, in order, whatever became of the ones
    /// before. The answer holds one entry a request: `None` is done.
    pub fn batch(&mut self, requests: Vec<Request>) -> Result<Vec<Option<Refusal>>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        while requests.len() > 0 {
            answers.extend(self.together(requests.by_ref().take(TOGETHER))?);
        }
        Ok(answers)
    }

    /// One system call's worth of requests. The kernel reports every refusal unasked and in order, so the
    /// last request's acknowledgement says that the others were carried out.
    fn together(&mut self, requests: impl ExactSizeIterator<Item = Request>) -> Result<Vec<Option<Refusal>>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(1024);
        let mut answers: Vec<Option<Refusal>> = Vec::new();
        let count = requests.len();
        for (index, request) in requests.enumerate() {
            let ack = if index + 1 == count { NLM_F_ACK } else { 0 };
            self.append(&mut bytes, request.message, request.flags | ack);
            answers.push(None);
        }
        self.send(&bytes)?;
        loop {
            for message in self.receive()? {
                let sequence = message.header.sequence_number;
                let NetlinkPayload::Error(e) = message.payload else { continue };
                let slot =
                    usize::try_from(sequence.wrapping_sub(first)).ok().and_then(|i| answers.get_mut(i));
                if let Some(slot) = slot {
                    *slot = e.code.map(|_| Refusal::new(&e));
                    if sequence == self.sequence {
                        return Ok(answers);
                    }
                }
            }
        }
    }

    /// Sends one request and reports a refusal as the error of `doing`.
    pub fn one(&mut self, request: Request, doing: impl FnOnce() -> String) -> Result<()> {
        match self.batch(vec![request])?.pop().flatten() {
            Some(refusal) => Err(refused(doing(), refusal)),
            None => Ok(()),
        }
    }

    /// Asks for one object; `None` where the kernel says that there is none (ENODEV, ENOENT, ENXIO,
    /// ENETUNREACH, EHOSTUNREACH).
    pub fn get(
        &mut self,
        message: RouteNetlinkMessage,
        doing: impl FnOnce() -> String,
    ) -> Result<Option<RouteNetlinkMessage>> {
        const NONE: [i32; 5] =
            [libc::ENODEV, libc::ENOENT, libc::ENXIO, libc::ENETUNREACH, libc::EHOSTUNREACH];
        self.ask(message, 0, &NONE, doing)
    }

    /// Asks for one queueing discipline; `None` where there is none, or one of the kernel's own that it does
    /// not show: then there is an acknowledgement and no answer. Older kernels give the answer to listeners
    /// alone, unless it is to be echoed (`qdisc_notify` in net/sched/sch_api.c).
    pub fn get_qdisc(
        &mut self,
        message: RouteNetlinkMessage,
        doing: impl FnOnce() -> String,
    ) -> Result<Option<RouteNetlinkMessage>> {
        self.ask(message, NLM_F_ECHO | NLM_F_ACK, &[libc::ENODEV, libc::ENOENT, libc::EINVAL], doing)
    }

    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        none: &[i32],
        doing: impl FnOnce() -> String,
    ) -> Result<Option<RouteNetlinkMessage>> {
        let mut bytes = Vec::with_capacity(128);
        self.append(&mut bytes, message, flags);
        self.send(&bytes)?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(found) => return Ok(Some(found)),
                    NetlinkPayload::Error(e) => {
                        let refusal = Refusal::new(&e);
                        return if e.code.is_none() || none.contains(&refusal.errno) {
                            Ok(None)
                        } else {
                            Err(refused(doing(), refusal))
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// Asks for every object that the kernel's filter lets through; a dump that the kernel says was
    /// interrupted by a change is asked again.
    pub fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        doing: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_TRIES {
            if let Some(all) = self.dump_once(message, &doing)? {
                return Ok(all);
            }
        }
        Err(Error::new(Kind::Kernel, doing())
            .hint("the kernel's table changed faster than it could be read; try again"))
    }

    fn dump_once(
        &mut self,
        message: &RouteNetlinkMessage,
        doing: impl Fn() -> String,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut bytes = Vec::with_capacity(128);
        self.append(&mut bytes, message.clone(), NLM_F_DUMP);
        self.send(&bytes)?;
        let (mut all, mut whole) = (Vec::new(), true);
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(found) => all.push(found),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(all)),
                    NetlinkPayload::Error(e) => return Err(refused(doing(), Refusal::new(&e))),
                    _ => {}
                }
            }
        }
    }

    /// Joins a multicast group of the kernel (`RTNLGRP_*`), for [`RouteSocket::heard`].
    pub fn listen(&mut self, group: u32) -> Result<()> {
        let doing = || "listen to the kernel's link events".to_owned();
        self.socket.bind(&SocketAddr::new(0, 0)).doing(Kind::Kernel, doing)?;
        self.socket.add_membership(group).doing(Kind::Kernel, doing)
    }

    /// What arrived on the groups joined; waits for the first message. `None` where none came, or more
    /// than the queue holds.
    pub fn heard(&mut self) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        const SILENT: [i32; 2] = [libc::EAGAIN, libc::ENOBUFS];
        let received = match self.receive() {
            Err(e) if e.errno().is_some_and(|errno| SILENT.contains(&errno)) => return Ok(None),
            other => other?,
        };
        let messages = received.into_iter().filter_map(|m| match m.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        });
        Ok(Some(messages.collect()))
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        // Messages of a batch start on four bytes (NLMSG_ALIGN); attributes keep them so.
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(place) = bytes.get_mut(start..) {
            message.serialize(place);
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket
            .send(bytes, 0)
            .map(drop)
            .doing(Kind::Kernel, || "send to the kernel over netlink".to_owned())
    }

    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let doing = || "read the kernel's netlink answer".to_owned();
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).doing(Kind::Kernel, doing),
            }
        }
        let mut messages = Vec::new();
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).doing(Kind::Kernel, doing)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
            messages.push(message);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(messages)
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The error of an attempt that the kernel refused, with what to do for the errnos that an operator meets.
pub fn refused(doing: String, refusal: Refusal) -> Box<Error> {
    let hint = match refusal.errno {
        libc::EPERM => Some("run as root or grant CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        libc::EXFULL => {
            Some("a bridge takes 1023 ports: use `\"mode\": \"routed\"`, which has no such limit")
        }
        libc::EOPNOTSUPP => Some("this kernel was built without it: see the kernel options in cni/README.md"),
        _ => None,
    };
    let kind = if refusal.errno == libc::EEXIST { Kind::Conflict } else { Kind::Kernel };
    let error = Error::caused(kind, doing, refusal);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
