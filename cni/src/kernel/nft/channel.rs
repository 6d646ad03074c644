//! One nfnetlink socket: transactions, questions and dumps, and the kernel's own words on a refusal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_bindings::nftables::GenAttrs;
use netlink_bindings::utils::find_attr;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use node::{Context, Error, Kind, Result};

use super::operation::{Operation, Question};

const HEADER: usize = 16;
/// The kernel sends dumps in pieces of at most 32 KiB (`netlink_recvmsg` caps what it remembers).
const RECEIVE: usize = 32 << 10;
/// Below the default of `net.core.wmem_default`, with room for the kernel's own accounting.
const SEND_PLAIN: usize = 64 << 10;
/// Other transactions interrupt a dump; so many in a row mean that something is badly wrong.
const DUMPS: u32 = 50;
/// Each answer takes a buffer of the kernel's own; those of some hundred questions overrun the socket's queue
/// before the first is read.
const TOGETHER: usize = 32;
const NLMSGERR_ATTR_MSG: u16 = 1;
const BATCH_GENERATION: u16 = word(libc::NFNL_BATCH_GENID);

/// The socket and its sequence numbers.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
    sent: Vec<u8>,
    received: Vec<u8>,
}

/// A transaction that the kernel did not take: which operation it stumbled over, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The operation's place in the list; `None` where the transaction as a whole was refused.
    pub at: Option<usize>,
    pub errno: i32,
    pub error: Box<Error>,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Commit,
    /// The kernel checks everything and takes it back, as for `nft --check`: such a batch has no end.
    Check,
    /// Only if nothing changed since this generation of the ruleset; otherwise ERESTART.
    CommitAt(u32),
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// What follows nlmsghdr.
    body: &'a [u8],
}

impl Channel {
    pub fn open() -> Result<Self> {
        let doing = || "open a netlink socket for nf_tables".to_owned();
        let socket =
            Socket::new(NETLINK_NETFILTER).doing(Kind::Kernel, doing).map_err(|e| match e.errno() {
                Some(libc::EPROTONOSUPPORT) => e.hint("the kernel needs CONFIG_NETFILTER_NETLINK"),
                _ => e,
            })?;
        socket.set_ext_ack(true).doing(Kind::Kernel, doing)?;
        socket.set_cap_ack(true).doing(Kind::Kernel, doing)?;
        let received = Vec::with_capacity(RECEIVE);
        Ok(Self { socket, sequence: 1, sent: Vec::with_capacity(4096), received })
    }

    /// Hands all operations to the kernel as one transaction: all of them or none.
    pub fn commit(&mut self, operations: &[Operation], end: End) -> Result<(), Refusal> {
        let Some(last) = operations.len().checked_sub(1) else { return Ok(()) };
        self.sent.clear();
        let begin = self.sequence;
        self.frame(libc::NFNL_MSG_BATCH_BEGIN, libc::NLM_F_REQUEST, 0, true, |buffer| {
            if let End::CommitAt(generation) = end {
                netlink_bindings::utils::push_header(buffer, BATCH_GENERATION, 4);
                buffer.extend(generation.to_be_bytes());
            }
        });
        for (index, operation) in operations.iter().enumerate() {
            let (kind, mut flags) = operation.message();
            // Refusals are always told; one acknowledgement, of the last, stands for the rest.
            if index == last {
                flags |= libc::NLM_F_ACK;
            }
            let family = operation.family() as u8;
            self.frame(subsystem(kind), libc::NLM_F_REQUEST | flags, family, false, |b| operation.encode(b));
        }
        let until = self.sequence.wrapping_sub(1);
        if end != End::Check {
            self.frame(libc::NFNL_MSG_BATCH_END, libc::NLM_F_REQUEST, 0, true, |_| {});
        }
        let answer = self.send().and_then(|()| self.verdict(begin, until));
        let (at, source) = match answer {
            Ok(None) => return Ok(()),
            Ok(Some((sequence, source))) => (sequence.wrapping_sub(begin).checked_sub(1), source),
            Err(error) => (None, Refused { says: None, errno: error }),
        };
        let at = at.and_then(|n| usize::try_from(n).ok());
        let operation = at.and_then(|n| operations.get(n));
        Err(refusal(at, operation, operations, source))
    }

    /// Asks, and gives the answers in order: `None` where there is no such thing.
    pub fn ask<T>(
        &mut self,
        questions: &[Question],
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<Option<T>>> {
        let mut answers = Vec::with_capacity(questions.len());
        for some in questions.chunks(TOGETHER) {
            answers.extend(self.ask_together(some, &read)?);
        }
        Ok(answers)
    }

    /// Asks all at once.
    fn ask_together<T>(
        &mut self,
        questions: &[Question],
        read: &impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<Option<T>>> {
        let mut answers: Vec<Option<T>> = questions.iter().map(|_| None).collect();
        if questions.is_empty() {
            return Ok(answers);
        }
        let first = self.sequence;
        self.sent.clear();
        for question in questions {
            let kind = subsystem(question.message());
            self.frame(kind, libc::NLM_F_REQUEST, question.family(), false, |b| question.encode(b));
        }
        let doing = |at: usize| questions.get(at).map_or_else(String::new, ToString::to_string);
        self.send().map_err(|e| explain(doing(0), Refused { says: None, errno: e }))?;
        let mut open = questions.len();
        while open > 0 {
            self.receive().map_err(|e| explain(doing(0), Refused { says: None, errno: e }))?;
            for message in messages(&self.received) {
                let Ok(at) = usize::try_from(message.sequence.wrapping_sub(first)) else { continue };
                let Some(answer) = answers.get_mut(at) else { continue };
                open = open.saturating_sub(1);
                match message.refused() {
                    None => *answer = message.body.get(4..).and_then(read),
                    Some(refused) if is_absence(&refused) => {}
                    Some(refused) => return Err(explain(doing(at), refused)),
                }
            }
        }
        Ok(answers)
    }

    /// Lists: `read` appends what a message holds. Nothing where the table or the set is not there.
    pub fn list<T>(&mut self, question: &Question, read: impl Fn(&[u8], &mut Vec<T>)) -> Result<Vec<T>> {
        for _ in 0..DUMPS {
            if let Some(all) = self.list_once(question, &read)? {
                return Ok(all);
            }
        }
        Err(Error::caused(
            Kind::Kernel,
            question.to_string(),
            io::Error::other("other changes to nf_tables kept interrupting"),
        ))
    }

    /// The ruleset's generation, which every transaction of the namespace advances.
    pub fn generation(&mut self) -> Result<u32> {
        let read = |attributes: &[u8]| GenAttrs::new(attributes).get_id().ok();
        let answer = self.ask(&[Question::Generation], read)?.pop().flatten();
        answer.ok_or_else(|| Error::new(Kind::Kernel, Question::Generation.to_string()))
    }

    /// One try; `None` where a change came in between and what was read is not one moment's state.
    fn list_once<T>(
        &mut self,
        question: &Question,
        read: &impl Fn(&[u8], &mut Vec<T>),
    ) -> Result<Option<Vec<T>>> {
        let fail = |e: io::Error| explain(question.to_string(), Refused { says: None, errno: e });
        let (mut all, mut whole, sequence) = (Vec::new(), true, self.sequence);
        self.sent.clear();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        self.frame(subsystem(question.message()), flags, question.family(), false, |b| question.encode(b));
        self.send().map_err(fail)?;
        loop {
            whole &= self.receive().map_err(fail)?;
            for message in messages(&self.received).filter(|m| m.sequence == sequence) {
                whole &= message.flags & word(libc::NLM_F_DUMP_INTR) == 0;
                if let Some(refused) = message.refused() {
                    return match refused.code() {
                        Some(libc::ENOENT) => Ok(Some(Vec::new())),
                        Some(code) if is_no_nf_tables(code) => Ok(Some(Vec::new())),
                        Some(libc::EINTR | libc::EAGAIN) => Ok(None),
                        _ => Err(explain(question.to_string(), refused)),
                    };
                }
                if i32::from(message.kind) == libc::NLMSG_DONE {
                    return Ok(whole.then_some(all));
                }
                read(message.body.get(4..).unwrap_or_default(), &mut all);
            }
        }
    }

    /// Appends a message; a batch's own bounds name the subsystem in their resource id.
    fn frame(&mut self, kind: i32, flags: i32, family: u8, bound: bool, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.sent.len();
        let resource = if bound { word(libc::NFNL_SUBSYS_NFTABLES) } else { 0 };
        self.sent.extend([0; 4]);
        self.sent.extend(word(kind).to_ne_bytes());
        self.sent.extend(word(flags).to_ne_bytes());
        self.sent.extend(self.sequence.to_ne_bytes());
        self.sent.extend([0; 4]);
        self.sent.extend([family, 0]);
        self.sent.extend(resource.to_be_bytes());
        fill(&mut self.sent);
        netlink_bindings::utils::align(&mut self.sent);
        let length = u32::try_from(self.sent.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = self.sent.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn send(&self) -> io::Result<()> {
        if self.sent.len() > SEND_PLAIN {
            // A long list of kept networks: the socket may hold more than an ordinary user's.
            setsockopt(&self.socket, SndBufForce, &(self.sent.len() * 4))?;
        }
        self.socket.send(&self.sent, 0).map(|_| ())
    }

    /// Fills the buffer with what the kernel has queued; false where a piece did not fit. The kernel
    /// answers before `send` returns, and makes a dump's next piece while this one is read: an empty
    /// queue is an answer that never comes, and waiting for it would hang the runtime's call.
    fn receive(&mut self) -> io::Result<bool> {
        self.received.clear();
        let room = self.received.capacity();
        loop {
            match self.socket.recv(&mut self.received, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(size) => {
                    self.received.reserve(size.saturating_sub(self.received.len()));
                    return Ok(size <= room);
                }
            }
        }
    }

    /// Reads until the operation `until` is answered, and gives the first refusal.
    fn verdict(&mut self, begin: u32, until: u32) -> io::Result<Option<(u32, Refused)>> {
        let span = until.wrapping_sub(begin);
        let mut first: Option<(u32, Refused)> = None;
        loop {
            match self.receive() {
                Ok(_) => {}
                // The kernel had said no already, and says no more.
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && first.is_some() => return Ok(first),
                Err(e) => return Err(e),
            }
            for message in messages(&self.received) {
                // Earlier transactions may have left answers that nobody read.
                if message.sequence.wrapping_sub(begin) > span {
                    continue;
                }
                if let Some(refused) = message.refused() {
                    first.get_or_insert((message.sequence, refused));
                }
                if message.sequence == until || message.sequence == begin {
                    return Ok(first);
                }
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Why the kernel refused: its errno, and its own words where it has any.
#[derive(Debug)]
struct Refused {
    says: Option<String>,
    errno: io::Error,
}

impl Refused {
    fn code(&self) -> Option<i32> {
        self.errno.raw_os_error()
    }
}

impl Message<'_> {
    /// The refusal in an error message or in a dump's end; an acknowledgement is none.
    fn refused(&self) -> Option<Refused> {
        let kind = i32::from(self.kind);
        if kind != libc::NLMSG_ERROR && kind != libc::NLMSG_DONE {
            return None;
        }
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        if code >= 0 {
            return None;
        }
        // An error repeats the request's header (and no more: NETLINK_CAP_ACK) before its attributes.
        let skip = if kind == libc::NLMSG_ERROR { 4 + HEADER } else { 4 };
        let has_words = self.flags & word(libc::NLM_F_ACK_TLVS) != 0;
        let words = self.body.get(skip..).filter(|_| has_words);
        let says = words.and_then(|w| find_attr(w, NLMSGERR_ATTR_MSG));
        let says = says.map(|s| String::from_utf8_lossy(s).trim_end_matches('\0').to_owned());
        Some(Refused { says, errno: io::Error::from_raw_os_error(-code) })
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(field(bytes, 0)?)).ok()?;
        let body = bytes.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes(field(bytes, 4)?),
            flags: u16::from_ne_bytes(field(bytes, 6)?),
            sequence: u32::from_ne_bytes(field(bytes, 8)?),
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// A thing that is not there; a key that is too wide or too narrow for a set is not in it either.
fn is_absence(refused: &Refused) -> bool {
    let code = refused.code();
    code.is_some_and(|code| code == libc::ENOENT || is_no_nf_tables(code))
}

/// What a kernel without nf_tables answers: EINVAL for a subsystem of nfnetlink that it lacks.
fn is_no_nf_tables(code: i32) -> bool {
    const NONE: [i32; 5] =
        [libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::ENOPROTOOPT];
    NONE.contains(&code)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// A number of the kernel's headers, which libc types as an int, as the u16 that messages carry.
const fn word(number: i32) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn subsystem(message: i32) -> i32 {
    libc::NFNL_SUBSYS_NFTABLES << 8 | message
}

fn refusal(at: Option<usize>, operation: Option<&Operation>, all: &[Operation], refused: Refused) -> Refusal {
    let errno = refused.code().unwrap_or_default();
    let lacks = match (operation, errno) {
        (Some(Operation::AddChain(_, chain)), libc::ENOENT)
            if chain.hook.as_ref().is_some_and(|h| h.kind == "nat") =>
        {
            Some("CONFIG_NFT_NAT")
        }
        (Some(Operation::AddRule(..)), libc::ENOENT) => Some("CONFIG_NFT_MASQ and CONFIG_NFT_FIB_INET"),
        _ => None,
    };
    let doing = match (operation, all) {
        (Some(operation), _) | (None, [operation]) => operation.to_string(),
        (None, [first, ..]) => format!("{first}, and {} more changes of nf_tables", all.len() - 1),
        (None, []) => "change nf_tables".to_owned(),
    };
    let mut error = explain(doing, refused);
    if let Some(option) = lacks {
        error = error.hint(format!("the kernel needs {option} (or its module loaded)"));
    }
    Refusal { at, errno, error }
}

/// The error with the kernel's words, and what to do about the errnos that mean one thing.
fn explain(doing: String, refused: Refused) -> Box<Error> {
    let code = refused.code();
    let error = match refused.says {
        Some(says) => {
            let inner = Error::caused(Kind::Kernel, format!("the kernel says `{says}`"), refused.errno);
            Error::caused(Kind::Kernel, doing, inner)
        }
        None => Error::caused(Kind::Kernel, doing, refused.errno),
    };
    match code {
        Some(libc::EPERM | libc::EACCES) => error.hint("run as root or grant CAP_NET_ADMIN"),
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => error
            .hint(
                "the kernel needs CONFIG_NF_TABLES with CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT and \
                 CONFIG_NFT_MASQ (CONFIG_NF_TABLES_BRIDGE for the MAC check), or their modules loaded",
            ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_kernels_words_and_a_cut_message_none() {
        let mut body = Vec::from((-libc::EEXIST).to_ne_bytes());
        body.extend([0; HEADER]);
        body.extend([10, 0, 1, 0]);
        body.extend(b"taken\0\0\0");
        let message = |flags: i32, body| Message {
            kind: word(libc::NLMSG_ERROR),
            flags: word(flags),
            sequence: 1,
            body,
        };
        let refused = message(libc::NLM_F_ACK_TLVS, &body).refused().unwrap();
        assert_eq!((refused.says.as_deref(), refused.code()), (Some("taken"), Some(libc::EEXIST)));
        let error = explain("add it".into(), refused);
        assert_eq!(error.chain(), "add it: the kernel says `taken`: File exists (os error 17)");
        assert_eq!(error.errno(), Some(libc::EEXIST));
        assert!(message(0, &body).refused().unwrap().says.is_none());
        assert!(message(0, &[0; 20]).refused().is_none());
        assert!(message(0, &[]).refused().is_none());
    }

    #[test]
    fn messages_end_where_the_bytes_do() {
        for cut in 0..40 {
            let mut bytes = vec![20u8, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
            bytes.extend(bytes.clone());
            bytes.truncate(cut);
            assert_eq!(messages(&bytes).count(), cut / 20);
        }
    }
}
