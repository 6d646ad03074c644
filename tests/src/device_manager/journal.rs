//! What the kubelet saw and did, in its order. It outlives the kubelet's process.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use proto::deviceplugin::Device;

use crate::kubelet::hold;

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// The resource that it is about; empty where it is about none.
    pub resource: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The kubelet serves its socket.
    Started,
    /// The kubelet's process is gone.
    Stopped,
    /// A call of Register came in, with this endpoint and whether it sent options.
    RegisterCalled {
        /// The socket's name.
        endpoint: String,
        /// What the request's options say of PreStartContainer and GetPreferredAllocation.
        options: Option<(bool, bool)>,
    },
    /// Register was answered; the error's words where it was refused.
    RegisterAnswered(Result<(), String>),
    /// ListAndWatch was called: a stream with a number of its own.
    StreamOpened(u64),
    /// A list came.
    Listed {
        /// The stream's number.
        stream: u64,
        /// The list as it was sent, duplicates included.
        devices: Vec<Device>,
    },
    /// A stream ended, for this reason.
    StreamEnded {
        /// The stream's number.
        stream: u64,
        /// In the words of gRPC.
        why: String,
    },
    /// The resource has lost its plugin: all that it has is unhealthy.
    Disconnected,
    /// A call to the plugin, by its name.
    Called(&'static str),
}

#[derive(Debug, Default)]
struct Entries {
    events: Vec<Event>,
    calls: BTreeMap<&'static str, usize>,
    streams: u64,
    crash: Option<String>,
}

/// The record, and the bell that rings at each entry.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Mutex<Entries>,
    bell: Condvar,
}

impl Journal {
    pub(super) fn note(&self, resource: &str, what: What) {
        let mut entries = hold(&self.entries);
        if let What::Called(name) = what {
            *entries.calls.entry(name).or_default() += 1;
        }
        entries.events.push(Event { at: Instant::now(), resource: resource.to_owned(), what });
        drop(entries);
        self.bell.notify_all();
    }

    /// Counts a call without an entry of its own, where there are thousands.
    pub(super) fn count(&self, name: &'static str) {
        *hold(&self.entries).calls.entry(name).or_default() += 1;
    }

    pub(super) fn next_stream(&self) -> u64 {
        let mut entries = hold(&self.entries);
        entries.streams += 1;
        entries.streams
    }

    /// The real one would have died here.
    pub(super) fn crash(&self, why: &str) {
        hold(&self.entries).crash.get_or_insert_with(|| why.to_owned());
        self.bell.notify_all();
    }

    pub(super) fn crashed(&self) -> Option<String> {
        hold(&self.entries).crash.clone()
    }

    pub(super) fn forget_crash(&self) -> Option<String> {
        hold(&self.entries).crash.take()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        hold(&self.entries).events.clone()
    }

    /// Forgets what happened so far; long measurements would keep every list.
    pub(super) fn clear(&self) {
        hold(&self.entries).events.clear();
    }

    pub(super) fn calls(&self, name: &str) -> usize {
        hold(&self.entries).calls.get(name).copied().unwrap_or(0)
    }

    /// Asks at each entry, and now, until there is an answer or the time is over. `ask` may hold no lock that
    /// whoever writes an entry holds.
    pub(super) fn until<T>(&self, limit: Duration, mut ask: impl FnMut(&[Event]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        let mut entries: MutexGuard<'_, Entries> = hold(&self.entries);
        loop {
            if let Some(answer) = ask(&entries.events) {
                return Some(answer);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.bell.wait_timeout(entries, left);
            entries = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}
