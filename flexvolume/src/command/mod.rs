//! What a person runs. The kubelet's words never come here.

pub mod install;
pub mod table;
pub mod volumes;

use std::ffi::{OsStr, c_int};
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use node::{Context, Kind, Result};
use serde_json::{Value, json};

use crate::request::CALLS;
use crate::{doctor, policy};

const EXAMPLE: &str = "\
Examples:
  nodeplug-flexvolume install
  nodeplug-flexvolume doctor
  nodeplug-flexvolume validate
  nodeplug-flexvolume list
  nodeplug-flexvolume repair --remount

A pod that asks for 64 MiB of memory with the files of a Secret of `type: nodeplug/tmpfs` in it:
  volumes: [{name: data, flexVolume: {driver: nodeplug/tmpfs, secretRef: {name: tokens}, options: {size: 64Mi}}}]

The kubelet runs this program as `init`, `mount FOLDER JSON`, `unmount FOLDER` and the like; to these it
answers with one line of JSON and exit code 0, whatever happens.

With `-o json`, a command prints one object on stdout; one that goes wrong prints {\"error\": TEXT, \"hint\": TEXT} on
stderr, `hint` only where there is one.

Exit codes of the commands: 0 fine, 1 a problem was found or the command went wrong, 2 wrong arguments.";

const DOCTOR: &str = "\
Example, on the node, and from a container that has the node's root at /host:
  nodeplug-flexvolume doctor
  nodeplug-flexvolume doctor --root /host -o json

Exit codes: 0 fine or warnings alone, 1 a problem, 2 wrong arguments.";

/// The commands' names: a call that nobody knows must not cost a parser of commands.
const COMMANDS: [&str; 9] =
    ["install", "uninstall", "doctor", "validate", "schema", "list", "repair", "gc", "completions"];
const FLAGS: [&str; 6] = ["-h", "--help", "help", "-V", "--version", "--output"];

const FINE: c_int = 0;
const PROBLEM: c_int = 1;
const PROGRAM: &str = "nodeplug-flexvolume";

/// A pod's volumes in one program: FlexVolume driver for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(name = "nodeplug-flexvolume", version, after_help = EXAMPLE, arg_required_else_help = true)]
struct Arguments {
    /// How answers are printed.
    #[arg(long, short, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put the driver into the kubelet's plugin folder, or upgrade it there.
    Install(install::Install),
    /// Take the driver out of the kubelet's plugin folder.
    Uninstall(install::Uninstall),
    /// Look for what keeps pods from their volumes, and say what to do about it. Changes nothing.
    #[command(after_help = DOCTOR)]
    Doctor {
        /// The node's root folder, where it is mounted elsewhere or not booted; all other paths lie below it.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Check the node's policy and say what it allows.
    Validate {
        /// The policy file.
        #[arg(default_value = policy::PATH)]
        file: PathBuf,
    },
    /// Print the JSON schema of the policy file.
    Schema,
    /// List the volumes of this node.
    List(volumes::List),
    /// Look for volumes whose server or daemon is gone, and mount them again.
    Repair(volumes::Repair),
    /// Remove what no volume needs any more.
    Gc(volumes::Gc),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Whether a person is calling: by a flag or a command's name as the first `word`, or by anything but a
/// call of the protocol on a terminal. Everything else is a call of the protocol, known or not.
pub fn is_wanted(word: Option<&OsStr>) -> bool {
    let Some(word) = word else { return std::io::stdout().is_terminal() };
    let word = word.to_string_lossy();
    // The kubelet's words first: it is the one that has no time.
    if CALLS.contains(&word.as_ref()) {
        return false;
    }
    let output = ["-o", "--output="].iter().any(|flag| word.starts_with(flag));
    let known = FLAGS.contains(&word.as_ref()) || COMMANDS.contains(&word.as_ref());
    output || known || std::io::stdout().is_terminal()
}

/// Runs a person's command; the answer is the exit code.
pub fn main() -> c_int {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // To stdout where it was asked for (--help), to stderr where it is a mistake.
            let _ = error.print();
            return error.exit_code();
        }
    };
    match run(&arguments) {
        Ok((text, code)) => {
            print(&text);
            code
        }
        Err(error) => {
            let complaint = error.complaint(PROGRAM, arguments.output == Output::Json);
            let _ = std::io::stderr().write_all(complaint.as_bytes());
            PROBLEM
        }
    }
}

fn run(arguments: &Arguments) -> Result<(String, c_int)> {
    let as_json = arguments.output == Output::Json;
    let said = |json: Value, table: String| if as_json { format!("{json:#}\n") } else { table };
    let found = |report: table::Report| {
        let code = if report.is_fine() { FINE } else { PROBLEM };
        (said(report.to_json(), report.to_table()), code)
    };
    Ok(match &arguments.command {
        Command::Install(wish) if wish.stay => {
            install::stay(wish, &|report| print(&said(report.to_json(), report.to_table())))?;
            (String::new(), FINE)
        }
        Command::Install(install) => {
            let report = install::install(install)?;
            (said(report.to_json(), report.to_table()), FINE)
        }
        Command::Uninstall(uninstall) => {
            let report = install::uninstall(uninstall)?;
            (said(report.to_json(), report.to_table()), FINE)
        }
        Command::Doctor { root } => {
            let report = doctor::examine(root.as_deref())?;
            let code = if report.is_fine() { FINE } else { PROBLEM };
            (said(report.to_json(), report.to_table()), code)
        }
        Command::Validate { file } => validate(file, &said)?,
        Command::Schema => (format!("{:#}\n", policy::schema()), FINE),
        Command::List(list) => found(list.run()?),
        Command::Repair(repair) => found(repair.run()?),
        Command::Gc(gc) => found(gc.run()?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), PROGRAM, &mut script);
            (String::from_utf8_lossy(&script).into_owned(), FINE)
        }
    })
}

/// A policy that is not there is one, too: the default. A file at the usual place is read as the driver
/// reads it, with its owner and permissions.
fn validate(file: &PathBuf, said: &dyn Fn(Value, String) -> String) -> Result<(String, c_int)> {
    let text = match fs::read_to_string(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.as_os_str() == policy::PATH => {
            String::new()
        }
        other => other.doing(Kind::Io, || format!("read `{}`", file.display()))?,
    };
    if file.as_os_str() == policy::PATH {
        policy::Policy::load()?;
    }
    let explained = policy::validate::explain(&text)?;
    let lines: Vec<&str> = explained.lines().collect();
    Ok((said(json!({"file": file, "fine": true, "allows": lines}), explained.clone()), FINE))
}

fn print(text: &str) {
    // A reader that has seen enough (`| head`) closes the pipe: nothing is wrong.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_known_by_its_name_and_is_no_call_of_the_protocol() {
        let command = Arguments::command();
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(names, COMMANDS);
        assert!(COMMANDS.iter().chain(&FLAGS).all(|word| !CALLS.contains(word)));
    }
}
