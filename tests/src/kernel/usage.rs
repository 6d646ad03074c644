//! What a finished process cost, by wait4(2).

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// The cost of a process and of the children that it waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// The exit code; -1 where a signal ended it.
    pub exit: i32,
    /// User and system time.
    pub cpu: Duration,
    /// The largest resident set of any of them, in KiB.
    pub max_rss: i64,
}

/// Waits for the child `pid` and tells its cost.
pub fn wait(pid: u32) -> io::Result<Usage> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live, writable values of the types that wait4 fills.
    let done = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid rusage, and wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    let exit = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
    Ok(Usage { exit, cpu: span(usage.ru_utime) + span(usage.ru_stime), max_rss: usage.ru_maxrss })
}

fn span(time: libc::timeval) -> Duration {
    let micros = time.tv_sec * 1_000_000 + time.tv_usec;
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
