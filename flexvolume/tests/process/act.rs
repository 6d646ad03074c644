//! What a test has this program do in a process of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use flexvolume::kernel::{crash, daemon, helper, process, workshop};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, raise};

/// The first argument of a run that performs an act.
pub(crate) const WORD: &str = "--act";

pub(crate) fn run(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["scrub", ..] => scrub(),
        ["noise"] => noise(),
        ["signal", name] => signalled(name),
        ["answering", name] => answering(name),
        ["finished", name, when] => finished(name, when),
        ["panic-late"] => panicking_late(),
        ["overflow"] => overflow(),
        ["panic"] => panicking(),
        ["alarm"] => alarm(),
        ["child-signal"] => in_a_child(|| raise(Signal::SIGTERM).unwrap()),
        ["child-panic"] => in_a_child(|| panic!("hunter2")),
        ["limits"] => limits(),
        ["work-forever"] => work_forever(),
        ["daemon", volume] => start_a_daemon(volume),
        ["deaf-server", folder] => deaf_server(Path::new(folder)),
        _ => panic!("no such act: {words:?}"),
    }
}

/// The start of every call.
fn begin() -> OwnedFd {
    node::adopt();
    process::harden();
    let answer = process::silence().unwrap();
    crash::install(answer.as_raw_fd());
    crash::install_panic_hook(answer.as_raw_fd());
    answer
}

fn tell(answer: &OwnedFd, text: &str) {
    File::from(answer.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
}

/// Takes the arguments as `main` would: the kernel says where they lie (proc_pid_stat(5), field 48).
fn scrub() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let mut place: usize = fields[45].parse().unwrap();
    let mut pointers = Vec::new();
    for word in std::env::args() {
        pointers.push(std::ptr::with_exposed_provenance::<std::ffi::c_char>(place));
        place += word.len() + 1;
    }
    let taken = process::Arguments::take(pointers.len().try_into().unwrap(), pointers.as_ptr());
    let shown = std::fs::read_to_string("/proc/self/cmdline").unwrap();
    let kept: Vec<_> = taken.iter().map(String::from_utf8_lossy).collect();
    print!("{}\n{shown}", kept.join(" "));
}

fn noise() {
    let answer = begin();
    println!("a library's words");
    eprintln!("a warning");
    std::process::Command::new("sh").args(["-c", "echo loud; echo louder >&2"]).status().unwrap();
    tell(&answer, "the answer\n");
    println!("and more");
}

fn signalled(name: &str) {
    let answer = begin();
    raise(name.parse().unwrap()).unwrap();
    tell(&answer, "survived");
}

fn answering(name: &str) {
    let answer = begin();
    crash::answering();
    tell(&answer, "the ");
    raise(name.parse().unwrap()).unwrap();
    tell(&answer, "answer");
}

/// A signal that comes before, while or after the last step is done, or fails.
fn finished(name: &str, when: &str) {
    let answer = begin();
    let signal = || raise(name.parse().unwrap()).unwrap();
    let outcome = crash::finally(|| {
        if when != "after" {
            signal();
        }
        if when == "failed" { Err(()) } else { Ok(()) }
    });
    if when == "after" {
        signal();
    }
    tell(&answer, &format!("survived: {outcome:?}"));
}

fn panicking_late() {
    let _answer = begin();
    let _ = crash::finally(|| Ok::<_, ()>(()));
    panic!("hunter2");
}

fn overflow() {
    fn deeper(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 512]);
        if depth == u64::MAX { 0 } else { deeper(depth + 1) + room[7] }
    }
    let answer = begin();
    tell(&answer, &deeper(0).to_string());
}

fn panicking() {
    let _answer = begin();
    panic!("hunter2");
}

fn alarm() {
    let answer = begin();
    crash::alarm_at(Instant::now() + Duration::from_millis(20), Duration::from_secs(100));
    thread::sleep(super::LONG);
    tell(&answer, "survived");
}

fn in_a_child(end: fn()) {
    let answer = begin();
    let error = workshop::apart(Instant::now() + super::LONG, &[], || {
        end();
        Ok(Vec::new())
    });
    tell(&answer, &error.unwrap_err().chain());
}

fn limits() {
    let answer = begin();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core")).unwrap();
    let dumpable = nix::sys::prctl::get_dumpable().unwrap();
    let file = std::env::temp_dir().join(format!("umask-{}", std::process::id()));
    File::create(&file).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    let core: Vec<&str> = core.split_whitespace().collect();
    tell(&answer, &format!("core {} {}, dumpable {dumpable}, mode {mode:o}", core[4], core[5]));
}

/// A child with a helper that both wait; their numbers are told first.
fn work_forever() {
    let answer = begin();
    let _ = workshop::apart(Instant::now() + super::LONG, &[&answer].map(std::os::fd::AsFd::as_fd), || {
        tell(&answer, &format!("{}\n", std::process::id()));
        let words = ["-c", "echo $$ >/tmp/helper; exec sleep 1000"].map(Into::into);
        helper::run(&helper::Helper::new(Path::new("/bin/sh"), &words, Instant::now() + super::LONG))?;
        Ok(Vec::new())
    });
}

fn start_a_daemon(volume: &str) {
    let answer = begin();
    let spec = daemon::Spec {
        volume,
        program: Path::new("/bin/sleep"),
        arguments: &|_| vec!["1000".into()],
        environment: &|_| Vec::new(),
        keep: &[],
    };
    tell(&answer, &daemon::start(&spec).unwrap().pid.to_string());
}

/// Mounts a FUSE file system at `folder`, greets the kernel, and then takes requests without ever
/// answering one: who made it waits in state D until this server ends
/// (<https://docs.kernel.org/filesystems/fuse/fuse.html>, linux/fuse.h).
fn deaf_server(folder: &Path) {
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("deaf"), folder, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let mut request = vec![0; 1 << 17];
    assert!(device.read(&mut request).unwrap() > 0);
    let mut greeting = vec![0_u8; 16 + 64];
    greeting[..4].copy_from_slice(&80_u32.to_ne_bytes());
    greeting[8..16].copy_from_slice(&request[8..16]);
    greeting[16..20].copy_from_slice(&7_u32.to_ne_bytes());
    greeting[20..24].copy_from_slice(&31_u32.to_ne_bytes());
    greeting[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
    device.write_all(&greeting).unwrap();
    println!("ready");
    while device.read(&mut request).is_ok() {}
}
