//! Answers the caller when the process is told to stop or crashes.
