//! What a kubelet leaves for people to read: its log, the pods' events, and (for tests) its calls.

use std::sync::{Mutex, MutexGuard};

use super::exec::{Doom, Fate};

/// A call that was made: who made it, and the arguments after the executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// `kubelet` or `kube-controller-manager`.
    pub caller: &'static str,
    /// `vendor/driver`.
    pub driver: String,
    /// The verb and its arguments.
    pub arguments: Vec<String>,
}

/// The lines of a kubelet and of its controller manager. Shared by all their threads.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    log: Mutex<Vec<String>>,
    events: Mutex<Vec<String>>,
    calls: Mutex<Vec<Recorded>>,
    doom: Mutex<Option<(String, Doom)>>,
    fate: Mutex<Option<Fate>>,
}

impl Journal {
    pub(crate) fn log(&self, line: String) {
        hold(&self.log).push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        hold(&self.log).clone()
    }

    pub(crate) fn event(&self, text: String) {
        hold(&self.events).push(text);
    }

    pub(crate) fn events(&self) -> Vec<String> {
        hold(&self.events).clone()
    }

    pub(crate) fn call(&self, call: Recorded) {
        hold(&self.calls).push(call);
    }

    pub(crate) fn calls(&self) -> Vec<Recorded> {
        hold(&self.calls).clone()
    }

    pub(crate) fn doom(&self, verb: &str, doom: Doom) {
        *hold(&self.fate) = None;
        *hold(&self.doom) = Some((verb.to_owned(), doom));
    }

    /// What is to be done to a call of this verb, once.
    pub(crate) fn doom_of(&self, verb: &str) -> Option<Doom> {
        let mut doom = hold(&self.doom);
        let (_, doom) = doom.take_if(|(doomed, _)| doomed == verb)?;
        Some(doom)
    }

    pub(crate) fn fulfil(&self, fate: Fate) {
        *hold(&self.fate) = Some(fate);
    }

    pub(crate) fn fate(&self) -> Option<Fate> {
        hold(&self.fate).clone()
    }
}

/// A lock that a failing test on another thread does not take along.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
