//! FUSE daemons: started in a session and cgroup of their own, found again by their volume.
//!
//! A daemon outlives this process and the kubelet. systemd ends a service by the cgroup that it tracks
//! it in, so the daemon leaves the kubelet's: the unified hierarchy, and version 1's `name=systemd`
//! (cgroups(7)). Version 1's controllers end nobody; there the daemon stays under whatever limits the
//! kubelet's own service has.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, fork, getpid, setsid,
};
use node::{Context, Error, Kind, Result};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::{crash, helper, process, workshop};

/// The environment variable that marks a volume's daemon.
const MARK: &str = "NODEPLUG_VOLUME";
/// The cgroup below which each volume has one.
const GROUP: &str = "nodeplug-flexvolume";
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
            let tied_to_kubelet = place(spec.volume, child).err();
            let refused = open_gate(&mut gate);
            if let Err(error) = refused {
                let _ = kill(child, Signal::SIGKILL);
                let _ = process::ends_by(child, Instant::now() + DYING);
                let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
                remove_groups(spec.volume);
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

    /// Waits until `ready`, which must not hang (see [`workshop::apart`]), says so. Ends early when the
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
    let mut members: Vec<i32> = groups(volume).iter().flat_map(|folder| members(folder)).collect();
    if members.is_empty() {
        members = marked(volume);
    }
    members.sort_unstable();
    members.dedup();
    members
}

/// Ends the volume's daemons, asked first and killed after `grace`, and removes their cgroup. Without
/// any it is done. One that the kernel does not let end is [`Kind::TryAgain`].
pub fn stop(volume: &str, grace: Duration) -> Result<()> {
    if !end_all(volume, Signal::SIGTERM, grace) && !end_all(volume, Signal::SIGKILL, DYING) {
        let left: Vec<String> = find(volume).iter().map(ToString::to_string).collect();
        let how = format!("the kernel does not let it end: process {}", left.join(", "));
        return Err(Error::caused(Kind::TryAgain, "end the volume's daemon", how));
    }
    remove_groups(volume);
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

/// Moves the process into the volume's cgroup in every hierarchy by which systemd ends services; says
/// what did not work.
fn place(volume: &str, child: Pid) -> std::result::Result<(), String> {
    let folders = groups(volume);
    if folders.is_empty() {
        return Err("no cgroup hierarchy is mounted".to_owned());
    }
    let join = |folder: &Path| -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("cgroup.procs"), child.to_string())
    };
    let mut problems = Vec::new();
    for folder in folders {
        // Another volume's end may remove the folder above between the two.
        if let Err(e) = join(&folder).or_else(|_| join(&folder)) {
            problems.push(format!("`{}`: {e}", folder.display()));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// The volume's cgroups, there or not.
fn groups(volume: &str) -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    hierarchies(&mountinfo).into_iter().map(|root| root.join(GROUP).join(volume)).collect()
}

/// Where the hierarchies are mounted by which systemd tracks services: version 2's, and version 1's
/// without a controller (proc_pid_mountinfo(5)).
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let mut found: Vec<(&str, PathBuf)> = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let mut kind = kind.split(' ');
        let (Some(name), Some(options)) = (kind.next(), kind.nth(1)) else { continue };
        let tracks =
            name == "cgroup2" || (name == "cgroup" && options.split(',').any(|o| o == "name=systemd"));
        let Some(point) = place.split(' ').nth(4) else { continue };
        if tracks && found.iter().all(|(known, _)| *known != name) {
            found.push((name, PathBuf::from(point)));
        }
    }
    found.into_iter().map(|(_, point)| point).collect()
}

fn members(group: &Path) -> Vec<i32> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// The processes with the volume's mark. In a child: reading a process's environment waits for its
/// memory map, which another thread of it may hold for as long as a dead server does not answer.
fn marked(volume: &str) -> Vec<i32> {
    let search = || {
        let found = processes().filter(|pid| is_ours(*pid) && has_mark(*pid, volume));
        Ok(found.flat_map(i32::to_ne_bytes).collect())
    };
    let bytes = workshop::apart(Instant::now() + DYING, &[], search).unwrap_or_default();
    bytes.chunks_exact(4).filter_map(|c| c.try_into().ok()).map(i32::from_ne_bytes).collect()
}

/// The numbers of all processes.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_ours(pid: i32) -> bool {
    let own = fs::read_link("/proc/self/ns/pid").ok();
    own.is_some() && fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == own
}

fn has_mark(pid: i32, volume: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = format!("{MARK}={volume}");
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

/// Sends the signal to each and waits until none is left; whether none is.
fn end_all(volume: &str, signal: Signal, wait: Duration) -> bool {
    let deadline = Instant::now() + wait;
    let mut nap = NAPS.0;
    let mut told = Vec::new();
    loop {
        let here = find(volume);
        if here.is_empty() {
            return true;
        }
        for pid in here.iter().filter(|pid| !told.contains(*pid)) {
            send(*pid, volume, signal);
        }
        told = here;
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(nap);
        nap = (nap * 2).min(NAPS.1);
        for pid in &told {
            // One that this very call started is its child, and must be reaped.
            let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Signals the process that has the number while it is held, and only when that still is the volume's.
fn send(pid: i32, volume: &str, signal: Signal) {
    let Some(number) = rustix::process::Pid::from_raw(pid) else { return };
    let held = pidfd_open(number, PidfdFlags::empty());
    if !find(volume).contains(&pid) {
        return;
    }
    let raw =
        if signal == Signal::SIGKILL { rustix::process::Signal::KILL } else { rustix::process::Signal::TERM };
    let _ = match held {
        Ok(held) => pidfd_send_signal(held, raw),
        // Before Linux 5.3.
        Err(rustix::io::Errno::NOSYS) => rustix::process::kill_process(number, raw),
        Err(gone) => Err(gone),
    };
}

/// Removes the volume's empty cgroups, and the one above them with the last volume.
fn remove_groups(volume: &str) {
    for folder in groups(volume) {
        let deadline = Instant::now() + DYING;
        // The last process leaves its cgroup a moment after it has ended.
        while fs::remove_dir(&folder).is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY)) {
            if Instant::now() >= deadline {
                break;
            }
            thread::sleep(NAPS.0);
        }
        let _ = folder.parent().map(fs::remove_dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchies_are_those_that_systemd_ends_services_by() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            90 31 0:38 / /mnt/again rw,relatime - cgroup2 cgroup2 rw\n";
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let cases: [(&str, &[&str]); 4] = [
            (hybrid, &["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]),
            (unified, &["/sys/fs/cgroup"]),
            ("", &[]),
            ("a line of something else\n1 - cgroup2\n", &[]),
        ];
        for (mountinfo, expect) in cases {
            assert_eq!(hierarchies(mountinfo), expect.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_process_has_a_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_of(own).unwrap() > 0);
        assert_eq!(start_of(own), start_of(own));
        assert_eq!(start_of(-1), None);
    }
}
