//! `bench [cni|cni-chain|node|flexvolume|device-plugin] [--rounds N] [--json] [--only GROUP]`: the speed and the
//! memory of the programs beside those that people use now, and beside the bare work of the kernel, on
//! throw-away nodes.
//!
//! Calls are made in turns (theirs, ours, floor, in rotating order), so that a slow moment of the machine
//! meets all of them; a ratio is that of the medians.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark stops at the first surprise, and prints a table"
)]

mod cni;
mod cni_chain;
mod device_plugin;
mod flexvolume;
mod node;
mod volumes;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use harness::call::Launch;
use harness::container_node::EndOfAll;
use harness::measure::{Row, Sample, once};
use nix::sys::wait::{WaitPidFlag, waitpid};
use serde_json::Value;

/// Rounds before the measured ones: page cache, first-use tables, the bridge.
const WARM_UP: usize = 10;
/// A moment of rest after every call that takes something away.
const REST: Duration = Duration::from_millis(5);

/// A group of rows, by a name that `--only` takes.
type Group = (&'static str, fn(usize) -> Vec<Row>);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| words.iter().position(|w| w == flag).and_then(|at| words.get(at + 1));
    let rounds = after("--rounds").map_or(Some(200), |n| n.parse().ok());
    let program = words.first().map(String::as_str).filter(|w| !w.starts_with("--"));
    let groups = match program {
        None => every(),
        Some("cni") => cni::GROUPS.to_vec(),
        Some("cni-chain") => cni_chain::GROUPS.to_vec(),
        Some("node") => node::GROUPS.to_vec(),
        Some("flexvolume") => flexvolume::GROUPS.to_vec(),
        Some("device-plugin") => device_plugin::GROUPS.to_vec(),
        Some(_) => Vec::new(),
    };
    let only = after("--only");
    let chosen: Vec<&Group> = groups.iter().filter(|(name, _)| only.is_none_or(|o| o == name)).collect();
    let (Some(rounds), false) = (rounds, chosen.is_empty()) else {
        return usage();
    };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("run as root: the benchmark makes namespaces");
        return ExitCode::from(2);
    }
    nix::sys::prctl::set_child_subreaper(true).expect("become the reaper of orphans");
    let end = EndOfAll;
    let rows: Vec<Row> = chosen.iter().flat_map(|(_, run)| run(rounds)).collect();
    drop(end);
    print(&rows, words.iter().any(|w| w == "--json"));
    ExitCode::SUCCESS
}

fn every() -> Vec<Group> {
    let programs: [&[Group]; 5] =
        [&cni::GROUPS, &cni_chain::GROUPS, &node::GROUPS, &flexvolume::GROUPS, &device_plugin::GROUPS];
    programs.concat()
}

fn usage() -> ExitCode {
    let names = |groups: &[Group]| groups.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("|");
    eprintln!(
        "usage: bench [cni|cni-chain|node|flexvolume|device-plugin] [--rounds N] [--json] [--only GROUP]"
    );
    eprintln!("GROUP of cni: {}", names(&cni::GROUPS));
    eprintln!("GROUP of cni-chain: {}", names(&cni_chain::GROUPS));
    eprintln!("GROUP of node: {}", names(&node::GROUPS));
    eprintln!("GROUP of flexvolume: {}", names(&flexvolume::GROUPS));
    eprintln!("GROUP of device-plugin: {}", names(&device_plugin::GROUPS));
    ExitCode::from(2)
}

fn print(rows: &[Row], json: bool) {
    if json {
        println!("{:#}", Value::Array(rows.iter().map(Row::json).collect()));
    } else {
        println!(
            "| measure | bar | value | held | medians; p10 to p90 of the pairs, or the spread |\n|---|---|---|---|---|"
        );
        for row in rows {
            println!("{}", row.line());
        }
    }
    let missed = rows.iter().filter(|row| !row.held()).count();
    eprintln!("{} bars held, {missed} not", rows.len() - missed);
}

/// Waits for the children that calls left behind: what they wait for in the kernel is charged neither to the
/// next call nor shared with it. They are ours to wait for, because `main` made this process their reaper.
fn settle() {
    while waitpid(None, Some(WaitPidFlag::__WALL)).is_ok() {}
    thread::sleep(REST);
}

/// Makes the calls at the same time, and tells each one's cost when all have ended.
fn all_at_once(calls: &[impl Launch + Sync]) -> Vec<Sample> {
    thread::scope(|scope| {
        let running: Vec<_> = calls.iter().map(|call| scope.spawn(|| once(call).0)).collect();
        running.into_iter().map(|r| r.join().expect("a concurrent call")).collect()
    })
}
