//! The image that scripts/image makes of the programs under test: made once, and unpacked as often as wanted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use harness::call::{self, Answer};
use harness::device_node::our_daemon;
use harness::node::our_binary;
use harness::volume_node::our_driver;

use crate::folders::root;

/// What is in the image, and nothing else.
pub const PROGRAMS: [&str; 3] = ["nodeplug-cni", "nodeplug-device-plugin", "nodeplug-flexvolume"];
/// Its name in the archive.
pub const NAME: &str = concat!("localhost/nodeplug:", env!("CARGO_PKG_VERSION"));

/// Where it is, and what making it printed.
#[derive(Debug)]
pub struct Made {
    pub archive: PathBuf,
    pub said: String,
}

/// Of this process; gone with [`remove`].
pub fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("nodeplug-deploy-{}", std::process::id()))
}

pub fn remove() {
    drop(fs::remove_dir_all(scratch()));
}

/// A new folder of this process.
pub fn room(name: &str) -> PathBuf {
    let path = scratch().join(name);
    fs::create_dir_all(&path).unwrap_or_else(|e| panic!("make `{}`: {e}", path.display()));
    path
}

/// A folder with links to the three programs under test.
pub fn programs(name: &str) -> PathBuf {
    let folder = room(name);
    for (path, name) in [our_binary(), our_daemon(), our_driver()].iter().zip(PROGRAMS) {
        assert!(
            path.is_file(),
            "no program at `{}`: build it, or name it in the environment",
            path.display()
        );
        symlink(fs::canonicalize(path).unwrap(), folder.join(name)).unwrap();
    }
    folder
}

/// Whether what operators get is under test, and not a debug build.
pub fn is_release() -> bool {
    fs::canonicalize(our_binary())
        .is_ok_and(|path| path.components().any(|part| part.as_os_str() == "release"))
}

/// scripts/image, with nothing in its environment that it might have relied upon.
pub fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts/image"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // rustc tells the folder of what was built, and where its toolchain is.
    for kept in ["CARGO_HOME", "RUSTUP_HOME", "HOME"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

pub fn run(command: &mut Command) -> Answer {
    call::run(command, b"")
}

/// The image of the programs under test.
pub fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let archive = room("made").join("nodeplug.oci.tar");
        let from = programs("programs");
        let answer =
            run(&mut script(&["--from", from.to_str().unwrap(), "--output", archive.to_str().unwrap()]));
        assert!(answer.ok(), "{answer:?}");
        Made { archive, said: answer.stdout }
    })
}

/// The image's files, in a folder that was not there.
pub fn unpack(archive: &Path, bundle: &Path) -> PathBuf {
    let layout = bundle.with_extension("layout");
    fs::create_dir_all(&layout).expect("make a folder");
    let path = |path: &Path| path.to_str().expect("a path of letters").to_owned();
    call::tool(&["tar", "-xf", &path(archive), "-C", &path(&layout)]);
    call::tool(&["umoci", "unpack", "--image", &format!("{}:{NAME}", path(&layout)), &path(bundle)]);
    fs::remove_dir_all(&layout).expect("remove what was unpacked");
    bundle.join("rootfs")
}
