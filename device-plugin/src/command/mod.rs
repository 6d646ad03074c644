//! The words that the program is run with.

mod columns;
pub mod discover;
pub mod explain;
mod run;
pub mod validate;
mod wait;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use node::Result;
use serde_json::Value;

use crate::config::{self, Config, ResourceName, Span};
use crate::{doctor, log};

const PROGRAM: &str = "nodeplug-device-plugin";

const EXAMPLE: &str = "\
Examples:
  nodeplug-device-plugin validate
  nodeplug-device-plugin discover
  nodeplug-device-plugin explain example.com/serial
  nodeplug-device-plugin doctor
  nodeplug-device-plugin run

Every USB serial adapter is a device of `example.com/serial`:
  resources:
    - name: example.com/serial
      devices: [{path: {glob: /dev/serial/by-id/*}}]

With `-o json`, a command prints one object on stdout; one that goes wrong prints {\"error\": TEXT, \"hint\": TEXT} on
stderr, `hint` only where there is one.

Exit codes: 0 fine, 1 a problem was found or the command went wrong, 2 wrong arguments.";

const DOCTOR: &str = "\
Example, on the node and in the DaemonSet:
  nodeplug-device-plugin doctor
  kubectl -n kube-system exec POD -- /nodeplug-device-plugin doctor -o json

Exit codes: 0 fine or warnings alone, 1 a problem, 2 wrong arguments.";

/// Offers a node's devices to the kubelet: device plugin for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = EXAMPLE, arg_required_else_help = true)]
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
    Run {
        /// How log lines look.
        #[arg(long, value_enum, default_value_t = log::Shape::Text)]
        log: log::Shape,
        /// Log each step.
        #[arg(long)]
        debug: bool,
    },
    /// Wait until the kubelet listens to resources.
    WaitRegistered {
        /// Which; all that are configured, where none is named.
        resources: Vec<ResourceName>,
        /// How long: 500ms, 30s, 5m.
        #[arg(long, default_value = "60s")]
        timeout: Span,
    },
    /// Look for what keeps devices from pods: folders, sockets, limits, the daemon. Changes nothing.
    #[command(after_help = DOCTOR)]
    Doctor {
        /// The node's root folder, where it is mounted elsewhere; all other paths lie below it.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Check the configuration and say what it offers.
    Validate,
    /// Look for devices now, and say what each resource has and what it passed over.
    Discover {
        /// One resource only.
        resource: Option<ResourceName>,
    },
    /// Say why each thing that came near is a device of a resource, or not.
    Explain {
        /// Which.
        resource: ResourceName,
    },
    /// Print the JSON schema of the configuration.
    Schema,
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
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
        Err(error) => {
            let complaint = error.complaint(PROGRAM, arguments.output == Output::Json);
            let _ = std::io::stderr().write_all(complaint.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let configured = || Config::load(&arguments.config);
    let report = |fine: bool, table: &dyn Fn() -> String, json: &dyn Fn() -> Value| {
        print(&match arguments.output {
            Output::Table => table(),
            Output::Json => format!("{:#}\n", json()),
        });
        if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    };
    Ok(match &arguments.command {
        Command::Run { log, debug } => run::run(&arguments.config, *log, *debug)?,
        Command::WaitRegistered { resources, timeout } => wait::wait(&configured()?, resources, *timeout)?,
        Command::Doctor { root } => {
            if let Some(root) = root {
                node::root::enter(root)?;
            }
            let examined = doctor::examine(&arguments.config);
            report(examined.is_fine(), &|| examined.to_table(), &|| examined.to_json())
        }
        Command::Validate => {
            let verdict = validate::validate(&arguments.config)?;
            report(verdict.is_fine(), &|| verdict.to_table(), &|| verdict.to_json())
        }
        Command::Discover { resource } => {
            let config = configured()?;
            let found = discover::discover(&config, resource.as_ref().map(ResourceName::as_str))?;
            report(found.is_fine(), &|| found.to_table(), &|| found.to_json())
        }
        Command::Explain { resource } => {
            let config = configured()?;
            let explained = explain::explain(&config, resource.as_str())?;
            report(explained.is_fine(), &|| explained.to_text(), &|| explained.to_json())
        }
        Command::Schema => {
            print(config::SCHEMA);
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), PROGRAM, &mut script);
            print(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
    })
}

fn print(text: &str) {
    // A reader that has seen enough (`| head`) closes the pipe: nothing is wrong.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
