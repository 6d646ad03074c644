//! Asks a program for VERSION as a runtime does, by the name that it is going to have.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use node::{Context, Error, Kind, Result};
use serde_json::Value;

use crate::command::bounded;

/// A good answer takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs `program` as `name`; an error unless it answers as a plugin does.
pub(crate) fn version(program: &Path, name: &str) -> Result<()> {
    let doing = || format!("ask `{}` for its versions as `{name}`", program.display());
    let mut command = Command::new(program);
    command.arg0(name).env("CNI_COMMAND", "VERSION");
    let answered = bounded::output(&mut command, br#"{"cniVersion":"1.0.0"}"#, DEADLINE);
    let output = answered.doing(Kind::Mismatch, doing).map_err(|e| match e.errno() {
        Some(libc::EACCES) => e.hint("is the file system mounted noexec? choose another folder"),
        Some(libc::ENOEXEC) => e.hint("the program is built for another kind of machine"),
        _ => e,
    })?;
    let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let speaks = answer.and_then(|a| a.get("supportedVersions")?.as_array().map(|v| !v.is_empty()));
    if output.status.success() && speaks == Some(true) {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stdout).trim().chars().take(200).collect();
    Err(Error::caused(Kind::Mismatch, doing(), format!("it ended with {} and said `{said}`", output.status)))
}
