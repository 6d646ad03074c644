//! What is there before anything is done.
