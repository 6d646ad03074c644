//! What is to go wrong.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use crate::kubelet::hold;

/// What is to go wrong at the next opportunities. All of it outlives the kubelet's process.
#[derive(Debug)]
pub(super) struct Faults {
    planned: Mutex<Planned>,
    /// Whether answers of Allocate wait before they are taken.
    pub(super) hold_answers: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Planned {
    /// So many calls of Register are refused before anything else, with these words.
    pub(super) register: (usize, String),
    /// So many times the plugin's options can't be had, although it answers.
    pub(super) options: usize,
    /// So many streams end at their first list, before it is taken.
    pub(super) streams: usize,
    /// How long a dial takes before it begins.
    pub(super) dial: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self { planned: Mutex::default(), hold_answers: watch::Sender::new(false) }
    }
}

impl Faults {
    pub(super) fn plan(&self, change: impl FnOnce(&mut Planned)) {
        change(&mut hold(&self.planned));
    }

    pub(super) fn register(&self) -> Option<String> {
        let mut planned = hold(&self.planned);
        take(&mut planned.register.0).then(|| planned.register.1.clone())
    }

    pub(super) fn options(&self) -> bool {
        take(&mut hold(&self.planned).options)
    }

    pub(super) fn stream(&self) -> bool {
        take(&mut hold(&self.planned).streams)
    }

    pub(super) fn dial(&self) -> Duration {
        hold(&self.planned).dial
    }

    /// Returns when answers are not held back.
    pub(super) async fn released(&self) {
        let mut held = self.hold_answers.subscribe();
        drop(held.wait_for(|held| !held).await);
    }
}

fn take(count: &mut usize) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}
