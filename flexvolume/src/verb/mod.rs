//! The calls of the protocol, each from what was asked to what was done.

mod attach;
mod expand;
mod mount;
mod unmount;

pub use mount::{mount, replace};
pub use unmount::unmount;

use std::time::{Duration, Instant};

use node::Result;
use node::store::Lock;

use crate::log::Entry;
use crate::record;
use crate::render::Answer;
use crate::request::{Call, Request};
use crate::target::Id;

/// How long a call waits for another call about the same volume. The kubelet tries again; a helper that
/// hangs keeps the lock, and calls must not pile up behind it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves a call that began at `start`; `entry` learns what its line tells.
pub fn serve(request: Request, start: Instant, entry: &mut Entry) -> Result<Answer> {
    match request.call {
        Call::Init => Ok(attach::init(request.driver)),
        Call::Mount(folder, options) => mount(request.driver, &folder, &options, start, entry),
        Call::Unmount(folder) => unmount(&folder, start, entry),
        Call::ExpandVolume { new } => Ok(attach::expand_volume(new)),
        Call::GetVolumeName(options) => Ok(attach::volume_name(&options)),
        Call::ExpandFs { target, new, .. } => expand::expand(&target, new, start, entry),
        Call::Attach | Call::Detach | Call::MountDevice | Call::UnmountDevice => Ok(Answer::default()),
        Call::IsAttached => Ok(attach::is_attached()),
        Call::WaitForAttach(device) => Ok(attach::wait_for_attach(device)),
        Call::Unknown(call) => Ok(Answer::unknown(&call)),
    }
}

/// The lock of a volume: one call about it at a time.
fn lock(id: &Id) -> Result<Lock> {
    record::lock(&format!("t-{id}"), PATIENCE)
}
