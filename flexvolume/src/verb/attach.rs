//! `init`, and the calls of drivers that attach. This one has nothing to attach: every pod gets a mount of
//! its own from `mount`. Where the kubelet makes the other calls all the same, they agree and do nothing.

use crate::name::Driver;
use crate::options::Options;
use crate::render::Answer;

/// The capabilities of the driver's name. Reads no file: the kubelet holds a lock of all volumes meanwhile.
pub fn init(driver: Driver) -> Answer {
    Answer { capabilities: Some(driver.capabilities()), ..Answer::default() }
}

/// The name that the kubelet gave.
pub fn volume_name(options: &Options) -> Answer {
    Answer { volume_name: Some(options.volume().to_owned()), ..Answer::default() }
}

/// It always is.
pub fn is_attached() -> Answer {
    Answer { attached: Some(true), ..Answer::default() }
}

/// The device as it was given.
pub fn wait_for_attach(device: String) -> Answer {
    Answer { device: Some(device), ..Answer::default() }
}

/// The size that was asked for: the medium grows when `expandfs` is called on the node.
pub fn expand_volume(new: u64) -> Answer {
    Answer { volume_new_size: Some(new), ..Answer::default() }
}
