//! Paths that nobody can exchange while they are walked (openat2(2)).
