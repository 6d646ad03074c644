//! Runs the distribution's helpers: exact arguments, a bare environment, a deadline. And the files in
//! memory that a helper reads its secrets from and writes its words to.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getpid};
use node::{Context, Error, Kind, Result};
use rustix::fs::{MemfdFlags, SealFlags};

use super::{crash, process};

/// What every helper has in its environment, and nothing else but what the caller adds.
pub(crate) const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
/// How long a helper may take to die of SIGKILL; one in state D does not.
const DYING: Duration = Duration::from_secs(1);
/// The most that a helper can write; a write beyond it fails with EPERM.
const LONGEST_OUTPUT: u64 = 1 << 20;
/// The most of it that is of use in a message.
const LONGEST_TEXT: usize = 4 << 10;

/// The Debian package of each program that the driver or a usual profile runs.
const PACKAGES: [(&str, &str); 15] = [
    ("mount.nfs", "nfs-common"),
    ("mount.nfs4", "nfs-common"),
    ("mount.cifs", "cifs-utils"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mke2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_repair", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("sshfs", "sshfs"),
    ("bindfs", "bindfs"),
    ("rclone", "rclone"),
    ("s3fs", "s3fs"),
    ("gocryptfs", "gocryptfs"),
];

/// One run of a program.
pub struct Helper<'a> {
    /// Its absolute path; no shell and no search.
    pub program: &'a Path,
    /// Its arguments, word by word, without its own name. They are public: no secret.
    pub arguments: &'a [OsString],
    /// What is added to `PATH` and `LC_ALL`. It is as good as public: no secret.
    pub environment: &'a [(&'a str, &'a str)],
    /// The descriptors that it gets under the same numbers: the files in memory with its secrets, and
    /// the locks that it keeps if it hangs.
    pub keep: &'a [BorrowedFd<'a>],
    /// The folder that it runs in.
    pub folder: &'a Path,
    /// Until when it may run.
    pub deadline: Instant,
    /// Takes the secrets out of what it wrote, before the text is cut.
    pub redact: &'a dyn Fn(&str) -> String,
}

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code or the signal.
    pub status: ExitStatus,
    /// The end of stdout and stderr, up to 4 KiB, redacted, without control characters.
    pub text: String,
}

impl<'a> Helper<'a> {
    /// A run with nothing but arguments; nothing is redacted.
    pub fn new(program: &'a Path, arguments: &'a [OsString], deadline: Instant) -> Self {
        let redact: &dyn Fn(&str) -> String = &str::to_owned;
        Self { program, arguments, environment: &[], keep: &[], folder: Path::new("/"), deadline, redact }
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }
}

/// Runs the program to its end, in a process group of its own, with `/dev/null` as its input and none
/// of this process's descriptors but those that it may keep. It dies with this process. A program that
/// is not there is [`Kind::Unavailable`]; one that runs into the deadline is killed with what it started
/// and is [`Kind::TryAgain`]. What its status means is the caller's to say.
pub fn run(helper: &Helper<'_>) -> Result<Outcome> {
    let doing = || format!("run `{}`", helper.name());
    let output = log_file("helper-output")?;
    let mut child =
        command(helper, &output).and_then(|mut c| c.spawn()).map_err(|e| unstarted(helper.program, e))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    if process::ends_by(pid, helper.deadline) {
        let status = child.wait().doing(Kind::Io, doing)?;
        return Ok(Outcome { status, text: words(&output, helper.redact) });
    }
    Err(overdue(helper, &mut child, pid, &output))
}

/// A file in memory with `content` as it is (no newline is added), that nobody can change, readable
/// from its start. The descriptor is closed on exec unless the program is to keep it, and is named
/// there as `/proc/self/fd/N`. `name` is only shown in listings of descriptors.
pub fn memory_file(name: &str, content: &[u8]) -> Result<OwnedFd> {
    let doing = || format!("write `{name}` into memory");
    let mut file = File::from(memfd(name).doing(Kind::Io, doing)?);
    let put = |file: &mut File| -> io::Result<()> {
        file.write_all(content)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&*file, seals)?;
        file.rewind()
    };
    put(&mut file).doing(Kind::Io, doing)?;
    Ok(file.into())
}

/// A file in memory for what a program writes; it cannot grow without bound. Never a pipe: one that
/// nobody reads stops its writer, and one that a daemon holds keeps its reader waiting.
pub(crate) fn log_file(name: &str) -> Result<OwnedFd> {
    let doing = || "make a file in memory for a helper's output".to_owned();
    let file = memfd(name).doing(Kind::Io, doing)?;
    rustix::fs::ftruncate(&file, LONGEST_OUTPUT).map_err(io::Error::from).doing(Kind::Io, doing)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(io::Error::from).doing(Kind::Io, doing)?;
    Ok(file)
}

/// What was written to a [`log_file`]: its end, redacted and cleaned.
pub(crate) fn words(log: &OwnedFd, redact: &dyn Fn(&str) -> String) -> String {
    // The writers share the file's offset, so it is the length of what they wrote.
    let Ok(length) = rustix::fs::seek(log, rustix::fs::SeekFrom::Current(0)) else { return String::new() };
    let Ok(file) = log.try_clone().map(File::from) else { return String::new() };
    let mut bytes = vec![0; usize::try_from(length.min(LONGEST_OUTPUT)).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    clean(&redact(&String::from_utf8_lossy(&bytes)))
}

/// The end of the text, whole lines where it has any, without the control characters with which a
/// server's words could paint over a terminal.
fn clean(text: &str) -> String {
    let spaced = text.chars().map(|c| if c == '\t' { ' ' } else { c });
    let printable: String = spaced.filter(|c| *c == '\n' || !c.is_control()).collect();
    let printable = printable.trim();
    let Some(cut) = printable.len().checked_sub(LONGEST_TEXT).filter(|cut| *cut > 0) else {
        return printable.to_owned();
    };
    let start = (cut..printable.len()).find(|n| printable.is_char_boundary(*n)).unwrap_or(cut);
    let end = printable.get(start..).unwrap_or_default();
    let lines = end.split_once('\n').map_or(end, |(_, whole)| whole);
    format!("… {lines}")
}

fn command(helper: &Helper<'_>, output: &OwnedFd) -> io::Result<Command> {
    let mut command = Command::new(helper.program);
    command.args(helper.arguments).env_clear().envs(ENVIRONMENT).envs(helper.environment.iter().copied());
    command.current_dir(helper.folder).process_group(0).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    let keep: Vec<RawFd> = helper.keep.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = getpid();
    // SAFETY: this process has one thread, so its forked child may call anything.
    unsafe { command.pre_exec(move || become_helper(parent, &keep)) };
    Ok(command)
}

/// In the child, just before the exec.
fn become_helper(parent: Pid, keep: &[RawFd]) -> io::Result<()> {
    process::follow(parent)?;
    crash::forget();
    umask(Mode::from_bits_truncate(0o077));
    process::hand_on(keep)
}

fn overdue(helper: &Helper<'_>, child: &mut Child, pid: Pid, output: &OwnedFd) -> Box<Error> {
    let doing = format!("run `{}`", helper.name());
    let _ = killpg(pid, Signal::SIGKILL);
    let dead = process::ends_by(pid, Instant::now() + DYING);
    if dead {
        let _ = child.wait();
    }
    let text = words(output, helper.redact);
    let said = if text.is_empty() { text } else { format!("; it wrote: {text}") };
    let how = if dead {
        format!("no answer in time, so it was ended{said}")
    } else {
        format!("no answer in time, and the kernel does not let it end; it keeps its lock{said}")
    };
    Error::caused(Kind::TryAgain, doing, how).hint("check that the server or disk behind the volume answers")
}

/// Why a program could not be exec'd, with the package to install where it is not there.
pub(crate) fn unstarted(program: &Path, error: io::Error) -> Box<Error> {
    let missing = error.kind() == io::ErrorKind::NotFound && !program.exists();
    let error = Error::caused(Kind::Unavailable, format!("run `{}`", program.display()), error);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match package(&name) {
        Some(package) if missing => error.hint(format!("install `{package}` on the node")),
        _ if missing => error.hint("install it on the node, or give its path in the policy"),
        _ => error,
    }
}

/// The Debian package that has the program.
pub fn package(program: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(name, _)| *name == program).map(|(_, package)| *package)
}

fn memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 every such file could be made executable.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    rustix::fs::fchmod(&file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_memory_file_is_read_from_its_start_and_nobody_can_change_it() {
        let mut file = File::from(memory_file("credentials", b"password=p,w=1 x").unwrap());
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "password=p,w=1 x");
        assert_eq!(file.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn output_has_a_largest_size() {
        let mut log = File::from(log_file("log").unwrap());
        let block = vec![b'x'; 1 << 20];
        assert_eq!(log.write(&block).unwrap(), 1 << 20);
        assert_eq!(log.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_text_is_redacted_before_it_is_cut() {
        let mut log = File::from(log_file("log").unwrap());
        log.write_all(format!("hunter2{}", "y".repeat(LONGEST_TEXT - 3)).as_bytes()).unwrap();
        let text = words(&log.into(), &|t| t.replace("hunter2", "***"));
        assert!(!text.contains("er2"), "{text}");
    }

    #[test]
    fn a_text_is_its_last_whole_lines_without_control_characters() {
        let long = format!("{}\nlast line\n", "é".repeat(LONGEST_TEXT));
        let cases = [
            ("", ""),
            ("  a\nb\r\n", "a\nb"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
            (long.as_str(), "… last line"),
        ];
        for (text, expect) in cases {
            assert_eq!(clean(text), expect);
        }
        assert!(clean(&"é".repeat(LONGEST_TEXT)).len() <= LONGEST_TEXT + "… ".len());
    }

    #[test]
    fn a_missing_program_names_its_package() {
        assert_eq!(package("mount.cifs"), Some("cifs-utils"));
        assert_eq!(package("other"), None);
        let program = Path::new("/nonexistent/mount.nfs");
        let error = run(&Helper::new(program, &[], Instant::now() + DYING)).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(error.advice(), Some("install `nfs-common` on the node"));
    }
}
