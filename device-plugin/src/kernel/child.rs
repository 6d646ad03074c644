//! Runs programs that the configuration names: exact arguments, a bare environment, a deadline.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

/// What a program finds where this process has no PATH.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most that a program can write; a write beyond it fails with EPERM.
const LONGEST_OUTPUT: u64 = 1 << 20;
/// The most of stderr that is of use in a message.
const LONGEST_WORDS: usize = 512;
/// How long a program may take to die of SIGKILL; one that waits for a dead disk does not.
const DYING: Duration = Duration::from_millis(500);
/// How often is looked where the kernel has no pidfd.
const NAP: Duration = Duration::from_millis(2);

/// Programs that were killed and that the kernel does not let go.
static UNENDING: AtomicUsize = AtomicUsize::new(0);
/// With so many of them, no other is started: each holds a thread and a process.
const MOST_UNENDING: usize = 16;

/// What a program did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit code or signal.
    pub(crate) status: ExitStatus,
    /// What it wrote to stdout, at most 1 MiB.
    pub(crate) output: Vec<u8>,
    /// The last line that it wrote to stderr, cut, without control characters.
    pub(crate) words: String,
}

/// Runs the program to its end, in a process group of its own, in the root folder, with `/dev/null` as its
/// input, and `PATH` and `environment` as its environment. At the deadline the whole group is killed.
/// Whatever it started and left behind in its group goes with it. The error says in a person's words why
/// there is no outcome.
pub(crate) fn run(
    run: &[String],
    environment: &[(&str, &str)],
    patience: Duration,
) -> Result<Outcome, String> {
    let Some((program, arguments)) = run.split_first() else { return Err("no program is named".to_owned()) };
    if UNENDING.load(Ordering::Relaxed) >= MOST_UNENDING {
        return Err(format!("`{program}` is not run: {MOST_UNENDING} earlier programs can't be ended"));
    }
    let unstarted = |e: io::Error| format!("`{program}` can't be run: {e}");
    let (output, words) = (file().map_err(unstarted)?, file().map_err(unstarted)?);
    let deadline = Instant::now() + patience;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path()).envs(environment.iter().copied());
    command.current_dir("/").process_group(0).stdin(Stdio::null());
    command.stdout(output.try_clone().map_err(unstarted)?).stderr(words.try_clone().map_err(unstarted)?);
    let mut child = command.spawn().map_err(unstarted)?;
    let in_time = ends_by(&child, deadline);
    // Before its leader is waited for: until then nobody else can have the group's number.
    end(&child);
    if !in_time {
        bury(child);
        let said = told(&words);
        let said = if said.is_empty() { said } else { format!("; it wrote: {said}") };
        return Err(format!("`{program}` took longer than {}{said}", shown(patience)));
    }
    let status = child.wait().map_err(|e| format!("`{program}` can't be waited for: {e}"))?;
    Ok(Outcome { status, output: written(&output), words: told(&words) })
}

/// How a program ended, in words: `ended with 3: no such pool`.
pub(crate) fn ending(outcome: &Outcome) -> String {
    use std::os::unix::process::ExitStatusExt;
    let how = match (outcome.status.code(), outcome.status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    if outcome.words.is_empty() { how } else { format!("{how}: {}", outcome.words) }
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into())
}

fn shown(span: Duration) -> String {
    if span.subsec_millis() == 0 { format!("{}s", span.as_secs()) } else { format!("{}ms", span.as_millis()) }
}

/// A file in memory for what a program writes; it cannot grow without bound. Never a pipe: one that nobody
/// reads stops its writer, and one that a left-over process holds keeps its reader waiting.
fn file() -> io::Result<File> {
    let made: OwnedFd = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&made, LONGEST_OUTPUT)?;
    rustix::fs::fcntl_add_seals(&made, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(made.into())
}

/// All that was written to a [`file()`]. The writers share its offset, so that this is the length.
fn written(file: &File) -> Vec<u8> {
    let length = rustix::fs::seek(file, SeekFrom::Current(0)).unwrap_or(0).min(LONGEST_OUTPUT);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

/// The last line of it.
fn told(file: &File) -> String {
    let bytes = written(file);
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect()
}

fn number(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

/// Whether the child ends until then. It is not waited for yet.
fn ends_by(child: &Child, deadline: Instant) -> bool {
    let pid = number(child);
    let Some(Ok(descriptor)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return ends_by_looking(pid, deadline);
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return ends_by_looking(pid, deadline),
        }
    }
}

/// The same before Linux 5.3, which has no descriptor to wait for.
fn ends_by_looking(pid: Option<Pid>, deadline: Instant) -> bool {
    let Some(pid) = pid else { return true };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(NAP);
    }
    true
}

/// Ends all of the child's group. One that has ended already is no mistake.
fn end(child: &Child) {
    if let Some(pid) = number(child) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Waits for a killed child, so that it leaves no zombie; for one that the kernel does not let go, in a thread.
fn bury(mut child: Child) {
    if ends_by(&child, Instant::now() + DYING) {
        let _ = child.wait();
        return;
    }
    UNENDING.fetch_add(1, Ordering::Relaxed);
    let wait = move || {
        let _ = child.wait();
        UNENDING.fetch_sub(1, Ordering::Relaxed);
    };
    // Where there is no thread either, a zombie stays until this process ends.
    let _ = thread::Builder::new().name("undertaker".to_owned()).spawn(wait);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: u64) -> Result<Outcome, String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, &[("NODEPLUG_DEVICE_ID", "a")], Duration::from_millis(patience))
    }

    #[test]
    fn a_program_has_a_bare_environment() {
        let outcome =
            shell("pwd; env | grep -vE '^(PWD|SHLVL|_|OLDPWD)=' | sed s/=.*// | sort; cat", 10_000).unwrap();
        assert_eq!(String::from_utf8(outcome.output).unwrap(), "/\nNODEPLUG_DEVICE_ID\nPATH\n");
    }

    #[test]
    fn how_it_ended_is_told_with_its_last_words() {
        for (script, expect) in [
            ("exit 0", "ended with 0"),
            ("echo first >&2; printf ' no \\033[1mpool\\n\\n' >&2; exit 3", "ended with 3: no [1mpool"),
            ("kill -9 $$", "ended by signal 9"),
        ] {
            assert_eq!(ending(&shell(script, 10_000).unwrap()), expect);
        }
        let why = run(&["/nonexistent/x".to_owned()], &[], DYING).unwrap_err();
        assert!(why.starts_with("`/nonexistent/x` can't be run: No such file"), "{why}");
        assert!(run(&[], &[], DYING).is_err());
    }

    #[test]
    fn a_program_that_takes_too_long_goes_with_all_that_it_started() {
        let start = Instant::now();
        let why = shell("echo $$ >&2; sleep 300 & sleep 300", 200).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let (told, group) = why.split_once("; it wrote: ").unwrap();
        assert_eq!(told, "`/bin/sh` took longer than 200ms");
        assert_nobody(group);
    }

    #[test]
    fn what_a_program_leaves_behind_goes_with_it_and_nobody_waits_for_it() {
        let start = Instant::now();
        let outcome = shell("sleep 300 & echo $$", 20_000).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_nobody(String::from_utf8(outcome.output).unwrap().trim());
    }

    /// The orphans are reaped by whoever adopted them, at some time.
    fn assert_nobody(group: &str) {
        let group = Pid::from_raw(group.parse().unwrap()).unwrap();
        let alive = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            processes.filter_map(|p| std::fs::read_to_string(p.path().join("stat")).ok()).any(|stat| {
                let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
                fields[0] != "Z" && fields[2] == group.as_raw_nonzero().to_string()
            })
        };
        let end = Instant::now() + Duration::from_secs(5);
        while alive() {
            assert!(Instant::now() < end, "group {group:?} lives");
            thread::sleep(NAP);
        }
    }

    #[test]
    fn an_old_kernel_is_waited_for_by_looking() {
        let mut child = Command::new("sleep").arg("0.1").spawn().unwrap();
        assert!(!ends_by_looking(number(&child), Instant::now()));
        assert!(ends_by_looking(number(&child), Instant::now() + Duration::from_secs(20)));
        assert!(child.wait().unwrap().success(), "it was not waited for before");
    }

    #[test]
    fn output_has_a_largest_size() {
        let outcome = shell("head -c 3000000 /dev/zero; exit 0", 20_000).unwrap();
        assert_eq!(outcome.output.len() as u64, LONGEST_OUTPUT);
    }
}
