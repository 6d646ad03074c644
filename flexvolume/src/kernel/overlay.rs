//! Overlays (Documentation/filesystems/overlayfs.rst) of trees that are nowhere.
//!
//! Kernels take a layer by its path in the caller's mount namespace, and only new ones by a descriptor. So the
//! layers are put into a child's private namespace, under names that need no escape, and the overlay comes
//! back as a detached tree; it keeps copies of its layers' mounts.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result};

use super::mount::{self, Parameter, Tree};
use super::{path, workshop};

/// The folder of the upper layer's tree that is written.
pub const UPPER: &str = "upper";
/// The folder of the upper layer's tree that is the kernel's own.
pub const WORK: &str = "work";
/// No more lower layers than this: their names have to fit into the 255 bytes of one parameter.
pub const LAYERS: usize = 32;

/// The kernel lets an upper layer go a moment after the overlay that had it.
const LETTING_GO: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Lays the folder [`UPPER`] of `upper` over `lower`, the topmost first, in a child with its own mount
/// namespace. `stage` and `keep` are as [`workshop::build`] wants them. An upper layer that another overlay has
/// is [`Kind::Conflict`]; the kernel knows it for certain where the parameters say `index=on`.
pub fn lay(
    stage: &Path,
    lower: &[Tree],
    upper: &Tree,
    parameters: &[Parameter],
    keep: &[BorrowedFd<'_>],
    deadline: Instant,
) -> Result<Tree> {
    let mut kept = keep.to_vec();
    kept.extend(lower.iter().map(AsFd::as_fd));
    kept.push(upper.as_fd());
    let (root, _) = workshop::build(stage, deadline, &kept, |bench, until| {
        let mut names = Vec::new();
        for (number, tree) in lower.iter().enumerate() {
            let name = format!("l{number}");
            place(tree, &bench.join(&name))?;
            names.push(name);
        }
        place(upper, &bench.join("u"))?;
        std::env::set_current_dir(bench)
            .doing(Kind::Internal, || format!("go to the folder `{}`", bench.display()))?;
        let tree = make(&names.join(":"), parameters, until)?;
        Ok((tree.into_fd(), Vec::new()))
    })?;
    Ok(Tree::detached(root))
}

fn place(tree: &Tree, at: &Path) -> Result<()> {
    fs::create_dir(at).doing(Kind::Io, || format!("make the folder `{}`", at.display()))?;
    mount::attach(tree, path::open_root(at)?.as_fd())
}

fn make(lower: &str, parameters: &[Parameter], until: Instant) -> Result<Tree> {
    let own = [
        Parameter::Text("lowerdir".to_owned(), lower.to_owned()),
        Parameter::Text("upperdir".to_owned(), format!("u/{UPPER}")),
        Parameter::Text("workdir".to_owned(), format!("u/{WORK}")),
    ];
    let all: Vec<Parameter> = own.into_iter().chain(parameters.iter().filter_map(copy)).collect();
    let patience = (Instant::now() + LETTING_GO).min(until);
    loop {
        match mount::make("overlay", Some("overlay"), &all, false) {
            Err(error) if error.errno() == Some(libc::EBUSY) && Instant::now() < patience => {
                thread::sleep(PAUSE);
            }
            other => return other.map_err(explain),
        }
    }
}

/// An overlay has words alone.
fn copy(parameter: &Parameter) -> Option<Parameter> {
    match parameter {
        Parameter::Flag(name) => Some(Parameter::Flag(name.clone())),
        Parameter::Wish(name) => Some(Parameter::Wish(name.clone())),
        Parameter::Text(name, value) => Some(Parameter::Text(name.clone(), value.clone())),
        Parameter::Descriptor(..) => None,
    }
}

fn explain(error: Box<Error>) -> Box<Error> {
    match error.errno() {
        Some(libc::EBUSY) => Error::caused(Kind::Conflict, "lay the upper layer over the others", error)
            .hint("another overlay has this upper layer: only one at a time can, or both would spoil it"),
        Some(libc::ESTALE) => error.hint(
            "the upper layer was made over other lower layers than these: give the old ones, or another \
             `upper`, or set `index: \"false\"` if you know that both fit",
        ),
        Some(libc::ELOOP) => error.hint("no layer may lie within another one, and none may be given twice"),
        _ => error,
    }
}
