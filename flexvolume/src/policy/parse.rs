//! From YAML to the policy.

use node::{Error, Kind, Result};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error as YamlError, Options, SnippetMode, UserMessageFormatter};

use super::Policy;
use crate::options::{nearest, quoted};

impl Policy {
    /// Reads and checks the file's text. An empty text is the default policy. The error is
    /// `Kind::Config`, with line and column where the YAML or a key is off, and with every contradiction.
    pub fn parse(text: &str) -> Result<Self> {
        let policy = serde_saphyr::from_str_with_options::<Option<Self>>(text, limits());
        let policy = policy.map_err(|why| {
            Error::caused(Kind::Config, "read the node's policy", told(&why))
                .hint("`nodeplug-flexvolume validate` checks the file")
        })?;
        let policy = policy.unwrap_or_default();
        policy.check()?;
        Ok(policy)
    }
}

/// Enough for any policy, and for no bomb: aliases are copied at most a few thousand times altogether.
fn limits() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: 16,
            flow_nesting_limit: 16,
            max_events: 200_000,
            max_nodes: 50_000,
            max_aliases: 200,
            max_anchors: 200,
            max_recorded_anchor_events: 10_000,
            max_recorded_anchor_bytes: 1 << 20,
            max_total_scalar_bytes: 1 << 20,
            max_merge_keys: 200,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
    }
}

/// The parser's words on one line; for an unknown key, with the nearest known one.
fn told(why: &YamlError) -> String {
    let why = why.without_snippet();
    let (what, name, expected) = match why {
        YamlError::SerdeUnknownField { field, expected, .. } => ("a key", field, expected),
        YamlError::SerdeUnknownVariant { variant, expected, .. } => ("a word", variant, expected),
        other => {
            let options = serde_saphyr::render_options! { formatter: &UserMessageFormatter, snippets: SnippetMode::Off };
            return other.render_with_options(options).split_whitespace().collect::<Vec<_>>().join(" ");
        }
    };
    let place = why.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
    let meant = match nearest(name, expected.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", expected.join(", ")),
    };
    format!("{}{} is not {what} here; {meant}", place.unwrap_or_default(), quoted(name))
}
