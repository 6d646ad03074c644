//! `wait-registered`: for what must not start before its device can be had.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use node::{Error, Kind, Result};

use crate::config::{Config, ResourceName, Span};
use crate::http::ask::{Answer, ask};

/// Between two questions.
const NAP: Duration = Duration::from_millis(20);

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
