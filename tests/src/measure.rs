//! Times a call, and compares series of calls that were made in turns.

use std::io::{PipeReader, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::call::Launch;
use crate::kernel::usage;

/// What one call cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// From the spawn to the exit and the end of both pipes.
    pub wall: Duration,
    /// User and system time of the process and of the children that it waited for.
    pub cpu: Duration,
}

/// Makes a call that must succeed, and tells its cost and its answer.
pub fn once(call: &impl Launch) -> (Sample, Value) {
    let (sample, answer) = attempt(call);
    (sample, answer.unwrap_or_else(|said| panic!("{said}")))
}

/// Makes a call, and tells its cost and its answer; where it fails, what it said.
pub fn attempt(call: &impl Launch) -> (Sample, Result<Value, String>) {
    let mut command = call.command();
    command.stdin(if call.input().is_some() { Stdio::piped() } else { Stdio::null() });
    let streams = streams(&mut command, call.one_stream());
    let start = Instant::now();
    #[expect(clippy::zombie_processes, reason = "waited for below, with its cost")]
    let mut child = command.spawn().expect("spawn the program");
    let program = command.get_program().to_owned();
    // The command holds the pipes' other ends.
    drop(command);
    give(child.stdin.take(), call.input());
    let said = streams.map(|stream| stream.map(read).unwrap_or_default());
    let usage = usage::wait(child.id()).expect("wait for the program");
    let wall = start.elapsed();
    let sample = Sample { wall, cpu: usage.cpu };
    if usage.exit != 0 {
        return (sample, Err(format!("{}: exit {}: {}", program.display(), usage.exit, said.concat())));
    }
    (sample, Ok(serde_json::from_str(&said[0]).unwrap_or(Value::Null)))
}

/// Standard output and standard error; the latter only where it is a stream of its own.
fn streams(command: &mut Command, one: bool) -> [Option<PipeReader>; 2] {
    let (out, end) = std::io::pipe().expect("make a pipe");
    if one {
        command.stdout(end.try_clone().expect("a second descriptor")).stderr(end);
        return [Some(out), None];
    }
    command.stdout(end);
    let (err, end) = std::io::pipe().expect("make a pipe");
    command.stderr(end);
    [Some(out), Some(err)]
}

fn give(pipe: Option<ChildStdin>, input: Option<&[u8]>) {
    if let (Some(mut pipe), Some(input)) = (pipe, input) {
        pipe.write_all(input).expect("write the input");
    }
}

fn read(mut stream: PipeReader) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read what is said");
    text
}

/// Samples of one kind of call, in the order of the rounds.
#[derive(Debug, Default, Clone)]
pub struct Series {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Series {
    /// Adds the next round's.
    pub fn push(&mut self, sample: Sample) {
        self.wall.push(sample.wall.as_secs_f64() * 1000.0);
        self.cpu.push(sample.cpu.as_secs_f64() * 1000.0);
    }

    /// What a round of this and the same round of the other cost together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let sums = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        Self { wall: sums(&self.wall, &other.wall), cpu: sums(&self.cpu, &other.cpu) }
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Wall time.
    Wall,
    /// CPU time.
    Cpu,
}

impl Measure {
    fn of(self, series: &Series) -> &[f64] {
        match self {
            Self::Wall => &series.wall,
            Self::Cpu => &series.cpu,
        }
    }
}

/// On which side of its bar a value is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The bar is the most that it may be.
    Below,
    /// The bar is the least that it has to be.
    Above,
}

/// One line of the table: a value, its bar, and whether it holds.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What it is held against.
    pub bar: f64,
    /// Where it is to be.
    pub side: Side,
    /// What it is.
    pub value: f64,
    /// What the value is made of.
    pub detail: String,
}

impl Row {
    /// The ratio of the medians of two series, with the 10th and the 90th percentile of the ratios of
    /// their pairs.
    pub fn ratio(what: &str, measure: Measure, bar: f64, ours: &Series, theirs: &Series) -> Self {
        let (a, b) = (measure.of(ours), measure.of(theirs));
        let pairs: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b.max(1e-9)).collect();
        let (one, other) = (percentile(a, 0.5), percentile(b, 0.5));
        let name = if measure == Measure::Wall { "wall" } else { "CPU" };
        let (low, high) = (percentile(&pairs, 0.1), percentile(&pairs, 0.9));
        let detail = format!("{one:.2} / {other:.2} ms; pairs {low:.3} to {high:.3}");
        Self { what: format!("{what}: {name}"), bar, side: Side::Below, value: one / other.max(1e-9), detail }
    }

    /// A value that may be no more than its bar.
    pub fn most(what: String, bar: f64, value: f64, detail: String) -> Self {
        Self { what, bar, side: Side::Below, value, detail }
    }

    /// A value that may be no less than its bar.
    pub fn least(what: String, bar: f64, value: f64, detail: String) -> Self {
        Self { what, bar, side: Side::Above, value, detail }
    }

    /// Whether the value is on its side of the bar.
    pub fn held(&self) -> bool {
        match self.side {
            Side::Below => self.value <= self.bar,
            Side::Above => self.value >= self.bar,
        }
    }

    /// The row of a Markdown table.
    pub fn line(&self) -> String {
        let held = if self.held() { "yes" } else { "NO" };
        let number = |n: f64| if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.3}") };
        let (bar, value) = (number(self.bar), number(self.value));
        let than = if self.side == Side::Above { "≥ " } else { "" };
        format!("| {} | {than}{bar} | {value} | {held} | {} |", self.what, self.detail)
    }

    /// The row as JSON.
    pub fn json(&self) -> Value {
        let Self { what, bar, value, detail, .. } = self;
        let least = self.side == Side::Above;
        json!({"measure": what, "bar": bar, "least": least, "value": value, "held": self.held(), "detail": detail})
    }
}

/// The value below which this part of the values lies.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = (last as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_series_are_added_round_by_round() {
        let series = |walls: [u64; 2]| {
            let mut series = Series::default();
            for wall in walls {
                series.push(Sample { wall: Duration::from_millis(wall), cpu: Duration::ZERO });
            }
            series
        };
        let (mounts, unmounts, both) = (series([1, 2]), series([3, 5]), series([4, 7]));
        assert_eq!(mounts.and(&unmounts).wall, both.wall);
    }

    #[test]
    fn a_percentile_is_a_value_of_the_series() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!((percentile(&values, 0.5) - 3.0).abs() < 1e-9);
        assert!((percentile(&values, 0.0) - 1.0).abs() < 1e-9);
        assert!((percentile(&values, 1.0) - 5.0).abs() < 1e-9);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
