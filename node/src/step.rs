//! Steps and their undo: what was done is a list, and a failure walks that list backwards.

use std::fmt::Display;

use crate::{Error, Result};

/// One thing that a plan does. Its `Display` line serves the log, the error that it meets, the golden
/// tests and `--dry-run`.
pub trait Step: Display + Sized {
    /// What takes this step back; `None` where it leaves nothing of its own behind.
    fn inverse(&self) -> Option<Self>;
}

/// The steps that were done, in order. Undo hangs on this list and never on an error variable.
#[derive(Debug)]
pub struct Done<S> {
    steps: Vec<S>,
}

impl<S> Default for Done<S> {
    fn default() -> Self {
        Self { steps: Vec::new() }
    }
}

impl<S: Step> Done<S> {
    /// Notes steps as done.
    pub fn extend(&mut self, steps: impl IntoIterator<Item = S>) {
        self.steps.extend(steps);
    }

    /// Notes one step as done.
    pub fn push(&mut self, step: S) {
        self.steps.push(step);
    }

    /// The inverses of what was done, last first.
    pub fn undo(self) -> impl Iterator<Item = S> {
        self.steps.into_iter().rev().filter_map(|s| s.inverse())
    }

    /// Takes everything back with `apply`, going on when one inverse meets an error. The error that
    /// caused it all leads; what the clean-up met is added to its hint.
    pub fn roll_back(self, first: Box<Error>, mut apply: impl FnMut(S) -> Result<()>) -> Box<Error> {
        let mut left = Vec::new();
        for step in self.undo() {
            if let Err(error) = apply(step) {
                left.push(error.chain());
            }
        }
        if left.is_empty() {
            return first;
        }
        let advice = first.advice().map_or_else(String::new, |h| format!("{h}; "));
        first.hint(format!("{advice}the clean-up met: {}; DEL will try again", left.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use std::fmt;

    #[derive(Debug, Clone, PartialEq)]
    enum Door {
        Open(u8),
        Close(u8),
        Look,
    }

    impl Display for Door {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{self:?}")
        }
    }

    impl Step for Door {
        fn inverse(&self) -> Option<Self> {
            match self {
                Door::Open(n) => Some(Door::Close(*n)),
                Door::Close(_) | Door::Look => None,
            }
        }
    }

    #[test]
    fn undo_is_the_inverses_last_first_and_goes_on_past_a_failure() {
        let mut done = Done::default();
        done.extend([Door::Open(1), Door::Look, Door::Open(2)]);
        let mut seen = Vec::new();
        let error = done.roll_back(Error::new(Kind::Kernel, "third"), |s| {
            seen.push(s.clone());
            if s == Door::Close(2) { Err(Error::new(Kind::Kernel, "stuck")) } else { Ok(()) }
        });
        assert_eq!(seen, [Door::Close(2), Door::Close(1)]);
        assert_eq!(error.chain(), "third");
        assert!(error.advice().unwrap().contains("stuck"));
    }
}
