//! Staying after an install, as a container does that nobody calls: what was put somewhere is put back when somebody
//! else takes it away, until SIGTERM.
//!
//! Whoever uninstalls is not fought: the one that stays has a file of its own, locked, beside what it put there, and
//! `dismiss` writes a word into it ([`Presence`]). Nor is another installer that wants the same names: each time that
//! something is put back, the next time comes later.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::{Context, Error, Kind, Result, store};

/// How often it looks where nothing tells it to: a watch does not see everything (a mount over a folder).
const PERIOD: Duration = Duration::from_mins(1);
/// Between a change and the look: whoever changes a folder changes more than one file. Doubled each time that
/// something was put back, because somebody else wants it otherwise; the first again after a quiet period.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(5));

/// The signals that end it, taken as messages. A process of the number 1 gets no signal that it has not asked for.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// From here on SIGTERM and SIGINT do nothing but to be told by [`Signals::came_within`]. Before any thread is
    /// started.
    pub fn hold() -> Result<Self> {
        let doing = || "take SIGTERM as a message".to_owned();
        let mask: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        mask.thread_block().doing(Kind::Kernel, doing)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&mask, flags).doing(Kind::Kernel, doing).map(Self)
    }

    /// Waits so long; `true` as soon as a signal is there.
    pub fn came_within(&self, time: Duration) -> Result<bool> {
        self.wait(None, time).map(|woken| woken == Woken::Ended)
    }

    fn wait(&self, watch: Option<&Inotify>, time: Duration) -> Result<Woken> {
        let end = Instant::now() + time;
        loop {
            let mut asked = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            asked.extend(watch.map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
            let left = end.saturating_duration_since(Instant::now());
            match poll(&mut asked, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other.doing(Kind::Kernel, || "wait for a change".to_owned())?,
            };
            let ready = |n: usize| asked.get(n).and_then(PollFd::any).unwrap_or(false);
            // The signal stays in the queue: whoever asks next is told the same.
            if ready(0) {
                return Ok(Woken::Ended);
            }
            if ready(1) {
                return Ok(Woken::Changed);
            }
            if Instant::now() >= end {
                return Ok(Woken::Time);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Ended,
    Changed,
    Time,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// All is as it was.
    Fine,
    /// These were put back or followed, each a line for a person.
    Mended(Vec<String>),
    /// Somebody uninstalled: from here on nothing is done.
    Dismissed,
}

/// Looks again and again until a signal comes. `folders` are those whose changes are worth a look at once; `tell`
/// hands a line to a person. An error of a look is told and does not end it; the same one is told once.
pub fn stay(
    signals: &Signals,
    folders: &dyn Fn() -> Vec<PathBuf>,
    look: &mut dyn FnMut() -> Result<Look>,
    tell: &dyn Fn(&str),
) -> Result<()> {
    let mut pause = PAUSES.0;
    let mut told = String::new();
    loop {
        // Before the look, so that nothing is missed between the two.
        let watch = watch(&folders());
        let quiet = match look() {
            Ok(Look::Fine) => true,
            Ok(Look::Mended(lines)) => {
                for line in &lines {
                    tell(line);
                }
                pause = (pause * 2).min(PAUSES.1);
                false
            }
            Ok(Look::Dismissed) => {
                drop(watch);
                return rest(signals, tell);
            }
            Err(error) => {
                let line = error.complaint("install --stay", false);
                if line != told {
                    tell(line.trim_end());
                    told = line;
                }
                // Something may have been put back before it went wrong. It may be over soon, too.
                pause = (pause * 2).min(PERIOD).max(pause);
                false
            }
        };
        if quiet {
            told.clear();
        }
        // What was mended changed the folders itself: the look after it finds nothing, and waits.
        match signals.wait(watch.as_ref(), PERIOD)? {
            Woken::Ended => return Ok(()),
            Woken::Time if quiet => pause = PAUSES.0,
            Woken::Time | Woken::Changed => {}
        }
        if signals.came_within(pause)? {
            return Ok(());
        }
    }
}

/// Does nothing until a signal comes: whoever ended after an uninstall would be started anew, and install again.
pub fn rest(signals: &Signals, tell: &dyn Fn(&str)) -> Result<()> {
    tell("uninstalled by somebody on the node: nothing is put back from here on");
    while !signals.came_within(PERIOD)? {}
    Ok(())
}

/// A watch over the folders, or over what is there above them. `None` where the kernel gives none: then the clock
/// has to do.
fn watch(folders: &[PathBuf]) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let changes = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    for folder in folders {
        let there = folder.ancestors().find(|above| above.is_dir());
        let _ = there.map(|folder| inotify.add_watch(folder, changes));
    }
    Some(inotify)
}

/// That somebody stays: a hidden file in the folder that he keeps, locked for as long as he lives.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    held: Option<File>,
}

impl Presence {
    /// Of a program that keeps `folder`.
    pub fn of(folder: &Path, program: &str) -> Self {
        Self { path: file(folder, program), held: None }
    }

    /// Makes the file and locks it, anew where the folder was emptied. Where another one stays there, that one has
    /// it.
    pub fn show(&mut self) -> Result<()> {
        let doing = || format!("lock `{}`", self.path.display());
        let identity = |m: fs::Metadata| (m.dev(), m.ino());
        let held = self.held.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        let named = fs::symlink_metadata(&self.path).ok().map(identity);
        // A name that is gone may be an uninstall's doing, which wrote its word before.
        if held.is_some() && (named == held || self.is_dismissed()) {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(&self.path).doing(Kind::Io, doing)?;
        match file.try_lock() {
            Ok(()) => {
                // A word to an earlier one that is gone.
                file.set_len(0).doing(Kind::Io, doing)?;
                self.held = Some(file);
                Ok(())
            }
            Err(fs::TryLockError::WouldBlock) => Ok(()),
            Err(fs::TryLockError::Error(e)) => Err(e).doing(Kind::Io, doing),
        }
    }

    /// Whether somebody uninstalled meanwhile.
    pub fn is_dismissed(&self) -> bool {
        self.held.as_ref().is_some_and(|file| file.metadata().is_ok_and(|about| about.len() > 0))
    }

    /// Takes the file away. After a word in it the name is gone, or the next one's.
    pub fn end(self) -> Result<()> {
        if self.held.is_some() && !self.is_dismissed() { store::remove(&self.path) } else { Ok(()) }
    }
}

/// Tells whoever stays in `folder` that it is uninstalled; `true` where there is one. For the holder of the folder's
/// lock, before anything is taken away.
pub fn dismiss(folder: &Path, program: &str) -> Result<bool> {
    let path = file(folder, program);
    let doing = || format!("tell who keeps `{}`", folder.display());
    let mut options = OpenOptions::new();
    let mut file = match options.read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.doing(Kind::Io, doing)?,
    };
    match file.try_lock() {
        Ok(()) => store::remove(&path).map(|()| false),
        Err(fs::TryLockError::WouldBlock) => {
            file.write_all(b"uninstalled\n").doing(Kind::Io, doing)?;
            // Who stays holds the file itself; the folder shall be empty.
            store::remove(&path).map(|()| true)
        }
        Err(fs::TryLockError::Error(e)) => Err(Error::caused(Kind::Io, doing(), e)),
    }
}

fn file(folder: &Path, program: &str) -> PathBuf {
    folder.join(format!(".{program}.stay"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("node-stay-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn who_stays_hears_of_an_uninstall_and_the_folder_is_empty() {
        let room = Room::new("dismiss");
        assert!(!dismiss(&room.0, "p").unwrap(), "nobody stays");
        let mut presence = Presence::of(&room.0, "p");
        presence.show().unwrap();
        presence.show().unwrap();
        assert!(!presence.is_dismissed());
        assert!(dismiss(&room.0, "p").unwrap());
        assert!(presence.is_dismissed());
        assert_eq!(store::names(&room.0).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_file_of_one_that_was_killed_is_taken_away_and_taken_over() {
        let room = Room::new("killed");
        let path = file(&room.0, "p");
        fs::write(&path, "uninstalled\n").unwrap();
        let mut presence = Presence::of(&room.0, "p");
        presence.show().unwrap();
        assert!(!presence.is_dismissed(), "the word was another one's");
        drop(presence);
        assert!(!dismiss(&room.0, "p").unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn an_emptied_folder_is_no_uninstall() {
        let room = Room::new("emptied");
        let mut presence = Presence::of(&room.0, "p");
        presence.show().unwrap();
        fs::remove_file(file(&room.0, "p")).unwrap();
        presence.show().unwrap();
        assert!(!presence.is_dismissed() && file(&room.0, "p").exists());
        presence.end().unwrap();
        assert!(!file(&room.0, "p").exists());
    }

    #[test]
    fn a_change_below_a_folder_that_is_not_there_yet_is_seen() {
        let room = Room::new("watch");
        let watch = watch(&[room.0.join("a/b")]).unwrap();
        fs::create_dir(room.0.join("a")).unwrap();
        let mut asked = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut asked, PollTimeout::from(10_000_u16)).unwrap(), 1);
    }
}
