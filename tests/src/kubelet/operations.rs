//! Which operations wait for which, and how long a failed one waits for its next try.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::journal::hold;
use super::{Doom, Fate, Kubelet, Outcome, Pod, Volume};

/// How long after the first failure it is tried again; then twice as long each time.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(122);
/// How long a pod waits for its volumes before its event says so.
const POD: Duration = Duration::from_secs(123);

/// What a series of tries came to.
#[derive(Debug, Clone)]
pub struct Tries {
    /// How the last one ended.
    pub outcome: Outcome,
    /// How many there were.
    pub count: u32,
    /// How long the kubelet would have waited between them.
    pub waited: Duration,
}

impl Kubelet {
    /// Mounts all volumes at the same time, each on a thread of its own; the outcomes in their order.
    pub fn set_up_all(&self, volumes: &[Volume]) -> Vec<Outcome> {
        at_once(volumes, |volume| self.set_up(volume))
    }

    /// Unmounts all volumes at the same time.
    pub fn tear_down_all(&self, volumes: &[Volume]) -> Vec<Outcome> {
        at_once(volumes, |volume| self.tear_down(volume))
    }

    /// Tries to mount until it succeeds or the pod's patience is over, without really waiting. `between`
    /// is told the number of tries that failed, and may change the world.
    pub fn keep_setting_up(&self, volume: &Volume, between: impl FnMut(u32)) -> Tries {
        let tries = keep_trying(|| self.set_up(volume), between);
        if matches!(tries.outcome, Outcome::Refused(_)) {
            let text = format!(
                "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to \
                 process volumes=[]: timed out waiting for the condition",
                volume.name
            );
            self.journal.event(text);
        }
        tries
    }

    /// Tries to unmount until it succeeds, as long as [`Kubelet::keep_setting_up`] would.
    pub fn keep_tearing_down(&self, volume: &Volume, between: impl FnMut(u32)) -> Tries {
        keep_trying(|| self.tear_down(volume), between)
    }

    /// For n = 0, 1, 2 …: does `round` with the next call of `verb` doomed to die after n of its system calls,
    /// until a call is spared. How often one died.
    #[track_caller]
    pub fn kill_at_each_step(&self, verb: &str, mut round: impl FnMut(usize)) -> usize {
        for n in 0..10_000 {
            self.doom_next(verb, Doom::KillAfter(n));
            round(n);
            match self.fate() {
                Some(Fate::Killed(_)) => {}
                Some(Fate::Spared) => return n,
                other => panic!("round {n} made no call of `{verb}`: {other:?}"),
            }
        }
        panic!("a call of `{verb}` that never ends")
    }

    /// The pod ends: its volumes are unmounted, its folder is removed. Stops the test where that fails.
    #[track_caller]
    pub fn end(&self, pod: &Pod) {
        let all: Vec<Volume> = hold(&self.wanted).values().filter(|v| v.pod == *pod).cloned().collect();
        for volume in all {
            let outcome = self.tear_down(&volume);
            let gone = matches!(outcome, Outcome::Unmounted | Outcome::NotThere);
            assert!(gone, "volume `{}` of pod `{}`: {outcome:?}", volume.name, pod.name);
        }
        self.delete(pod);
        let complaints = self.collect_orphans();
        assert!(!pod.folder().exists(), "the folder of pod `{}` stays: {complaints:?}", pod.name);
    }
}

fn at_once(volumes: &[Volume], work: impl Fn(&Volume) -> Outcome + Sync) -> Vec<Outcome> {
    let work = &work;
    thread::scope(|scope| {
        let started: Vec<_> = volumes.iter().map(|volume| scope.spawn(move || work(volume))).collect();
        started.into_iter().map(|t| t.join().expect("an operation on a thread")).collect()
    })
}

fn keep_trying(mut work: impl FnMut() -> Outcome, mut between: impl FnMut(u32)) -> Tries {
    let (mut waited, mut delay) = (Duration::ZERO, FIRST);
    for count in 1.. {
        let outcome = work();
        let again = matches!(outcome, Outcome::Refused(_));
        if !again || waited + delay > POD {
            return Tries { outcome, count, waited };
        }
        between(count);
        waited += delay;
        delay = LONGEST.min(delay * 2);
    }
    unreachable!("patience ends")
}

/// One operation at a time on one path. The kubelet does not start a second one and comes back later; here
/// the second one waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<BTreeSet<PathBuf>>,
    free: Condvar,
}

impl Turns {
    /// Waits until nobody works on `path`, and keeps others from it until the turn is dropped.
    pub(super) fn take(&self, path: &Path) -> Turn<'_> {
        let mut taken = hold(&self.taken);
        while taken.contains(path) {
            taken = self.free.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.insert(path.to_owned());
        Turn { turns: self, path: path.to_owned() }
    }
}

pub(super) struct Turn<'a> {
    turns: &'a Turns,
    path: PathBuf,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        hold(&self.turns.taken).remove(&self.path);
        self.turns.free.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_at_twice_the_distance_each_time() {
        let tries = keep_trying(|| Outcome::Refused(String::new()), |_| {});
        // 0.5 + 1 + 2 + … + 32 s, and another 64 s would be too much.
        assert_eq!((tries.count, tries.waited), (8, Duration::from_millis(63_500)));
        let mut failures = 3;
        let tries = keep_trying(
            || {
                failures -= 1;
                if failures < 0 { Outcome::Mounted } else { Outcome::Refused(String::new()) }
            },
            |_| {},
        );
        assert_eq!((tries.outcome, tries.count), (Outcome::Mounted, 4));
        assert_eq!(tries.waited, Duration::from_millis(3500));
    }
}
