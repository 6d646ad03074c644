//! What a person may ask the program for. A runtime never comes here: it sets `CNI_COMMAND`.

pub mod bounded;
pub mod dry_run;
pub mod install;
pub mod ipam;
pub mod repair;
pub mod trace;
pub mod validate;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use node::{Context, Error, Kind, Result};
use serde_json::Value;

use crate::{doctor, render};

const EXAMPLE: &str = "\
Examples:
  nodeplug-cni doctor
  nodeplug-cni validate /etc/cni/net.d/10-pods.conflist
  nodeplug-cni dry-run /etc/cni/net.d/10-pods.conflist
  nodeplug-cni ipam list
  nodeplug-cni ipam check --fix
  nodeplug-cni repair
  nodeplug-cni trace default/web --since 1h
  nodeplug-cni install --pod-cidr 10.244.1.0/24

A container runtime runs this program with CNI_COMMAND set and the network's configuration on stdin.
`install` puts it where the runtime looks, and makes a network like this one:
  {\"cniVersion\": \"1.0.0\", \"name\": \"pods\", \"plugins\": [{\"type\": \"nodeplug-cni\", \"ipMasq\": true,
    \"ipam\": {\"type\": \"host-local\", \"ranges\": [[{\"subnet\": \"10.88.0.0/16\"}]]}}]}

Exit codes: 0 fine, 1 a problem was found or the command went wrong, 2 wrong arguments.";

const DOCTOR: &str = "\
Example, on the node, and from a container that has the node's root at /host:
  nodeplug-cni doctor
  nodeplug-cni doctor --root /host -o json

Exit codes: 0 fine or warnings alone, 1 a problem, 2 wrong arguments.";

const FINE: i32 = 0;
const PROBLEM: i32 = 1;

/// A pod's network in one process: CNI plugin for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(name = "nodeplug-cni", version, after_help = EXAMPLE)]
struct Arguments {
    /// How answers are printed.
    #[arg(long, short, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    /// Print the plan of the ADD that CNI_* and stdin describe, and do none of it.
    #[arg(long)]
    dry_run: bool,
    #[command(subcommand)]
    command: Option<Command>,
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
    /// Check a conflist: every mistake with its place and what to do. Of a list of the reference's plugins, what
    /// would be refused under their names.
    Validate {
        /// The file, usually below /etc/cni/net.d.
        conflist: PathBuf,
    },
    /// Print the plan of an ADD for a pod of this conflist, and do none of it.
    DryRun {
        /// The file, usually below /etc/cni/net.d.
        conflist: PathBuf,
        /// The pod's interface.
        #[arg(long, default_value = "eth0")]
        ifname: String,
        /// The container id to plan for.
        #[arg(long, default_value = "dry-run")]
        container_id: String,
    },
    /// Look at leased addresses.
    Ipam {
        #[command(subcommand)]
        command: ipam::Command,
    },
    /// Look for what keeps pods from their network, and say what to do about it. Changes nothing.
    #[command(after_help = DOCTOR)]
    Doctor {
        /// The node's root folder, where it is mounted elsewhere or not booted; all other paths lie below it.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Put back what nf_tables has to hold for every living pod, after somebody flushed it.
    Repair {
        /// Only say what is missing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print what the log has of a pod, and what is there of it now.
    Trace(trace::Trace),
    /// Put the program into the runtime's folder of plugins, and with `--pod-cidr` make the pods' network.
    Install(Box<install::Install>),
    /// Take network and program out again, and bring back what they replaced.
    Uninstall(install::Uninstall),
    /// Print the error codes and what they mean.
    Codes,
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs a person's command; the answer is the exit code.
pub fn main() -> i32 {
    if std::env::args_os().len() < 2 {
        // The protocol has no word for a call without CNI_COMMAND: say what this is, and that nothing is wrong.
        let about = Arguments::command().render_help().to_string();
        let _ = std::io::stderr().write_all(about.as_bytes());
        return FINE;
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok((text, code)) => {
            print(&text);
            code
        }
        Err(error) => {
            complain(&error);
            PROBLEM
        }
    }
}

fn run(arguments: &Arguments) -> Result<(String, i32)> {
    let json = arguments.output == Output::Json;
    match &arguments.command {
        Some(_) if arguments.dry_run => Err(Error::new(Kind::Usage, "use `--dry-run` beside a command")
            .hint("`dry-run CONFLIST` is a command of its own")),
        None if arguments.dry_run => {
            dry_run::from_environment().map(|plan| said(&plan.to_json(), &plan.to_table(), json))
        }
        None => Err(Error::new(Kind::Usage, "run without a command").hint("see `nodeplug-cni --help`")),
        Some(Command::Validate { conflist }) => {
            let report = validate::validate(&text_of(conflist)?);
            Ok(found(report.is_fine(), said(&report.to_json(), &report.to_table(), json)))
        }
        Some(Command::DryRun { conflist, ifname, container_id }) => {
            let plan = dry_run::from_file(&text_of(conflist)?, container_id, ifname)?;
            Ok(said(&plan.to_json(), &plan.to_table(), json))
        }
        Some(Command::Ipam { command }) => {
            let report = command.run()?;
            Ok(found(report.is_fine(), said(&report.to_json(), &report.to_table(), json)))
        }
        Some(Command::Doctor { root }) => {
            let report = doctor::examine(root.as_deref())?;
            Ok(found(report.is_fine(), said(&report.to_json(), &report.to_table(), json)))
        }
        Some(Command::Repair { dry_run }) => {
            let report = repair::run(*dry_run)?;
            Ok(found(report.is_fine(), said(&report.to_json(), &report.to_table(), json)))
        }
        Some(Command::Trace(trace)) => {
            let report = trace.run()?;
            Ok(found(report.is_fine(), said(&report.to_json(), &report.to_table(), json)))
        }
        Some(Command::Install(wish)) if wish.stay => {
            let print =
                |report: &install::Report| print(&said(&report.to_json(), &report.to_table(), json).0);
            install::stay(wish, &print).map(|()| (String::new(), FINE))
        }
        Some(Command::Install(wish)) => {
            install::install(wish).map(|report| said(&report.to_json(), &report.to_table(), json))
        }
        Some(Command::Uninstall(wish)) => {
            install::uninstall(wish).map(|report| said(&report.to_json(), &report.to_table(), json))
        }
        Some(Command::Codes) => Ok(codes(json)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "nodeplug-cni", &mut script);
            Ok((String::from_utf8_lossy(&script).into_owned(), FINE))
        }
    }
}

/// The answer of a command that looked for problems.
fn found(is_fine: bool, (text, _): (String, i32)) -> (String, i32) {
    (text, if is_fine { FINE } else { PROBLEM })
}

fn codes(json: bool) -> (String, i32) {
    let rows =
        render::CODES.iter().map(|(code, meaning)| serde_json::json!({"code": code, "meaning": meaning}));
    let lines: Vec<String> =
        render::CODES.iter().map(|(code, meaning)| format!("{code:>4}  {meaning}\n")).collect();
    said(&rows.collect(), &lines.concat(), json)
}

fn said(json: &Value, table: &str, as_json: bool) -> (String, i32) {
    (if as_json { render::text(json) } else { table.to_owned() }, FINE)
}

fn text_of(path: &PathBuf) -> Result<String> {
    fs::read_to_string(path).doing(Kind::Io, || format!("read `{}`", path.display()))
}

fn print(text: &str) {
    // A reader that has seen enough (`| head`) closes the pipe: nothing is wrong.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(error: &Error) {
    let _ = std::io::stderr().write_all(error.complaint("nodeplug-cni", false).as_bytes());
}

/// Rows under a heading, columns as wide as their widest cell.
fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(heading.to_vec())).chain(rows).collect()
}
