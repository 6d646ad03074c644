//! What an operator reads and installs is true of the program: README.md and what is in `deploy/`.
#![allow(
    clippy::case_sensitive_file_extension_comparisons,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops at the first surprise, and the panic is its report"
)]

mod deploy;
mod page;
mod readme;
mod schema;
