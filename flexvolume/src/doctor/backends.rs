//! What the backends that are on need of the kernel and of the node's programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use node::finding::{Finding, listed};

use crate::kernel::helper::package;
use crate::policy::{ImageFs, PATH, Policy};

const WHAT: &str = "backends";
const LOOPS: &str = "loop devices";

/// What one backend needs.
#[derive(Debug, Default)]
struct Needs {
    name: &'static str,
    /// One of them is enough.
    kinds: &'static [&'static str],
    programs: Vec<PathBuf>,
}

/// The loop devices, and every backend with something missing. The default policy turns on more than a node has to
/// have: there, what is missing is only said.
pub(super) fn all(policy: &Policy) -> Vec<Finding> {
    let told = Path::new(PATH).exists();
    let kinds = kinds();
    let mut found = Vec::new();
    let (mut good, mut absent) = (Vec::new(), Vec::new());
    for needs in needed(policy) {
        match missing(&needs, &kinds) {
            None => good.push(needs.name),
            Some((why, _)) if !told => absent.push(format!("{} ({why})", needs.name)),
            Some((why, remedy)) => {
                found.push(Finding::warning(
                    WHAT,
                    format!("`{}` can't be mounted here: {why}", needs.name),
                    remedy,
                ));
            }
        }
    }
    let here = if good.is_empty() { "nothing more".to_owned() } else { good.join(", ") };
    if found.is_empty() {
        let not = if absent.is_empty() { String::new() } else { format!("; not: {}", absent.join(", ")) };
        found.push(Finding::fine(WHAT, format!("this node has what these need: {here}{not}")));
    }
    if policy.backends.image.is_some() {
        found.push(loops());
    }
    found
}

fn needed(policy: &Policy) -> Vec<Needs> {
    let on = &policy.backends;
    let mut all = Vec::new();
    let plain = |name, kinds| Needs { name, kinds, programs: Vec::new() };
    if on.tmpfs.is_some() {
        all.push(plain("tmpfs", &["tmpfs"][..]));
    }
    if on.overlay.is_some() {
        all.push(plain("overlay", &["overlay"]));
    }
    if let Some(image) = &on.image {
        all.extend(image.fs_types.iter().map(|fs| of_medium(*fs)));
    }
    if on.block.is_some() && on.image.is_none() {
        all.push(of_medium(ImageFs::Ext4));
    }
    if let Some(nfs) = &on.nfs {
        all.push(Needs { name: "nfs", kinds: &["nfs4", "nfs"], programs: vec![nfs.helper.clone()] });
    }
    if let Some(cifs) = &on.cifs {
        all.push(Needs { name: "cifs", kinds: &["cifs"], programs: vec![cifs.helper.clone()] });
    }
    if let Some(fuse) = &on.fuse {
        let programs = fuse.profiles.values().map(|profile| profile.program.clone()).collect();
        all.push(Needs { name: "fuse", kinds: &["fuse"], programs });
    }
    all
}

fn of_medium(fs: ImageFs) -> Needs {
    let program = |name: &str| vec![Path::new("/usr/sbin").join(name)];
    match fs {
        ImageFs::Ext4 => Needs { name: "ext4", kinds: &["ext4"], programs: program("mkfs.ext4") },
        ImageFs::Xfs => Needs { name: "xfs", kinds: &["xfs"], programs: program("mkfs.xfs") },
        ImageFs::Btrfs => Needs { name: "btrfs", kinds: &["btrfs"], programs: program("mkfs.btrfs") },
        ImageFs::Erofs => Needs { name: "erofs", kinds: &["erofs"], programs: Vec::new() },
        ImageFs::Squashfs => Needs { name: "squashfs", kinds: &["squashfs"], programs: Vec::new() },
    }
}

/// The file systems that the kernel has now. One that is a module and not loaded is not among them.
fn kinds() -> Vec<String> {
    let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

fn missing(needs: &Needs, kinds: &[String]) -> Option<(String, String)> {
    let gone: Vec<String> = needs
        .programs
        .iter()
        .filter(|program| !is_executable(program))
        .map(|program| program.display().to_string())
        .collect();
    if !gone.is_empty() {
        let name = needs.programs.iter().find(|program| !is_executable(program));
        let remedy = name.and_then(|program| package(&program.file_name()?.to_string_lossy())).map_or_else(
            || "install it, or correct its path in the policy".to_owned(),
            |package| format!("apt-get install {package}, or your distribution's package of it"),
        );
        return Some((format!("{} is not there", listed(&gone)), remedy));
    }
    let has = needs.kinds.iter().any(|kind| kinds.iter().any(|k| k == kind) || is_module(kind));
    (!has).then(|| {
        let kind = needs.kinds.last().copied().unwrap_or_default();
        let remedy = format!(
            "use a kernel with it; on a distribution's: install its package of modules, modprobe {kind}"
        );
        (format!("the kernel has no file system {kind}"), remedy)
    })
}

/// mkfs programs are in one folder of three, by the distribution.
fn is_executable(program: &Path) -> bool {
    let is =
        |path: &Path| fs::metadata(path).is_ok_and(|a| a.is_file() && a.permissions().mode() & 0o111 != 0);
    let name = program.file_name().unwrap_or_default();
    is(program)
        || program.parent() == Some(Path::new("/usr/sbin"))
            && ["/sbin", "/usr/bin", "/bin"].iter().any(|f| is(&Path::new(f).join(name)))
}

/// Whether the kernel would load the file system: mount(2) asks it to.
fn is_module(kind: &str) -> bool {
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else { return false };
    let file = Path::new("/lib/modules").join(release.trim()).join("modules.dep");
    let ends = |line: &str| {
        let path = line.split(':').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default().split('.').next() == Some(kind)
    };
    fs::read_to_string(file).is_ok_and(|list| list.lines().any(ends))
}

/// Whether an image finds a loop device. None is asked for: that would make one.
fn loops() -> Finding {
    let names = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path());
    let all: Vec<PathBuf> = names.filter(|p| p.file_name().is_some_and(is_loop)).collect();
    let used = all.iter().filter(|path| path.join("loop/backing_file").exists()).count();
    if Path::new("/dev/loop-control").exists() {
        return Finding::fine(LOOPS, format!("{used} in use; more are made as they are needed"));
    }
    if all.len() > used {
        return Finding::fine(LOOPS, format!("{used} of {} in use", all.len()));
    }
    let why = "there is no /dev/loop-control and no free loop device: no image can be mounted";
    Finding::problem(
        LOOPS,
        why,
        "modprobe loop; where /dev is made by hand: mknod /dev/loop-control c 10 237",
    )
}

fn is_loop(name: &std::ffi::OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
