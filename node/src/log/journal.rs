//! systemd's journal, in its own protocol: a datagram of fields
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). Without a journal, or with one that is behind, the line is lost.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;

use super::Line;

pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Larger datagrams would have to go by a memory file. No line is near it.
const MOST: usize = 64 << 10;

/// What syslog(3) calls an error, a warning, and a message of no urgency.
const PRIORITIES: [&str; 3] = ["3", "4", "6"];

/// Hands the line over.
pub(super) fn send(program: &str, line: &Line) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let whole = datagram(program, line, true);
    let sent =
        if whole.len() > MOST { Err(ErrorKind::InvalidInput.into()) } else { socket.send_to(&whole, SOCKET) };
    match sent {
        // A system of small socket buffers takes what matters.
        Err(e) if e.kind() == ErrorKind::InvalidInput || e.raw_os_error() == Some(libc::EMSGSIZE) => {
            socket.send_to(&datagram(program, line, false), SOCKET).map(drop)
        }
        other => other.map(drop),
    }
}

/// The message for people, our own fields by their names, and the whole line, from which `trace` reads.
fn datagram(program: &str, line: &Line, whole: bool) -> Vec<u8> {
    let [error, warning, usual] = PRIORITIES;
    let priority = if line.has("error") {
        error
    } else if line.has("notes") {
        warning
    } else {
        usual
    };
    let mut out = Vec::with_capacity(2048);
    field(&mut out, "MESSAGE", &line.message());
    field(&mut out, "PRIORITY", priority);
    field(&mut out, "SYSLOG_IDENTIFIER", program);
    for (key, value) in line.scalars().filter(|(key, _)| *key != "error" && *key != "hint") {
        field(&mut out, &name(key), &value);
    }
    if whole {
        field(&mut out, "NODEPLUG_LINE", &line.text());
    }
    out
}

/// `containerID` is `NODEPLUG_CONTAINER_ID` there.
fn name(key: &str) -> String {
    let mut name = String::from("NODEPLUG_");
    let mut small = false;
    for c in key.chars() {
        if small && c.is_ascii_uppercase() {
            name.push('_');
        }
        small = c.is_ascii_lowercase();
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// `KEY=VALUE`, or, where the value has more than one line, its length before it.
fn field(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_many_lines_has_its_length_before_it() {
        let mut out = Vec::new();
        field(&mut out, "A", "b=c");
        field(&mut out, "D", "e\nf");
        assert_eq!(out, b"A=b=c\nD\n\x03\0\0\0\0\0\0\0e\nf\n");
    }

    #[test]
    fn names_are_the_journals() {
        for (key, expect) in [
            ("pod", "NODEPLUG_POD"),
            ("containerID", "NODEPLUG_CONTAINER_ID"),
            ("podUID", "NODEPLUG_POD_UID"),
            ("traceID", "NODEPLUG_TRACE_ID"),
            ("errorKind", "NODEPLUG_ERROR_KIND"),
        ] {
            assert_eq!(name(key), expect);
        }
    }

    #[test]
    fn the_whole_line_is_in_it_where_there_is_room() {
        let mut line = Line::new("ADD");
        line.text_of("pod", "a/b\nPRIORITY=0", 100);
        let text = |whole| String::from_utf8_lossy(&datagram("np", &line, whole)).into_owned();
        assert!(text(true).contains("NODEPLUG_LINE={\"time\":"), "{}", text(true));
        assert!(text(true).contains("PRIORITY=6\nSYSLOG_IDENTIFIER=np\n"));
        assert!(text(true).contains("NODEPLUG_POD=a/b PRIORITY=0\n"), "no field of a pod's author's own");
        assert!(!text(false).contains("NODEPLUG_LINE"));
    }
}
