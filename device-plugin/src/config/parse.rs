//! From YAML to the configuration.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use node::{Context, Error, Kind, Result};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error as YamlError, Options, SnippetMode, UserMessageFormatter};

use super::Config;

/// A configuration is a few pages; a ConfigMap can't hold more.
const MOST: u64 = 1 << 20;
const HINT: &str = "`nodeplug-device-plugin validate` checks the file";

impl Config {
    /// Reads and checks the file's text. An empty text offers nothing. The error is [`Kind::Config`], with
    /// line and column where the YAML, a key or a word is off, and with every contradiction.
    pub fn parse(text: &str) -> Result<Self> {
        let config = Self::understand(text)?;
        let mistakes = config.mistakes();
        if mistakes.is_empty() {
            return Ok(config);
        }
        Err(Error::caused(Kind::Config, "check the configuration", mistakes.join("; ")).hint(HINT))
    }

    /// Reads the text without a look for contradictions, for who wants them one by one ([`Config::mistakes`]).
    pub fn understand(text: &str) -> Result<Self> {
        let config = serde_saphyr::from_str_with_options::<Option<Self>>(text, limits());
        let config = config
            .map_err(|why| Error::caused(Kind::Config, "read the configuration", told(&why)).hint(HINT))?;
        Ok(config.unwrap_or_default())
    }

    /// Reads and checks a file. Links are followed: a ConfigMap's files are links, which change all at once.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read(path)?)
    }
}

/// The text of the file.
pub fn read(path: &Path) -> Result<String> {
    let doing = || format!("read `{}`", path.display());
    let refused = |why: &str| Error::caused(Kind::Config, doing(), why);
    // Before it is opened: one that is a FIFO would never answer.
    if !fs::metadata(path).doing(Kind::Io, doing)?.is_file() {
        return Err(refused("it is not a plain file"));
    }
    let file = File::open(path).doing(Kind::Io, doing)?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).doing(Kind::Io, doing)?;
    if bytes.len() as u64 > MOST {
        return Err(refused("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8"))
}

/// Enough for any configuration, and for no bomb: aliases are copied at most a few thousand times altogether.
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

/// The parser's words on one line, behind the place; for an unknown key, with the nearest known one.
fn told(why: &YamlError) -> String {
    let why = why.without_snippet();
    let place = why.location().map(|at| (at.line(), at.column()));
    let what = match why {
        YamlError::SerdeUnknownField { field, expected, .. } => unknown(field, expected),
        YamlError::SerdeUnknownVariant { variant, expected, .. } => unknown(variant, expected),
        YamlError::ExpectedMappingEndAfterEnumVariantValue { .. } => {
            "one key is enough here; make an entry of its own of this one, behind a `-`".to_owned()
        }
        YamlError::Unexpected { expected: "sequence start", .. } => {
            "a list is expected; put `[` and `]` around it, or a `-` in front".to_owned()
        }
        YamlError::Unexpected { expected: "mapping start", .. } => {
            "keys are expected, such as `{key: value}`".to_owned()
        }
        other => {
            let options = serde_saphyr::render_options! { formatter: &UserMessageFormatter, snippets: SnippetMode::Off };
            other.render_with_options(options).split_whitespace().collect::<Vec<_>>().join(" ")
        }
    };
    let Some((line, column)) = place else { return what };
    let bare = what.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(&what);
    format!("line {line}, column {column}: {bare}")
}

fn unknown(name: &str, known: &[&'static str]) -> String {
    let meant = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", known.join(", ")),
    };
    format!("`{}` is not known here; {meant}", name.escape_debug())
}

/// The known word that was most likely meant.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let near = known.into_iter().map(|k| (strsim::damerau_levenshtein(&k.to_lowercase(), &word), k));
    near.filter(|(distance, k)| *distance <= k.len().max(word.len()) / 3).min().map(|(_, k)| k)
}
