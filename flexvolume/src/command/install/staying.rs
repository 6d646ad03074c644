//! `install --stay`: installs, and puts back what others take away, until SIGTERM.

use std::cell::RefCell;
use std::io::Write;

use node::Result;
use node::stay::{self, Look, Presence, Signals};

use super::{Install, Outcome, Report, Row, install_unless, refuse_foreign};

/// As whom it stays.
pub(super) const PROGRAM: &str = "nodeplug-flexvolume";

/// Ends with what the first install says, after `print` has said it, or with an error of it.
pub fn run(wish: &Install, print: &dyn Fn(&Report)) -> Result<()> {
    let signals = Signals::hold()?;
    refuse_foreign(wish)?;
    let Some(report) = install_unless(wish, &|| false)? else { return Ok(()) };
    print(&report);
    let presence = RefCell::new(Presence::of(&report.folder, PROGRAM));
    presence.borrow_mut().show()?;
    let folders = || {
        let drivers = report.drivers.iter().filter_map(|row| row.path.parent());
        std::iter::once(report.folder.clone()).chain(drivers.map(Into::into)).collect()
    };
    // What a person said once does not count for what others do later.
    let again = Install { force: false, ..wish.clone() };
    let mut look = || {
        let called_off = || presence.borrow().is_dismissed();
        let Some(report) = install_unless(&again, &called_off)? else { return Ok(Look::Dismissed) };
        presence.borrow_mut().show()?;
        let lines: Vec<String> = report.drivers.iter().filter_map(change).collect();
        Ok(if lines.is_empty() { Look::Fine } else { Look::Mended(lines) })
    };
    let tell = |line: &str| drop(writeln!(std::io::stderr(), "{line}"));
    stay::stay(&signals, &folders, &mut look, &tell)?;
    presence.into_inner().end()
}

fn change(row: &Row) -> Option<String> {
    match row.outcome {
        Outcome::Installed => Some(format!("put back `{}`, which was gone", row.driver)),
        Outcome::Replaced => Some(format!("put back `{}`, which was changed", row.driver)),
        _ => None,
    }
}
