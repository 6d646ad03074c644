//! What a process does about itself: its arguments, descriptors, core dumps, and how it waits for
//! another one.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, getppid};
use node::{Context, Kind, Result};
use rustix::event::Timespec;
use rustix::process::{PidfdFlags, pidfd_open};
use zeroize::{Zeroize, Zeroizing};

/// The first number for the answer's descriptor: below lie the three standard ones and room for a
/// program that takes low numbers for its own.
const ABOVE_STANDARD: RawFd = 10;
/// The lowest number that it may have.
const BEHIND_STANDARD: RawFd = 3;
/// The number of descriptors that a kernel without close_range(2) is asked about one by one.
const USUAL_DESCRIPTORS: RawFd = 1024;

/// Keeps the secrets that pass through this process inside it: no core dump, no other process of the
/// same user in its memory (prctl(2), `PR_SET_DUMPABLE`), no file that others may read. A program that
/// is exec'd later is dumpable again, but inherits the limit of no core file.
pub fn harden() {
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    umask(Mode::from_bits_truncate(0o077));
}

/// Whether this process may take what is reserved for root, which growing a mounted ext4 counts as
/// (CAP_SYS_RESOURCE, capabilities(7)). Where that cannot be told, the kernel will say it.
pub fn may_use_reserved() -> bool {
    rustix::thread::capabilities(None)
        .map_or(true, |sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE))
}

/// A copy of the one argument at `index` that `main` was given. The standard library's list would copy all of
/// them, with the secrets in one, into memory that nobody clears.
#[allow(clippy::not_unsafe_ptr_arg_deref, reason = "main has the two from the C library as they are")]
pub fn word(count: c_int, argv: *const *const c_char, index: usize) -> Option<OsString> {
    let count = if argv.is_null() { 0 } else { usize::try_from(count).unwrap_or(0) };
    if index >= count {
        return None;
    }
    // SAFETY: the C library hands main that many pointers.
    let start = unsafe { *argv.add(index) };
    // SAFETY: one that is not null points to a string that ends with a zero and lives as long as the process.
    (!start.is_null()).then(|| OsStr::from_bytes(unsafe { CStr::from_ptr(start) }.to_bytes()).to_owned())
}

/// The program's arguments, zeroized when they are dropped.
pub struct Arguments {
    words: Vec<Zeroizing<Vec<u8>>>,
}

impl Arguments {
    /// Copies the arguments that the C library gave `main`, and at once overwrites those that may hold
    /// a volume's options, so that `/proc/PID/cmdline`, which everybody can read, shows the secrets in
    /// them for no longer than the program's start takes. What stays readable is the program's name,
    /// the verb and paths: they begin with a `/`, which no JSON does. `std::env::args` sees the
    /// overwritten words, too.
    #[allow(clippy::not_unsafe_ptr_arg_deref, reason = "main has the two from the C library as they are")]
    pub fn take(count: c_int, argv: *const *const c_char) -> Self {
        let count = if argv.is_null() { 0 } else { usize::try_from(count).unwrap_or(0) };
        let mut words = Vec::with_capacity(count);
        for index in 0..count {
            // SAFETY: the C library hands main that many pointers.
            let start = unsafe { *argv.add(index) };
            if start.is_null() {
                break;
            }
            // SAFETY: each points to a string that ends with a zero and lives as long as the process.
            let length = unsafe { CStr::from_ptr(start) }.to_bytes().len();
            // SAFETY: the kernel put the strings onto the writable part of the stack (execve(2)), and
            // main's only thread has no other reference to them.
            let word = unsafe { std::slice::from_raw_parts_mut(start.cast_mut().cast::<u8>(), length) };
            words.push(Zeroizing::new(word.to_vec()));
            if may_hold_a_secret(index, word) {
                word.zeroize();
            }
        }
        Self { words }
    }

    /// The argument at `index`; 0 is the program's name.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.words.get(index).map(|w| w.as_slice())
    }

    /// How many there are, with the program's name.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether the caller gave not even a name.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// All of them, the program's name first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.words.iter().map(|w| w.as_slice())
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arguments({} words)", self.words.len())
    }
}

fn may_hold_a_secret(index: usize, word: &[u8]) -> bool {
    index > 0 && (word.contains(&b'{') || (index > 1 && word.first() != Some(&b'/')))
}

/// Moves the descriptor of the answer out of everybody's way and points stdout and stderr at
/// `/dev/null`, so that no library and no child can spoil the one line. The kubelet reads one pipe for
/// both until every holder has closed it. After an error stdout is what it was.
pub fn silence() -> Result<OwnedFd> {
    let doing = || "set the answer's descriptor aside".to_owned();
    let stdout = io::stdout();
    let answer = rustix::io::fcntl_dupfd_cloexec(&stdout, ABOVE_STANDARD)
        // A limit of ten descriptors has no eleventh.
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(&stdout, BEHIND_STANDARD))
        .doing(Kind::Io, doing)?;
    let null = OpenOptions::new().write(true).open("/dev/null").doing(Kind::Io, doing)?;
    dup2_stderr(&null).doing(Kind::Io, doing)?;
    dup2_stdout(&null).doing(Kind::Io, doing)?;
    Ok(answer)
}

/// Ties the life of this child to `parent`, which made it: it is killed when the parent ends.
pub(crate) fn follow(parent: Pid) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before it was asked for.
    if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
}

/// Lets the program that this child is about to exec have `keep` under the same numbers, and nothing
/// else but the standard three.
pub(crate) fn hand_on(keep: &[RawFd]) -> io::Result<()> {
    if close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC).is_err() {
        for number in 3..USUAL_DESCRIPTORS {
            close_on_exec(number, true);
        }
    }
    for number in keep {
        if !close_on_exec(*number, false) {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Closes every descriptor of this child but the standard three and `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    close_all(&all_but(keep));
}

/// The numbers of descriptors that are neither standard nor in `keep`, as the first and the last of each row.
pub(crate) fn all_but(keep: &[RawFd]) -> Vec<(RawFd, RawFd)> {
    let mut kept: Vec<RawFd> = keep.iter().copied().filter(|n| *n > 2).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    let mut rows = Vec::with_capacity(kept.len() + 1);
    for number in kept.into_iter().chain([RawFd::MAX]) {
        rows.extend((first < number).then(|| (first, number - 1)));
        first = number.saturating_add(1);
    }
    rows
}

/// Closes the descriptors of this child in these rows. Takes no memory: a child that shares its parent's may do it.
pub(crate) fn close_all(rows: &[(RawFd, RawFd)]) {
    for (first, last) in rows.iter().copied() {
        if close_range(first, last, 0).is_err() {
            close_each(first, last.min(USUAL_DESCRIPTORS - 1));
        }
    }
}

fn close_each(first: RawFd, last: RawFd) {
    for number in first..=last {
        // SAFETY: the child that this runs in uses none of them, and drops no owner of one.
        unsafe { libc::close(number) };
    }
}

/// close_range(2), since Linux 5.9, its flag since 5.11. The C libraries of static builds lack it.
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes three numbers; the callers are children that use none of the descriptors.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn close_on_exec(number: RawFd, close: bool) -> bool {
    let flag = if close { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: the request takes and sets a number; a descriptor that is not open is an error.
    unsafe { libc::fcntl(number, libc::F_SETFD, flag) == 0 }
}

/// Waits until the child has ended or `deadline` is there; whether it has ended. The child is still to
/// be reaped.
pub(crate) fn ends_by(child: Pid, deadline: Instant) -> bool {
    let known = rustix::process::Pid::from_raw(child.as_raw());
    if let Some(Ok(descriptor)) = known.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        return readable_by(&[descriptor.as_fd()], deadline);
    }
    // Before Linux 5.3 there is no descriptor to wait for.
    while !has_ended(child) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

fn has_ended(child: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(child), flags), Ok(WaitStatus::StillAlive))
}

/// Waits until one of the descriptors can be read (or was hung up) or `deadline` is there.
pub(crate) fn readable_by(descriptors: &[BorrowedFd<'_>], deadline: Instant) -> bool {
    loop {
        let mut asked: Vec<_> = descriptors
            .iter()
            .map(|d| rustix::event::PollFd::from_borrowed_fd(*d, rustix::event::PollFlags::IN))
            .collect();
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match rustix::event::poll(&mut asked, Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as `main` gets them: strings that end with a zero, in memory that may be written.
    fn take(words: &[&str]) -> (Arguments, Vec<String>) {
        let mut memory: Vec<Vec<u8>> = words.iter().map(|w| format!("{w}\0").into_bytes()).collect();
        let mut pointers: Vec<*const c_char> =
            memory.iter_mut().map(|w| w.as_mut_ptr().cast_const().cast()).collect();
        pointers.push(std::ptr::null());
        let taken = Arguments::take(c_int::try_from(words.len()).unwrap(), pointers.as_ptr());
        (taken, memory.iter().map(|w| String::from_utf8(w.clone()).unwrap().replace('\0', "")).collect())
    }

    #[test]
    fn options_are_copied_and_overwritten_and_paths_stay() {
        let cases: [(&[&str], &[&str]); 6] = [
            (&["/p/volume", "init"], &["/p/volume", "init"]),
            (&["/p/volume", "mount", "/t", r#"{"k":"v"}"#], &["/p/volume", "mount", "/t", ""]),
            (&["/p/volume", r#"{"k":"v"}"#], &["/p/volume", ""]),
            (&["/p/volume", "isattached", r#"{"k":"v"}"#, "node"], &["/p/volume", "isattached", "", ""]),
            (&["/p/volume", "mount", "/t", "\"kubernetes.io/secret/p"], &["/p/volume", "mount", "/t", ""]),
            (&[], &[]),
        ];
        for (words, left) in cases {
            let (taken, memory) = take(words);
            assert_eq!(memory, left);
            assert_eq!(taken.len(), words.len());
            assert!(taken.iter().eq(words.iter().map(|w| w.as_bytes())));
            assert_eq!(taken.get(words.len()), None);
        }
    }

    #[test]
    fn arguments_print_their_number_and_no_word() {
        assert_eq!(format!("{:?}", take(&["a", "hunter2"]).0), "Arguments(2 words)");
    }

    #[test]
    fn what_a_child_closes_is_all_between_what_it_keeps() {
        let last = RawFd::MAX - 1;
        let table = [
            (&[][..], &[(3, last)][..]),
            (&[3, 4], &[(5, last)]),
            (&[9, 1, 5, 5], &[(3, 4), (6, 8), (10, last)]),
            (&[3, last], &[(4, last - 1)]),
        ];
        for (keep, rows) in table {
            assert_eq!(all_but(keep), rows, "{keep:?}");
        }
    }

    #[test]
    fn no_arguments_at_all_are_none() {
        assert!(Arguments::take(0, std::ptr::null()).is_empty());
    }
}
