//! Takes away what is mounted on a volume's folder: layer by layer, whatever is there.
//!
//! A mount whose server, daemon or disk does not answer is unmounted in a child, which may hang where no
//! signal wakes it; this process goes on in time. What is left of such a mount ends in the kernel, in its
//! own time, and the child that waits for that keeps the locks.

mod place;

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use node::{Error, Kind, Result};

use super::Hands;
use crate::kernel::holders::{self, Holder, Sought};
use crate::kernel::mount::{self, How};
use crate::kernel::workshop;
use crate::observe::{self, GONE, On};
use crate::plan::Patience;
use crate::policy::{Busy, PATH};
use crate::target::Target;
use place::Place;

/// No volume is mounted so often on one folder.
const LAYERS: usize = 64;
/// How long a server or daemon may take for an unmount, and for a question.
const ANSWER: Duration = Duration::from_secs(10);
const QUESTION: Duration = Duration::from_secs(3);
/// How long an unmount by force, or out of sight, may take.
const FORCE: Duration = Duration::from_secs(5);
/// How long to sleep between two tries at a mount that is in use: from the first to the longest.
const NAPS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// How long holders are looked for, and how many are named.
const SEARCH: Duration = Duration::from_secs(2);
const NAMED: usize = 5;

/// Detaches mounts from the folder until none is left, in a child where `patience` says so. A folder that
/// is not there has none.
///
/// What is mounted below the folder (by a privileged pod, or with a recursive bind) goes first, where
/// nobody uses it: a volume cannot be unmounted under it, and nobody else would ever take it away.
pub fn detach(target: &Target, patience: Option<Patience>, hands: &mut Hands<'_>) -> Result<()> {
    let Some(place) = Place::open(target)? else { return Ok(()) };
    let mut layer = Layer { place, patience, hands };
    for _ in 0..LAYERS {
        if !layer.place.is_mounted()? {
            return Ok(());
        }
        layer.take()?;
    }
    Err(Error::new(Kind::Kernel, format!("unmount `{target}` for the {LAYERS}th time")))
}

/// Detaches what is mounted on the folder, whose server or daemon is gone, and moves the tree in hand there.
pub fn replace(target: &Target, hands: &mut Hands<'_>) -> Result<()> {
    detach(target, Some(Patience::Server), hands)?;
    let (folder, on) = observe::target(target)?;
    if on != On::Nothing {
        return Err(Error::new(Kind::Conflict, format!("find nothing mounted at `{target}`")));
    }
    hands.target = Some(folder);
    hands.attach().map_err(|error| {
        error.hint("nothing is mounted there now: delete the pod before it writes to the node's own disk")
    })
}

/// How a mounted file system answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it should.
    Fine,
    /// Not in time.
    Silent,
    /// That its server or daemon is gone (errno).
    Gone(i32),
}

/// Asks what is mounted on the folder, in a child. Nothing is [`Health::Fine`].
pub fn health(target: &Target, hands: &Hands<'_>) -> Result<Health> {
    Place::open(target)?.map_or(Ok(Health::Fine), |place| ask(&place, hands))
}

fn ask(place: &Place<'_>, hands: &Hands<'_>) -> Result<Health> {
    let top = place.top()?;
    let mut keep = hands.locked();
    keep.push(top.as_fd());
    let until = hands.patience().min(Instant::now() + QUESTION);
    let asked = workshop::apart(until, &keep, || {
        let answer = mount::ask_server(top.as_fd());
        Ok(answer.err().and_then(|e| e.raw_os_error()).unwrap_or(0).to_ne_bytes().to_vec())
    });
    match asked {
        Ok(errno) => {
            let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
            // EACCES is an answer: the daemon is well and lets nobody but its user in.
            let gone = errno != libc::EACCES && GONE.contains(&errno);
            Ok(if gone { Health::Gone(errno) } else { Health::Fine })
        }
        Err(error) if error.kind() == Kind::TryAgain => Ok(Health::Silent),
        Err(error) => Err(error),
    }
}

/// How one call of umount2(2) went.
enum Try {
    /// One mount less, or there was none.
    Gone,
    /// Somebody uses it.
    Busy,
    /// No answer in time.
    Late(Box<Error>),
}

/// The topmost mount of the folder.
struct Layer<'a, 'h, 's> {
    place: Place<'a>,
    patience: Option<Patience>,
    hands: &'h mut Hands<'s>,
}

impl Layer<'_, '_, '_> {
    /// Takes it away.
    fn take(&mut self) -> Result<()> {
        let patience = self.hands.patience();
        let until = match self.patience {
            Some(Patience::Server) => patience.min(Instant::now() + ANSWER),
            Some(Patience::Disk) | None => patience,
        };
        match self.while_busy(until)? {
            Try::Gone => Ok(()),
            Try::Busy => self.busy(),
            Try::Late(error) if self.patience == Some(Patience::Disk) => Err(error),
            Try::Late(_) => self.give_up("its server or daemon did not answer"),
        }
    }

    /// Tries until it is not in use any more, or has been for as long as the policy waits.
    fn while_busy(&mut self, until: Instant) -> Result<Try> {
        let begun = Instant::now();
        let mut nap = NAPS.0;
        let mut below = true;
        loop {
            match self.attempt(How::Plain, until)? {
                Try::Busy => {}
                other => return Ok(other),
            }
            if below {
                below = self.below(until)?;
                continue;
            }
            let patient = (begun + self.hands.busy().0).min(self.hands.patience());
            let left = patient.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Try::Busy);
            }
            thread::sleep(nap.min(left));
            nap = (nap * 2).min(NAPS.1);
        }
    }

    /// One umount2(2): here where it cannot hang, else in a child.
    fn attempt(&self, how: How, until: Instant) -> Result<Try> {
        let outcome = match self.patience {
            None if how == How::Plain => self.place.unmount(how).map(drop),
            _ => self.place.unmount_apart(how, until, &self.hands.locked()).map(drop),
        };
        match outcome {
            Ok(()) => Ok(Try::Gone),
            Err(error) if error.errno() == Some(libc::EBUSY) => Ok(Try::Busy),
            Err(error) if error.kind() == Kind::TryAgain => Ok(Try::Late(error)),
            Err(error) => Err(error),
        }
    }

    /// Takes away what is mounted below, in a child; whether there was something.
    fn below(&mut self, until: Instant) -> Result<bool> {
        let points = self.place.below()?;
        if points.is_empty() {
            return Ok(false);
        }
        let mut keep = self.hands.locked();
        keep.push(self.place.parent());
        let gone = workshop::apart(until, &keep, || Ok(self.place.unmount_below(&points).into_bytes()));
        match gone.map(|names| String::from_utf8_lossy(&names).into_owned()) {
            Ok(names) if names.is_empty() => Ok(false),
            Ok(names) => {
                self.hands
                    .notes
                    .push(format!("what was mounted below the volume was unmounted, too: {names}"));
                Ok(true)
            }
            // In use, or out of reach: the volume itself decides what follows.
            Err(_) => Ok(false),
        }
    }

    /// In use for too long. A mount that does not answer holds its users, who cannot let go of it.
    fn busy(&mut self) -> Result<()> {
        match ask(&self.place, self.hands)? {
            Health::Fine => {}
            Health::Silent => return self.give_up("its server or daemon did not answer"),
            Health::Gone(errno) => {
                let words = std::io::Error::from_raw_os_error(errno);
                return self.give_up(&format!("its server or daemon is gone ({words})"));
            }
        }
        if self.hands.busy().1 == Busy::Lazy {
            return self.lazily("it was still in use");
        }
        Err(self.in_use())
    }

    /// By force, and if that does not help, out of sight.
    fn give_up(&mut self, why: &str) -> Result<()> {
        if !self.place.is_mounted()? {
            self.hands.notes.push(format!("{why}: the kernel ends the mount when it can"));
            return Ok(());
        }
        let until = self.hands.patience().min(Instant::now() + FORCE);
        if let Try::Gone = self.attempt(How::Force, until)? {
            self.hands.notes.push(format!("{why}: it was unmounted by force"));
            return Ok(());
        }
        self.lazily(why)
    }

    fn lazily(&mut self, why: &str) -> Result<()> {
        let until = self.hands.patience().min(Instant::now() + FORCE);
        let outcome = self.attempt(How::Lazy, until)?;
        if self.place.is_mounted()? && !matches!(outcome, Try::Gone) {
            let how = match outcome {
                Try::Late(error) => error.chain(),
                _ => "it stays busy".to_owned(),
            };
            return Err(Error::caused(Kind::TryAgain, "detach it", how));
        }
        self.hands.notes.push(format!("{why}: it was detached, and the kernel ends it with its last user"));
        Ok(())
    }

    /// Who uses it.
    fn in_use(&self) -> Box<Error> {
        let sought = Sought { mounts: self.place.mounts().unwrap_or_default(), device: None };
        let until = self.hands.patience().min(Instant::now() + SEARCH);
        let found = holders::of(&sought, NAMED + 1, until);
        let below = self.place.below().unwrap_or_default();
        let mut users: Vec<String> = found.iter().take(NAMED).map(user).collect();
        users.extend((found.len() > NAMED).then(|| "others".to_owned()));
        users.extend(below.iter().take(NAMED).map(|point| format!("a mount at `{}`", point.display())));
        let why = if users.is_empty() {
            "it is in use by nobody that /proc shows: a loop device, a swap file, or an NFS export".to_owned()
        } else {
            format!("it is in use by {}", users.join(", "))
        };
        Error::caused(Kind::TryAgain, "wait for the end of its use", why).hint(format!(
            "end them; or write `busy: lazy` in {PATH}, and the volume goes with its last user"
        ))
    }
}

fn user(holder: &Holder) -> String {
    format!("{holder}, {}", holder.holds)
}
