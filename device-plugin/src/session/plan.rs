//! What a session does next, from what it saw. Pure.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::PATIENCE;
use crate::service::Stream;

/// Which socket it is: a kubelet that starts makes a new one under the old name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketId {
    device: u64,
    inode: u64,
    made: (i64, i64),
}

impl SocketId {
    /// None where nothing is there. An inode may be used again at once; the time at which it was made is another one.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let status = path.symlink_metadata().ok()?;
        Some(Self { device: status.dev(), inode: status.ino(), made: (status.mtime(), status.mtime_nsec()) })
    }
}

/// What there is to go by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Whether the socket at our path is ours and served; none where nothing is.
    pub(super) own: Option<bool>,
    /// The kubelet's socket.
    pub(super) kubelet: Option<SocketId>,
    /// With whom we are registered, and how long ago it answered.
    pub(super) registered: Option<(SocketId, Duration)>,
    pub(super) stream: Stream,
    /// The kubelet comes by itself.
    pub(super) watcher: bool,
    /// How long the next try has to wait.
    pub(super) pause: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing, until something happens or this time is over.
    Wait(Option<Duration>),
    /// Open the socket, and close what was open.
    Serve,
    /// Register with this kubelet.
    Register(SocketId),
}

pub(super) fn plan(seen: &Seen) -> Action {
    let try_to = |action| if seen.pause.is_zero() { action } else { Action::Wait(Some(seen.pause)) };
    match seen.own {
        None => return try_to(Action::Serve),
        // A kubelet that starts removes it, and comes for the new one within milliseconds.
        Some(false) => return Action::Serve,
        Some(true) => {}
    }
    if seen.watcher {
        // The kubelet asks once for each socket: a stream that ended comes back with a new one.
        return if seen.stream == Stream::Ended { try_to(Action::Serve) } else { Action::Wait(None) };
    }
    let Some(kubelet) = seen.kubelet else { return Action::Wait(None) };
    match (seen.registered, seen.stream) {
        (Some((with, _)), _) if with != kubelet => Action::Register(kubelet),
        (Some(_), Stream::Open) => Action::Wait(None),
        (Some((_, ago)), Stream::Never) if ago < PATIENCE => Action::Wait(Some(PATIENCE.saturating_sub(ago))),
        _ => try_to(Action::Register(kubelet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: SocketId = SocketId { device: 1, inode: 1, made: (1, 1) };
    const NEW: SocketId = SocketId { device: 1, inode: 1, made: (1, 2) };

    #[test]
    fn what_is_next() {
        let ms = Duration::from_millis;
        let ready = Seen {
            own: Some(true),
            kubelet: Some(OLD),
            registered: Some((OLD, ms(10))),
            stream: Stream::Open,
            watcher: false,
            pause: Duration::ZERO,
        };
        let (wait, paused) = (Action::Wait(None), Action::Wait(Some(ms(7))));
        for (name, seen, expect) in [
            ("all is well", ready, wait),
            ("nothing is served", Seen { own: None, ..ready }, Action::Serve),
            ("our socket is gone", Seen { own: Some(false), ..ready }, Action::Serve),
            (
                "a kubelet that starts removed it",
                Seen { own: Some(false), pause: ms(7), ..ready },
                Action::Serve,
            ),
            ("it could not be served", Seen { own: None, pause: ms(7), ..ready }, paused),
            ("no kubelet yet", Seen { kubelet: None, registered: None, ..ready }, wait),
            ("a kubelet", Seen { registered: None, ..ready }, Action::Register(OLD)),
            ("it said no", Seen { registered: None, pause: ms(7), ..ready }, paused),
            (
                "a new kubelet waits for nothing",
                Seen { kubelet: Some(NEW), pause: ms(7), ..ready },
                Action::Register(NEW),
            ),
            ("the stream ended", Seen { stream: Stream::Ended, ..ready }, Action::Register(OLD)),
            ("it ended just now", Seen { stream: Stream::Ended, pause: ms(7), ..ready }, paused),
            ("it will come", Seen { stream: Stream::Never, ..ready }, Action::Wait(Some(ms(4990)))),
            (
                "it does not come",
                Seen { stream: Stream::Never, registered: Some((OLD, ms(5000))), ..ready },
                Action::Register(OLD),
            ),
            (
                "the watcher comes by itself",
                Seen { watcher: true, stream: Stream::Never, kubelet: None, ..ready },
                wait,
            ),
            (
                "and once for each socket",
                Seen { watcher: true, stream: Stream::Ended, ..ready },
                Action::Serve,
            ),
        ] {
            assert_eq!(plan(&seen), expect, "{name}");
        }
    }
}
