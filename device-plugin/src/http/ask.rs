//! Asks a daemon over its socket, without a runtime: for commands.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use node::{Context, Error, Kind, Result};

/// The daemon answers at once, or hangs; it takes two seconds to say that its loop does.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most that is read of an answer.
const LARGEST: u64 = 1 << 20;

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
    let doing = || format!("ask the daemon at `{}`", socket.display());
    let mut stream = UnixStream::connect(socket).doing(Kind::Unavailable, doing)?;
    stream.set_read_timeout(Some(PATIENCE)).doing(Kind::Io, doing)?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).doing(Kind::Io, doing)?;
    let mut answer = String::new();
    stream.take(LARGEST).read_to_string(&mut answer).doing(Kind::Io, doing)?;
    let said = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().replace('\n', "; ");
    match answer.split(' ').nth(1) {
        Some("200") => Ok(Answer::Ready),
        Some("404") => Ok(Answer::Unknown(said)),
        Some("503") => Ok(Answer::Waiting(said)),
        _ => Err(Error::caused(Kind::Decode, doing(), "it does not answer as a daemon does")),
    }
}
