//! Who keeps a mount busy is named, in this namespace and in others.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use flexvolume::kernel::holders::{Holds, Sought, of};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{LONG, folder, trial, until, volume};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_holder_is_named_by_what_it_holds", by_what_it_holds),
        trial("a_mapped_file_holds_a_mount", mapped),
        trial("another_namespaces_copy_is_told_apart", another_namespace),
        trial("a_file_of_the_same_file_system_elsewhere_holds_no_bind_mount", elsewhere),
        trial("a_mount_that_is_not_there_has_no_holders", not_there),
        trial("the_number_of_holders_and_the_time_are_bounded", bounded),
    ]
}

/// A process that is ended with the test.
struct Held(Child);

impl Held {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn found(point: &Path, whole: bool) -> Vec<(i32, String, Holds)> {
    let holders = of(&Sought::at(point, whole), 16, Instant::now() + LONG);
    holders.into_iter().map(|h| (h.pid, h.command, h.holds)).collect()
}

fn expect(point: &Path, held: &Held, command: &str, holds: Holds) {
    let expected = vec![(held.pid(), command.to_owned(), holds)];
    until(&format!("{expected:?}"), || found(point, false) == expected);
    assert_eq!(found(point, true), expected);
}

fn by_what_it_holds() {
    let point = volume();
    assert!(found(&point, true).is_empty());
    let sleep = |folder: &Path| {
        let mut command = Command::new("sleep");
        command.arg("1000").current_dir(folder);
        command
    };
    expect(&point, &Held::start(&mut sleep(&point)), "sleep", Holds::WorkingFolder);
    fs::write(point.join("file"), "").unwrap();
    let script = format!("exec 7<{}/file; exec sleep 1000", point.display());
    expect(&point, &Held::start(Command::new("sh").args(["-c", &script])), "sleep", Holds::OpenFile);
    fs::copy("/bin/sleep", point.join("doze")).unwrap();
    expect(&point, &Held::start(Command::new(point.join("doze")).arg("1000")), "doze", Holds::Program);
    assert!(found(&point, true).is_empty());
    umount2(&point, MntFlags::empty()).unwrap();
}

fn mapped() {
    let point = volume();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.lines().find_map(|l| l.split_whitespace().nth(5).filter(|p| p.contains("/libc")));
    let Some(library) = library else { return };
    fs::copy(library, point.join(Path::new(library).file_name().unwrap())).unwrap();
    let mut command = Command::new("sleep");
    command.arg("1000").env("LD_LIBRARY_PATH", &point);
    expect(&point, &Held::start(&mut command), "sleep", Holds::MappedFile);
    umount2(&point, MntFlags::empty()).unwrap();
}

fn another_namespace() {
    let point = volume();
    let mut copy = Command::new("unshare");
    copy.args(["-m", "--propagation", "private", "sleep", "1000"]);
    let copy = Held::start(&mut copy);
    expect(&point, &copy, "sleep", Holds::Namespace);
    let script = format!("cd {} && exec sleep 1000", point.display());
    let mut inside = Command::new("unshare");
    let inside = Held::start(inside.args(["-m", "--propagation", "private", "sh", "-c", &script]));
    let expected = |holders: &[(i32, String, Holds)]| {
        holders.len() == 2
            && holders[0] == (inside.pid(), "sleep".to_owned(), Holds::WorkingFolder)
            && holders[1].2 == Holds::Namespace
    };
    until("both", || expected(&found(&point, false)));
    umount2(&point, MntFlags::empty()).expect("copies elsewhere do not keep this one busy");
}

fn elsewhere() {
    let (source, point) = (volume(), folder());
    fs::create_dir(source.join("sub")).unwrap();
    let bound = source.join("sub");
    mount(Some(&bound), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let mut command = Command::new("sleep");
    let held = Held::start(command.arg("1000").current_dir(&bound));
    expect(&source, &held, "sleep", Holds::WorkingFolder);
    assert!(found(&point, false).is_empty());
    umount2(&point, MntFlags::empty()).unwrap();
    drop(held);
    umount2(&source, MntFlags::empty()).unwrap();
}

fn not_there() {
    assert_eq!(Sought::at(&folder(), true), Sought::default());
    assert!(found(&folder(), true).is_empty());
}

fn bounded() {
    let point = volume();
    let held: Vec<Held> =
        (0..5).map(|_| Held::start(Command::new("sleep").arg("1000").current_dir(&point))).collect();
    until("all five", || found(&point, false).len() == 5);
    let sought = Sought::at(&point, false);
    assert_eq!(of(&sought, 2, Instant::now() + LONG).len(), 2);
    assert!(of(&sought, 2, Instant::now()).is_empty());
    drop(held);
    umount2(&point, MntFlags::empty()).unwrap();
}
