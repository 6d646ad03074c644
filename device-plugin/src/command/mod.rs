//! The words that the program is run with.

mod columns;
pub mod discover;
pub mod explain;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use node::Result;

use crate::config;

/// Offers a node's devices to the kubelet: device plugin for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(name = "nodeplug-device-plugin", version, arg_required_else_help = true)]
struct Arguments {
    /// How answers are printed.
    #[arg(long, short, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    /// The configuration.
    #[arg(long, short, global = true, default_value = config::PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Offer the resources until SIGTERM.
    Run,
    /// Print the JSON schema of the configuration.
    Schema,
}

/// Reads the arguments and runs the command.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // To stdout where it was asked for (--help), to stderr where it is a mistake.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(&arguments) {
        Ok(code) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(_arguments: &Arguments) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
