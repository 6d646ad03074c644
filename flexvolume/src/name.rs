//! The driver's name, and what follows from it.
