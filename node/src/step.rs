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

    /// Takes everything back with `apply`. The error that caused it all leads; what the clean-up met is
    /// added to its hint.
    pub fn roll_back(self, first: Box<Error>, apply: impl FnOnce(Vec<S>) -> Result<()>) -> Box<Error> {
        match apply(self.undo().collect()) {
            Ok(()) => first,
            Err(left) => {
                let advice = first.advice().map_or_else(String::new, |h| format!("{h}; "));
                first.hint(format!("{advice}the clean-up met: {}; the next call tries again", left.chain()))
            }
        }
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
    fn undo_is_the_inverses_last_first_and_the_first_error_leads() {
        let mut done = Done::default();
        done.extend([Door::Open(1), Door::Look, Door::Open(2)]);
        let mut seen = Vec::new();
        let error = done.roll_back(Error::new(Kind::Kernel, "third"), |steps| {
            seen = steps;
            Err(Error::new(Kind::Kernel, "stuck"))
        });
        assert_eq!(seen, [Door::Close(2), Door::Close(1)]);
        assert_eq!(error.chain(), "third");
        assert!(error.advice().unwrap().contains("stuck"));
    }
}
