//! FUSE daemons: started in a session and cgroup of their own, found again by their volume.
//!
//! A daemon outlives this process and the kubelet. systemd ends a service by the cgroup that it tracks
//! it in, so the daemon leaves the kubelet's: the unified hierarchy, and version 1's `name=systemd`
//! (cgroups(7)). Version 1's controllers end nobody; there the daemon stays under whatever limits the
//! kubelet's own service has.

mod group;

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, fork, getpid, setsid,
};
use node::{Context, Error, Kind, Result};

use super::{crash, helper, process};

use group::Group;
pub(crate) use group::processes;

/// The environment variable that marks a volume's daemon.
const MARK: &str = "NODEPLUG_VOLUME";
/// How long an exec may take; the program may lie on a slow disk.
const STARTING: Duration = Duration::from_secs(10);
/// How long a killed daemon may take to end, and a search through all processes may take.
const DYING: Duration = Duration::from_secs(2);
/// How long to sleep between two looks: from the first to the longest.
const NAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What to start.
pub struct Spec<'a> {
    /// The volume's id: 32 hexadecimal digits.
    pub volume: &'a str,
    /// The program's absolute path.
    pub program: &'a Path,
    /// Its arguments without its own name, by the number of the process that it will be, so that a kept
    /// descriptor can be named `/proc/PID/fd/N`. They are public: no secret.
    pub arguments: &'a dyn Fn(i32) -> Vec<OsString>,
    /// What is added to `PATH`, `LC_ALL` and the volume's mark, by the same number. It is as good as
    /// public: no secret.
    pub environment: &'a dyn Fn(i32) -> Vec<(String, String)>,
    /// The descriptors that it gets under the same numbers. Never a lock: it would be held for as long
    /// as the daemon lives.
    pub keep: &'a [BorrowedFd<'a>],
}

/// A daemon that was started by this process.
#[derive(Debug)]
pub struct Daemon {
    /// The number of the process; when the program puts itself into the background, of the one that
    /// started it.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: with the number, the process's identity
    /// (proc_pid_stat(5), field 22).
    pub started: u64,
    /// Why a restart of the kubelet will end it; `None` where it does not.
    pub tied_to_kubelet: Option<String>,
    program: String,
    volume: String,
    log: OwnedFd,
}

/// Starts the program with `/dev/null` as its input and a file in memory as its output, which holds the
/// first megabyte of what it writes for as long as it lives (`/proc/PID/fd/2`). It waits for its cgroup
/// before the exec, so that no daemon runs unplaced even when this process is killed. A program that
/// cannot be exec'd is [`Kind::Unavailable`].
pub fn start(spec: &Spec<'_>) -> Result<Daemon> {
    let doing = || format!("start `{}`", spec.program.display());
    let log = helper::log_file("daemon-log")?;
    let (mut gate, theirs) = UnixStream::pair().doing(Kind::Io, doing)?;
    // SAFETY: this process has one thread, so the child may call anything; it execs or ends.
    match unsafe { fork() }.doing(Kind::Kernel, doing)? {
        ForkResult::Child => {
            drop(gate);
            become_daemon(spec, theirs, &log)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let group = Group::of(spec.volume);
            let placed = group.as_ref().map_err(ToString::to_string).and_then(|group| group.place(child));
            let tied_to_kubelet = placed.err();
            let refused = open_gate(&mut gate);
            if let Err(error) = refused {
                let _ = kill(child, Signal::SIGKILL);
                let _ = process::ends_by(child, Instant::now() + DYING);
                let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
                let _ = group.map(|group| group.remove());
                return Err(helper::unstarted(spec.program, error));
            }
            let program = spec.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (pid, volume) = (child.as_raw(), spec.volume.to_owned());
            Ok(Daemon { pid, started: start_of(pid).unwrap_or(0), tied_to_kubelet, program, volume, log })
        }
    }
}

impl Daemon {
    /// Says what it wrote, through `redact`, when it has ended. One that has put itself into the
    /// background still runs.
    pub fn check(&self, redact: &dyn Fn(&str) -> String) -> Result<()> {
        let how = match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, 0)) | Err(_) if !find(&self.volume).is_empty() => return Ok(()),
            Ok(WaitStatus::Exited(_, code)) => format!("it exited with code {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("it ended with {signal}"),
            Ok(_) => return Ok(()),
            Err(_) => "it is gone".to_owned(),
        };
        let text = helper::words(&self.log, redact);
        let how = if text.is_empty() { how } else { format!("{how}; it wrote: {text}") };
        Err(Error::caused(Kind::Unavailable, format!("start `{}`", self.program), how))
    }

    /// Waits until `ready`, which must not hang (see `workshop::apart`), says so. Ends early when the
    /// daemon does, with what it wrote; at `deadline` it is [`Kind::TryAgain`].
    pub fn until_ready(
        &self,
        deadline: Instant,
        redact: &dyn Fn(&str) -> String,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let mut nap = NAPS.0;
        while !ready()? {
            self.check(redact)?;
            if Instant::now() >= deadline {
                let text = helper::words(&self.log, redact);
                let how = if text.is_empty() { text } else { format!("; it wrote: {text}") };
                let doing = format!("wait for `{}` to serve the volume", self.program);
                return Err(Error::caused(Kind::TryAgain, doing, format!("no answer in time{how}")));
            }
            thread::sleep(nap);
            nap = (nap * 2).min(NAPS.1);
        }
        Ok(())
    }
}

/// The processes that serve the volume: those in its cgroup, or where that has none (it could not be
/// made), those with its mark in their environment. Only processes of this PID namespace count: a pod
/// may write the mark, too.
pub fn find(volume: &str) -> Vec<i32> {
    Group::of(volume).map(|group| group.find()).unwrap_or_default()
}

/// Ends the volume's daemons, asked first and killed after `grace`, and removes their cgroup. Without
/// any it is done. One that the kernel does not let end is [`Kind::TryAgain`].
pub fn stop(volume: &str, grace: Duration) -> Result<()> {
    let doing = || "end the volume's daemon".to_owned();
    let group = Group::of(volume).doing(Kind::Io, doing)?;
    if !group.end(Signal::SIGTERM, grace) && !group.end(Signal::SIGKILL, DYING) {
        let left: Vec<String> = group.find().iter().map(ToString::to_string).collect();
        let how = format!("the kernel does not let it end: process {}", left.join(", "));
        return Err(Error::caused(Kind::TryAgain, doing(), how));
    }
    group.remove();
    Ok(())
}

/// When the process was started; `None` where there is none (any more).
pub fn start_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and parentheses; the last one ends it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// In the child: waits at the gate, then becomes the program. Its errno goes back through the gate, which
/// the exec closes.
fn become_daemon(spec: &Spec<'_>, mut gate: UnixStream, log: &OwnedFd) -> ! {
    crash::forget();
    // SAFETY: the usual effect installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let keep = spec.keep.iter().map(AsRawFd::as_raw_fd).chain([gate.as_raw_fd(), log.as_raw_fd()]);
    process::close_all_but(&keep.collect::<Vec<RawFd>>());
    let mut go = [0];
    if gate.read_exact(&mut go).is_err() {
        crash::leave(1);
    }
    let error = execute(spec, log).err().and_then(|e| e.raw_os_error()).unwrap_or(libc::EINVAL);
    let _ = gate.write_all(&error.to_ne_bytes());
    crash::leave(1)
}

fn execute(spec: &Spec<'_>, log: &OwnedFd) -> io::Result<()> {
    setsid()?;
    chdir("/")?;
    // Files that a daemon makes for a pod have the modes that the pod asks for.
    umask(Mode::from_bits_truncate(0o022));
    dup2_stdin(fs::File::open("/dev/null")?)?;
    dup2_stdout(log)?;
    dup2_stderr(log)?;
    let keep: Vec<RawFd> = spec.keep.iter().map(AsRawFd::as_raw_fd).collect();
    process::hand_on(&keep)?;
    let program = CString::new(spec.program.as_os_str().as_bytes())?;
    let own = getpid().as_raw();
    let words = (spec.arguments)(own).into_iter().map(|w| CString::new(w.into_vec()));
    let words: Vec<CString> = std::iter::once(Ok(program.clone())).chain(words).collect::<Result<_, _>>()?;
    let given = (spec.environment)(own);
    // A profile may know better than the usual; the mark is ours.
    let usual = helper::ENVIRONMENT.iter().filter(|(name, _)| given.iter().all(|(known, _)| known != name));
    let variables = usual.map(|(name, value)| format!("{name}={value}"));
    let variables = variables.chain(given.iter().map(|(name, value)| format!("{name}={value}")));
    let variables = variables.chain([format!("{MARK}={}", spec.volume)]).map(CString::new);
    execve(&program, &words, &variables.collect::<Result<Vec<_>, _>>()?)?;
    Ok(())
}

/// Lets the child go on, and waits until it has become the program.
fn open_gate(gate: &mut UnixStream) -> io::Result<()> {
    gate.set_read_timeout(Some(STARTING))?;
    gate.write_all(b"!")?;
    let mut errno = [0; 4];
    match gate.read_exact(&mut errno) {
        Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_of(own).unwrap() > 0);
        assert_eq!(start_of(own), start_of(own));
        assert_eq!(start_of(-1), None);
    }
}
