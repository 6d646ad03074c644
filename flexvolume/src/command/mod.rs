//! What a person runs.

use std::ffi::c_int;
use std::io::IsTerminal;

use crate::request::CALLS;
use clap::{CommandFactory, Parser, Subcommand};

/// Mounts and unmounts a pod's volumes: a FlexVolume driver.
#[derive(Debug, Parser)]
#[command(name = "nodeplug-flexvolume", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Whether a person is calling: by a flag or a command's name, or by nothing at all on a terminal.
/// Everything else is a call of the protocol, known or not.
pub fn is_wanted() -> bool {
    let Some(word) = std::env::args_os().nth(1) else { return std::io::stdout().is_terminal() };
    let word = word.to_string_lossy();
    // The kubelet's words first: it is the one that has no time.
    if CALLS.contains(&word.as_ref()) {
        return false;
    }
    let flags = ["-h", "--help", "help", "-V", "--version"];
    flags.contains(&word.as_ref()) || Cli::command().get_subcommands().any(|c| c.get_name() == word)
}

/// Runs the command; the exit code.
pub fn main() -> c_int {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "nodeplug-flexvolume",
                &mut std::io::stdout(),
            );
            0
        }
    }
}
