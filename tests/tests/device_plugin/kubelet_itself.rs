//! The kubelet of these tests is as strict and as unforgiving as the real one.

mod admitting;
pub mod plugin;
mod registering;
mod streaming;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [registering::trials(), streaming::trials(), admitting::trials()].into_iter().flatten().collect()
}
