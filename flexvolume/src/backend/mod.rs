//! One file a backend. Each reads its options (pure, [`Wish`]), opens and looks at what they name
//! ([`Wish::observe`]), and says the steps of its mount (pure again, [`Seen`]).

pub mod bind;
pub mod block;
pub mod cifs;
mod common;
mod folder;
pub mod fuse;
pub mod image;
mod medium;
pub mod nfs;
pub mod overlay;
mod share;
pub mod tmpfs;

use node::{Error, Kind, Result};

pub use common::Common;
pub use medium::expand;

use crate::apply::Hands;
use crate::name::{Backend, Driver};
use crate::options::{Options, Pod, Reader};
use crate::plan::{Limits, Step};
use crate::policy::Policy;
use crate::record::Record;
use crate::target::Target;

/// What a backend reads its wish from.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The volume's options.
    pub options: &'a Options,
    /// The pod.
    pub pod: Pod,
    /// The folder.
    pub target: &'a Target,
    /// What this node allows.
    pub policy: &'a Policy,
    /// The options that every backend has.
    pub common: Common,
}

/// What a pod asked for, in order and allowed by the policy.
pub trait Wish: std::fmt::Debug {
    /// Opens what the wish names and looks at it. Descriptors and locks go into `hands`; nothing is changed.
    fn observe(self: Box<Self>, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>>;
}

/// A wish and what was found.
pub trait Seen: std::fmt::Debug {
    /// Adds what an unmount or a repair has to know.
    fn describe(&self, record: &mut Record);

    /// The steps that end with a tree in hand: made, filled, given to the pod's group.
    fn steps(&self) -> Vec<Step>;

    /// Whether other volumes may get copies of this mount: then the record says which one it is.
    fn is_shared(&self) -> bool {
        false
    }

    /// What the mount allows; `limits` is what every volume gets.
    fn limits(&self, limits: Limits) -> (Limits, bool) {
        (limits, false)
    }
}

/// The backend that is asked for: by the driver's name, or by the option `backend`.
pub fn choose(driver: Driver, reader: &mut Reader<'_>) -> Result<Backend> {
    let names: Vec<(&str, Backend)> = Backend::ALL.to_vec();
    let option = reader.choice("backend", &names);
    match (driver, option) {
        (Driver::Only(name), Some(other)) if name != other => {
            let doing = format!("choose the backend `{}`", other.name());
            let why = format!("the driver was called as `{}`, which has that one backend", name.name());
            Err(Error::caused(Kind::Config, doing, why)
                .hint("leave the option `backend` out, or use the driver `nodeplug/volume`"))
        }
        (Driver::Only(name), _) => Ok(name),
        (Driver::Any, Some(backend)) => Ok(backend),
        (Driver::Any, None) => {
            let names: Vec<&str> = Backend::ALL.iter().map(|(n, _)| *n).collect();
            Err(Error::caused(Kind::Config, "choose a backend", "`backend` is missing")
                .hint(format!("set `backend` to one of {}", names.join(", "))))
        }
    }
}

/// Reads the wish of `backend`.
pub fn read(backend: Backend, asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    match backend {
        Backend::Block => block::read(asked, reader),
        Backend::Image => image::read(asked, reader),
        Backend::Tmpfs => tmpfs::read(asked, reader),
        Backend::Bind => bind::read(asked, reader),
        Backend::Fuse => fuse::read(asked, reader),
        Backend::Overlay => overlay::read(asked, reader),
        Backend::Nfs => nfs::read(asked, reader),
        Backend::Cifs => cifs::read(asked, reader),
    }
}
