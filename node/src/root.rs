//! Looking at a node whose root is mounted elsewhere: in a container, or from a rescue system.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use nix::unistd::{chdir, chroot};

use crate::{Context, Kind, Result};

const OURSELVES: &str = "/proc/self/exe";
const NOTHING: &str = "/dev/null";

/// What no path leads to behind a root without /proc and /dev. There is one for the process, as there is one root.
static BEFORE: OnceLock<Before> = OnceLock::new();

#[derive(Debug)]
struct Before {
    ourselves: Option<File>,
    nothing: Option<File>,
}

/// Makes `root` this process's own `/`, so that every path, and every link on the way, is the node's. For a
/// program that only looks and then ends.
pub fn enter(root: &Path) -> Result<()> {
    let doing = || format!("look at the node below `{}`", root.display());
    let hint = "name the folder that the node's `/` is mounted at, and run as root";
    BEFORE.get_or_init(|| Before {
        ourselves: File::open(OURSELVES).ok(),
        nothing: OpenOptions::new().read(true).write(true).open(NOTHING).ok(),
    });
    chroot(root).and_then(|()| chdir("/")).doing(Kind::Config, doing).map_err(|e| e.hint(hint))
}

/// Opens `path` to be read from its beginning: `/proc/self/exe` is this program behind another root as well. There
/// all who open it share one offset: one reads at a time.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let kept =
        BEFORE.get().and_then(|before| before.ourselves.as_ref()).filter(|_| path == Path::new(OURSELVES));
    let Some(kept) = kept else { return File::open(path) };
    let mut file = kept.try_clone()?;
    file.rewind()?;
    Ok(file)
}

/// `/dev/null` for a child, also behind a root that has none.
pub fn nothing() -> Stdio {
    let kept = BEFORE.get().and_then(|before| before.nothing.as_ref()?.try_clone().ok());
    kept.map_or_else(Stdio::null, Stdio::from)
}
