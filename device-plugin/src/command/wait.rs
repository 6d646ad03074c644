//! `wait-registered`: for what must not start before its device can be had.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result};

use crate::config::{Config, ResourceName, Span};

/// Between two questions.
const NAP: Duration = Duration::from_millis(20);

/// The daemon answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that is read of an answer.
const LARGEST: u64 = 1 << 20;

/// What the daemon said.
enum Answer {
    Ready,
    Waiting(String),
    Unknown(String),
}

/// Exits with 0 once the kubelet listens to all of these resources (all that are configured, where none is named),
/// and with 1 after `timeout`.
pub(super) fn wait(config: &Config, resources: &[ResourceName], timeout: Span) -> Result<ExitCode> {
    let names: Vec<&str> = if resources.is_empty() {
        config.resources.iter().map(|resource| resource.name.as_str()).collect()
    } else {
        resources.iter().map(ResourceName::as_str).collect()
    };
    let query: Vec<String> = names.iter().map(|name| format!("resource={name}")).collect();
    let target = format!("/readyz?{}", query.join("&"));
    let deadline = Instant::now() + timeout.duration();
    let doing = || format!("wait for `{}`", names.join("`, `"));
    loop {
        let why = match ask(&config.http.socket, &target) {
            Ok(Answer::Ready) => return Ok(ExitCode::SUCCESS),
            Ok(Answer::Waiting(why) | Answer::Unknown(why)) => Error::caused(Kind::TryAgain, doing(), why)
                .hint("look at the daemon's log, and run `nodeplug-device-plugin doctor`"),
            Err(error) => Error::caused(Kind::Unavailable, doing(), error)
                .hint("start the daemon: `nodeplug-device-plugin run`"),
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        thread::sleep(NAP);
    }
}

fn ask(socket: &Path, target: &str) -> Result<Answer> {
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
