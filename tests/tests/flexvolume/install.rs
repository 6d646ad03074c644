//! The driver comes, is exchanged, and goes, while kubelets watch.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::call::{self, Answer, Launch, tool};
use harness::kernel::trace::{self, End};
use harness::kubelet::{Kubelet, Outcome};
use harness::suite::volume;
use harness::volume_look::files;
use harness::volume_node::{OURS, VolumeNode};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ours::{Call, object};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("an_install_is_found_at_once_and_never_half", &[], watched),
        volume("an_upgrade_disturbs_no_volume", &[], upgrade),
        volume("an_uninstall_waits_for_the_last_volume", &[], uninstall),
        volume("an_install_killed_anywhere_shows_nothing_broken", &[], killed),
        volume("another_program_of_the_name_stays", &[], stranger),
        volume("a_dry_run_changes_nothing", &[], dry_run),
        volume("only_some_drivers_and_another_vendor", &[], some),
        volume("a_folder_that_cannot_be_used_is_told", &[], bad_folders),
        volume("an_install_that_stays_puts_back_and_yields_to_an_uninstall", &[], stays),
    ]
}

const PLUGINS: &str = "/opt/plugins";

fn run(words: &[&str]) -> Answer {
    let mut all = words.to_vec();
    all.extend(["--dir", PLUGINS]);
    Call::of("volume", &all).run()
}

#[track_caller]
fn install() {
    let answer = run(&["install"]);
    assert!(answer.ok(), "{answer:?}");
}

/// Everything in the folder, hidden or not, with its permissions.
fn listing() -> String {
    tool(&["find", PLUGINS, "-printf", "%P %y %m %s\n"])
}

/// Another version: the same program with something behind it.
fn other_version() {
    let mut bytes = fs::read(crate::ours::program("volume")).unwrap();
    bytes.extend_from_slice(b"another version");
    call::write_program(Path::new("/opt/other"), &bytes);
}

fn watched(node: &VolumeNode) {
    fs::create_dir(PLUGINS).unwrap();
    let kubelet = node.kubelet_with(Path::new(PLUGINS));
    assert_eq!(kubelet.look_up("nodeplug/tmpfs"), None);
    while_looking(&kubelet, install);
    for name in OURS {
        let seen = kubelet.look_up(&format!("nodeplug/{name}")).unwrap();
        assert!(!seen.attach, "{name}");
        let mode = fs::metadata(format!("{PLUGINS}/nodeplug~{name}/{name}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{name}");
    }
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    kubelet.set_up(&volume).mounted();
    kubelet.end(volume.pod());
    assert_eq!(kubelet.log(), Vec::<String>::new());
    // Again: there is nothing to do, and the kubelet has nothing to read again.
    let (before, calls) = (listing(), kubelet.calls().len());
    let again = run(&["install", "--output", "json"]);
    assert!(again.ok() && again.stdout.contains("unchanged"), "{again:?}");
    assert_eq!(listing(), before);
    kubelet.look_up("nodeplug/tmpfs").unwrap();
    assert_eq!(kubelet.calls().len(), calls, "no `init` was needed");
    node.assert_nothing_left("after an install");
}

/// Looks drivers up again and again while `work` is done.
fn while_looking(kubelet: &Kubelet, work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for name in OURS {
                    kubelet.look_up(&format!("nodeplug/{name}"));
                }
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn upgrade(node: &VolumeNode) {
    fs::create_dir(PLUGINS).unwrap();
    other_version();
    install();
    let kubelet = node.kubelet_with(Path::new(PLUGINS));
    let kept = kubelet.pod("default", "kept").inline("nodeplug/tmpfs", "data");
    kubelet.set_up(&kept).mounted();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..2 {
            let (kubelet, over) = (&kubelet, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let pod = kubelet.pod("default", &format!("web-{number}"));
                    let volume = pod.inline("nodeplug/tmpfs", "data").secret("k", b"v");
                    assert_eq!(kubelet.set_up(&volume), Outcome::Mounted);
                    assert_eq!(kubelet.tear_down(&volume), Outcome::Unmounted);
                    fs::remove_dir_all(pod.folder()).unwrap();
                }
            });
        }
        let done = std::panic::catch_unwind(|| {
            for round in 0..6 {
                let from = if round % 2 == 0 {
                    "/opt/other".to_owned()
                } else {
                    crate::ours::program("volume").display().to_string()
                };
                let answer = run(&["install", "--from", &from]);
                assert!(answer.ok() && answer.stdout.contains("replaced"), "{answer:?}");
            }
        });
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(kubelet.log(), Vec::<String>::new());
    kubelet.end(kept.pod());
    assert!(!listing().lines().any(|line| line.starts_with('.') || line.contains("/.")), "{}", listing());
    node.assert_nothing_left("after upgrades");
}

fn uninstall(node: &VolumeNode) {
    fs::create_dir(PLUGINS).unwrap();
    install();
    let kubelet = node.kubelet_with(Path::new(PLUGINS));
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    kubelet.set_up(&volume).mounted();
    let before = listing();
    let refused = run(&["uninstall"]);
    assert_eq!(refused.exit, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(volume.path().to_str().unwrap()), "{refused:?}");
    assert_eq!(listing(), before);
    // Those without a volume may go.
    let some = run(&["uninstall", "--backends", "nfs,cifs"]);
    assert!(some.ok(), "{some:?}");
    assert!(kubelet.look_up("nodeplug/nfs").is_none() && kubelet.look_up("nodeplug/tmpfs").is_some());
    kubelet.end(volume.pod());
    while_looking(&kubelet, || {
        let answer = run(&["uninstall"]);
        assert!(answer.ok(), "{answer:?}");
    });
    for name in OURS {
        assert!(kubelet.look_up(&format!("nodeplug/{name}")).is_none(), "{name}");
    }
    assert_eq!(kubelet.log(), Vec::<String>::new(), "nothing was missed on the way");
    assert_eq!(fs::read_dir(PLUGINS).unwrap().count(), 0);
    assert!(run(&["uninstall"]).ok(), "what is gone is gone");
    // Somebody's file in the folder is not ours to remove.
    install();
    fs::write(format!("{PLUGINS}/nodeplug~tmpfs/notes"), "theirs").unwrap();
    let answer = run(&["uninstall"]);
    assert_eq!(
        fs::read_to_string(format!("{PLUGINS}/nodeplug~tmpfs/notes")).unwrap(),
        "theirs",
        "{answer:?}"
    );
    node.assert_nothing_left("after an uninstall");
}

fn killed(node: &VolumeNode) {
    fs::create_dir(PLUGINS).unwrap();
    other_version();
    let words = ["install", "--backends", "tmpfs,nfs", "--dir", PLUGINS, "--from", "/opt/other"];
    for upgrade in [false, true] {
        // Some of them: most write the program, which is the same each time.
        for n in (0..).step_by(if upgrade { 13 } else { 11 }) {
            assert!(run(&["uninstall"]).ok());
            if upgrade {
                assert!(run(&["install", "--backends", "tmpfs,nfs"]).ok());
            }
            let kubelet = node.kubelet_with(Path::new(PLUGINS));
            kubelet.look_up("nodeplug/tmpfs");
            let end = trace::kill_after(&Call::of("volume", &words), n);
            let when = format!("upgrade {upgrade}, killed after {n}");
            for name in ["tmpfs", "nfs"] {
                let seen = kubelet.look_up(&format!("nodeplug/{name}"));
                assert!(seen.is_some() || !upgrade, "{when}: {name} is lost");
            }
            assert_eq!(kubelet.log(), Vec::<String>::new(), "{when}");
            let again = Call::of("volume", &words).run();
            assert!(again.ok(), "{when}: {again:?}");
            let list = listing();
            assert!(!list.lines().any(|line| line.starts_with('.') || line.contains("/.")), "{when}: {list}");
            let program = fs::read(format!("{PLUGINS}/nodeplug~tmpfs/tmpfs")).unwrap();
            assert!(program.ends_with(b"another version"), "{when}");
            if let End::Finished(answer) = end {
                assert!(answer.ok(), "{answer:?}");
                break;
            }
        }
    }
}

fn stranger(_node: &VolumeNode) {
    let folder = format!("{PLUGINS}/nodeplug~tmpfs");
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/tmpfs"), "#!/bin/sh\n").unwrap();
    let before = listing();
    for command in ["install", "uninstall"] {
        let answer = run(&[command]);
        assert!(
            answer.exit == Some(1) && answer.stderr.contains("is not nodeplug-flexvolume"),
            "{command}: {answer:?}"
        );
        assert_eq!(listing(), before, "{command}: all or nothing");
    }
    let forced = run(&["install", "--force"]);
    assert!(forced.ok(), "{forced:?}");
    assert!(run(&["uninstall"]).ok());
}

fn dry_run(_node: &VolumeNode) {
    let answer = run(&["install", "--dry-run"]);
    assert!(answer.ok() && !Path::new(PLUGINS).exists(), "{answer:?}");
    install();
    let before = listing();
    for command in ["install", "uninstall"] {
        let answer = run(&[command, "--dry-run"]);
        assert!(answer.ok() && answer.stdout.contains("nodeplug/tmpfs"), "{answer:?}");
        assert_eq!(listing(), before);
    }
    let json = run(&["install", "--dry-run", "--output", "json"]);
    assert!(json.ok() && json.json.is_some(), "{json:?}");
}

fn some(node: &VolumeNode) {
    let answer = run(&["install", "--vendor", "acme.example", "--backends", "tmpfs,volume"]);
    assert!(answer.ok(), "{answer:?}");
    let kubelet = node.kubelet_with(Path::new(PLUGINS));
    assert!(kubelet.look_up("acme.example/tmpfs").is_some() && kubelet.look_up("acme.example/nfs").is_none());
    let volume =
        kubelet.pod("default", "web").inline("acme.example/volume", "data").option("backend", "tmpfs");
    kubelet.set_up(&volume).mounted();
    kubelet.end(volume.pod());
    for bad in [["--vendor", "../x"], ["--vendor", "A"], ["--backends", "floppy"], ["--backends", "../tmpfs"]]
    {
        let answer = run(&["install", bad[0], bad[1]]);
        assert!(answer.exit == Some(1), "{bad:?}: {answer:?}");
    }
    assert_eq!(fs::read_dir(PLUGINS).unwrap().count(), 2);
    node.assert_nothing_left("after another vendor");
}

fn bad_folders(_node: &VolumeNode) {
    // A driver's folder that is a link is one that the kubelet does not follow.
    fs::create_dir_all(PLUGINS).unwrap();
    fs::create_dir("/opt/elsewhere").unwrap();
    symlink("/opt/elsewhere", format!("{PLUGINS}/nodeplug~tmpfs")).unwrap();
    let answer = run(&["install"]);
    assert!(answer.exit == Some(1) && answer.stderr.contains("follows no link"), "{answer:?}");
    assert!(files("/opt/elsewhere".as_ref()).is_empty());
    fs::remove_file(format!("{PLUGINS}/nodeplug~tmpfs")).unwrap();
    // A folder that everybody may write is everybody's root.
    fs::set_permissions(PLUGINS, fs::Permissions::from_mode(0o777)).unwrap();
    let answer = run(&["install"]);
    assert!(answer.exit == Some(1) && answer.stderr.contains("hint:"), "{answer:?}");
    fs::set_permissions(PLUGINS, fs::Permissions::from_mode(0o755)).unwrap();
    let answer = Call::of("volume", &["install", "--root", "/opt", "--dir", "relative"]).run();
    assert!(!answer.ok(), "{answer:?}");
    install();
    let init = Call::of("volume", &["init"]).run();
    object("init", &init);
}

/// Longer than any look takes: only what never comes meets it.
const LIMIT: Duration = Duration::from_mins(2);

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

fn stays(node: &VolumeNode) {
    fs::create_dir(PLUGINS).unwrap();
    let kubelet = node.kubelet_with(Path::new(PLUGINS));
    let program = |name: &str| format!("{PLUGINS}/nodeplug~{name}/{name}");
    let presence = format!("{PLUGINS}/.nodeplug-flexvolume.stay");
    let start = || {
        let mut command = Call::of("volume", &["install", "--stay", "--dir", PLUGINS]).command();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        wait_for("its presence", || Path::new(&presence).exists());
        child
    };
    let ends = |mut child: Child| {
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!Path::new(&presence).exists());
    };
    let mut staying = start();
    assert!(kubelet.look_up("nodeplug/tmpfs").is_some());
    fs::remove_file(program("tmpfs")).unwrap();
    wait_for("the driver", || Path::new(&program("tmpfs")).exists());
    fs::remove_dir_all(format!("{PLUGINS}/nodeplug~nfs")).unwrap();
    wait_for("the folder", || Path::new(&program("nfs")).exists());
    assert!(staying.try_wait().unwrap().is_none());
    ends(staying);
    assert!(Path::new(&program("nfs")).exists(), "what was installed stays");
    let staying = start();
    let answer = run(&["uninstall"]);
    assert!(answer.ok() && answer.stdout.contains("told to let go"), "{answer:?}");
    ends(staying);
    assert_eq!(listing().lines().count(), 1, "{}", listing());
}
