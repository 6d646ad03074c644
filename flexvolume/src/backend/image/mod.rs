//! A file that holds a file system. One volume at a time writes to it, or any number of them read it.

mod alone;
mod hash;
mod open;
mod options;
mod shared;

use node::{Error, Kind, Result};

use super::{Asked, Seen, Wish};
use crate::apply::Hands;
use crate::backend::medium::{self, only_read};
use crate::options::Reader;
use options::{Access, Image};

/// Reads the options of an image.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    Ok(Box::new(options::read(asked, reader)?))
}

impl Wish for Image {
    fn observe(self: Box<Self>, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        let place = self.place.as_ref().ok_or_else(|| Error::new(Kind::Internal, "find the image"))?;
        let opened = open::open(place, hands)?;
        let Some(file) = &opened.file else {
            let abandoned = open::abandoned(&opened.path, hands)?;
            return alone::missing(*self, opened, abandoned);
        };
        let length = open::length(file)?;
        let found = medium::look(file, length, self.wanted.fs, &opened.path)?;
        let Some(found) = found else { return Err(open::empty(&opened.path)) };
        self.policy.fs_type(found.fs)?;
        match self.access {
            Access::Shared => shared::found(&self, opened, found, hands),
            Access::Open if only_read(found.fs) => shared::found(&self, opened, found, hands),
            Access::Alone | Access::Open => alone::found(*self, opened, found, hands),
        }
    }
}

#[cfg(test)]
mod tests;
