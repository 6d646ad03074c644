//! Runs the distribution's helpers: exact arguments, a bare environment, a deadline.
