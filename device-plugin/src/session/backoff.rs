//! How long to wait before the next try: longer and longer, and never in step with others.

use std::time::{Duration, Instant};

use crate::kernel::random;

const FIRST: Duration = Duration::from_millis(10);
const LAST: Duration = Duration::from_secs(5);

/// After so long without a mishap, the first wait is short again.
const FORGET: Duration = Duration::from_secs(1);

/// The waits between tries.
#[derive(Debug)]
pub(super) struct Backoff {
    wait: Duration,
    next: Option<Instant>,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { wait: FIRST, next: None }
    }

    /// Something went wrong: the next try has to wait.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        let rested = self.next.is_none_or(|next| now.saturating_duration_since(next) >= FORGET);
        self.wait = if rested { FIRST } else { (self.wait * 2).min(LAST) };
        // Between half and the whole of it.
        let half = self.wait / 2;
        let more = half.mul_f64(random::part());
        self.next = Some(now + half + more);
    }

    /// What went wrong is over: another kubelet is there.
    pub(super) fn end(&mut self) {
        self.next = None;
    }

    /// How long the next try has to wait yet.
    pub(super) fn left(&self) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }
}
