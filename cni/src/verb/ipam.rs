//! Called as `host-local` or `static`: gives addresses to the plugin that asks
//! (CNI spec 1.1.0, section 4, "Plugin Delegation").

use node::{Error, Kind, Result};

use crate::request::{Call, Del, Gc};
use crate::result::CniResult;

/// Gives the addresses.
pub fn add(call: &Call) -> Result<CniResult> {
    Err(Error::new(Kind::UnsupportedField, format!("give addresses as `{}`", call.config.role.name())))
}

/// Whether they are still given.
pub fn check(_call: &Call) -> Result<()> {
    Ok(())
}

/// Takes them back.
pub fn del(_call: &Del) -> Result<()> {
    Ok(())
}

/// Takes back those of attachments that are not valid.
pub fn gc(_call: &Gc) -> Result<()> {
    Ok(())
}
