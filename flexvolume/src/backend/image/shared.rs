//! An image that any number of volumes read.

use node::{Error, Kind, Result};

use super::open::Opened;
use super::options::Image;
use crate::apply::Hands;
use crate::backend::Seen;
use crate::backend::medium::Found;

/// An image that is there.
pub fn found(_image: Image, _opened: Opened, _found: Found, _hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
    Err(Error::new(Kind::Internal, "not there yet"))
}
