//! The node's /dev and /sys, as one look sees them; what several steps of it need is read once.

use std::cell::OnceCell;

use crate::config::Host;

use super::dev::Dev;
use super::links::Links;
use super::nodes::Index;
use super::tree::Sys;
use super::usb_index::UsbIndex;

/// What one look goes by.
#[derive(Debug)]
pub struct View {
    /// The node's /dev, and its files elsewhere.
    pub dev: Dev,
    /// The node's /sys.
    pub sys: Sys,
    links: OnceCell<Links>,
    nodes: OnceCell<Index>,
    usb: OnceCell<UsbIndex>,
    /// What was found out about folders on the way.
    pub known: super::identity::Known,
}

impl View {
    /// Where the node's files are seen.
    pub fn new(host: &Host) -> Self {
        Self {
            dev: Dev::new(host),
            sys: Sys::new(&host.sys),
            links: OnceCell::new(),
            nodes: OnceCell::new(),
            usb: OnceCell::new(),
            known: super::identity::Known::default(),
        }
    }

    /// The stable symlinks below /dev.
    pub fn links(&self) -> &Links {
        self.links.get_or_init(|| Links::read(&self.dev))
    }

    /// All devices that have a node.
    pub fn nodes(&self) -> &Index {
        self.nodes.get_or_init(|| Index::read(&self.sys))
    }

    /// All USB devices.
    pub fn usb(&self) -> &UsbIndex {
        self.usb.get_or_init(|| UsbIndex::read(&self.sys))
    }
}
