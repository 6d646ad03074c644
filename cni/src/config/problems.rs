//! Problems as the one error that refuses the call.

use node::{Error, Kind, Result};

use crate::config::reader::Problem;

/// `Ok` where there is no problem. Otherwise the first one leads, all others follow, and the hint is
/// the first one's; only if every problem is about an unsupported key is that the error's kind.
pub fn verdict(problems: &[Problem]) -> Result<()> {
    let Some((first, others)) = problems.split_first() else { return Ok(()) };
    let kind = if problems.iter().all(|p| p.unsupported) { Kind::UnsupportedField } else { Kind::Config };
    let doing = format!("read the configuration: {}", line(first));
    let error = if others.is_empty() {
        Error::new(kind, doing)
    } else {
        let list: Vec<String> = others.iter().map(line).collect();
        Error::caused(kind, doing, format!("and {} more: {}", list.len(), list.join("; ")))
    };
    Err(match &first.hint {
        Some(hint) => error.hint(hint.clone()),
        None => error,
    })
}

/// A problem on one line: its place and what is wrong there.
pub fn line(problem: &Problem) -> String {
    match problem.at.as_str() {
        "" => format!("it {}", problem.what),
        at => format!("`{at}` {}", problem.what),
    }
}
