//! Asks a daemon over its socket, without a runtime: for commands.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// The daemon answers at once, or hangs; it takes two seconds to say that its loop does. For the whole exchange.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most that is read of an answer.
const LARGEST: usize = 1 << 20;

/// What the daemon said.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Ready,
    /// Not now, and why.
    Waiting(String),
    /// It does not know what was asked for.
    Unknown(String),
}

/// Asks for `/healthz` or `/readyz`, with a query where one is wanted.
pub fn ask(socket: &Path, target: &str) -> Result<Answer> {
    ask_within(socket, target, PATIENCE)
}

fn ask_within(socket: &Path, target: &str, patience: Duration) -> Result<Answer> {
    let doing = || format!("ask the daemon at `{}`", socket.display());
    let deadline = Instant::now() + patience;
    let mut stream = called(socket).doing(Kind::Unavailable, doing)?;
    stream.set_write_timeout(Some(patience)).doing(Kind::Io, doing)?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).doing(Kind::Io, doing)?;
    let answer = heard(&mut stream, deadline).doing(Kind::Io, doing)?;
    let answer = String::from_utf8_lossy(&answer);
    let said = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().replace('\n', "; ");
    match answer.split(' ').nth(1) {
        Some("200") => Ok(Answer::Ready),
        Some("404") => Ok(Answer::Unknown(said)),
        Some("503") => Ok(Answer::Waiting(said)),
        _ => Err(Error::caused(Kind::Decode, doing(), "it does not answer as a daemon does")),
    }
}

/// A connection. Where the daemon takes no calls and its queue is full, connect(2) would wait for it.
fn called(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let caller = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&caller, &SocketAddrUnix::new(socket)?) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Err(io::Error::new(ErrorKind::TimedOut, "it hangs: it takes no calls")),
        Err(errno) => return Err(errno.into()),
    }
    let stream = UnixStream::from(caller);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// What comes until the daemon hangs up. One that says a byte now and then is heard for no longer.
fn heard(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let late = || io::Error::new(ErrorKind::TimedOut, "it hangs: its answer does not end");
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while answer.len() < LARGEST {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(late()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(ErrorKind::InvalidData, "its answer is too long"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::thread;

    use super::*;

    struct Socket(PathBuf);

    impl Socket {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("nodeplug-ask-{name}-{}.sock", std::process::id())))
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_daemon_that_takes_no_calls_keeps_nobody_waiting() {
        let socket = Socket::new("full");
        let listener = UnixListener::bind(&socket.0).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&socket.0).unwrap();
        let error = ask(&socket.0, "/healthz").unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.chain().contains("it takes no calls"), "{}", error.chain());
    }

    #[test]
    fn a_daemon_that_never_ends_its_answer_is_heard_for_so_long_and_no_longer() {
        let socket = Socket::new("trickle");
        let listener = UnixListener::bind(&socket.0).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            // For ten seconds at most, after which the answer would be a good one.
            for _ in 0..200 {
                thread::sleep(Duration::from_millis(50));
                if stream.write_all(b"x").is_err() {
                    break;
                }
            }
        });
        let error = ask_within(&socket.0, "/healthz", Duration::from_millis(300)).unwrap_err();
        server.join().unwrap();
        assert!(error.chain().contains("its answer does not end"), "{}", error.chain());
    }
}
