//! One line a change, on stderr, where a container's runtime and journald look for it.

use std::io::stderr;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

/// The lines' shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// Begins to log. `debug` shows each step of a registration, too.
pub fn start(shape: Shape, debug: bool) {
    let level = if debug { Level::DEBUG } else { Level::INFO };
    let lines = fmt().with_writer(stderr).with_max_level(level).with_target(false).with_ansi(false);
    // What the libraries say of each frame is for those who write them.
    let ours = filter_fn(|line| line.target().starts_with(env!("CARGO_CRATE_NAME")));
    // A second logger is none: whoever comes first has it.
    let _ = match shape {
        Shape::Text => tracing::subscriber::set_global_default(lines.finish().with(ours)),
        Shape::Json => {
            tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish().with(ours))
        }
    };
}
