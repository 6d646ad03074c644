//! Whether somebody listens at a socket. A call that nobody takes must not keep the doctor waiting.

use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialled {
    /// Somebody listens.
    Answers,
    /// There is no such socket.
    Missing,
    /// There is a socket, and nobody behind it.
    Stale,
    /// Somebody listens, and takes no calls.
    Busy,
    /// The kernel says no.
    Refused(Errno),
}

/// Connects, and hangs up at once.
pub(super) fn dial(path: &Path) -> Dialled {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connected = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    match connected {
        Ok(()) => Dialled::Answers,
        Err(Errno::NOENT | Errno::NOTDIR) => Dialled::Missing,
        Err(Errno::CONNREFUSED) => Dialled::Stale,
        Err(Errno::AGAIN) => Dialled::Busy,
        Err(errno) => Dialled::Refused(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::process::tests::Folder;
    use super::*;

    #[test]
    fn a_socket_answers_is_stale_or_is_not_there() {
        let folder = Folder::new("dial");
        let path = folder.path("x.sock");
        assert_eq!(dial(&path), Dialled::Missing);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(dial(&path), Dialled::Answers);
        drop(listener);
        assert_eq!(dial(&path), Dialled::Stale);
    }
}
