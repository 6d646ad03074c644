//! `install --stay`: installs, and puts back what other installers take away, until SIGTERM.

use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use node::Result;
use node::stay::{self, Look, Presence, Signals};

use super::report::{Outcome, Report};
use super::source::{Given, Source};
use super::{Install, Manner, work};
use crate::role::OWN;

/// How often the API server is asked again: a node's subnets change only when the Node object is made anew.
const ASKED_EVERY: Duration = Duration::from_mins(10);

/// Ends with what the first install says, after `print` has said it, or with an error of it.
pub fn run(wish: &Install, print: &dyn Fn(&Report)) -> Result<()> {
    let signals = Signals::hold()?;
    let source = Source::of(wish, &super::environment)?;
    let manner = Manner { patience: None, signals: Some(&signals), called_off: &|| false, again: false };
    let Some(done) = work(wish, source.as_ref(), manner)? else { return Ok(()) };
    print(&done.report);
    let presence = RefCell::new(Presence::of(&done.report.folder, OWN));
    presence.borrow_mut().show()?;
    let mut keeper = Keeper {
        wish,
        source,
        settled: done.given,
        asked: Instant::now(),
        complaint: String::new(),
        signals: &signals,
    };
    let folders = || -> Vec<PathBuf> {
        let conf = done.report.conflist.as_ref().and_then(|made| made.path.parent());
        std::iter::once(done.report.folder.clone()).chain(conf.map(PathBuf::from)).collect()
    };
    let mut look = || keeper.look(&presence);
    stay::stay(&signals, &folders, &mut look, &tell)?;
    presence.into_inner().end()
}

/// What is kept, and where it comes from.
struct Keeper<'a> {
    wish: &'a Install,
    source: Option<Source>,
    /// What the source said last: where it does not answer, the network stays as it is.
    settled: Option<Given>,
    asked: Instant,
    /// What was said of the source last.
    complaint: String,
    signals: &'a Signals,
}

impl Keeper<'_> {
    fn look(&mut self, presence: &RefCell<Presence>) -> Result<Look> {
        let called_off = || presence.borrow().is_dismissed();
        let manner = Manner {
            patience: Some(Duration::ZERO),
            signals: Some(self.signals),
            called_off: &called_off,
            again: true,
        };
        let settled = self.settled.clone().map(Source::Known);
        let done = work(self.wish, settled.as_ref(), manner);
        // The folder may have been made just now.
        let shown = presence.borrow_mut().show();
        let Some(done) = done? else { return Ok(Look::Dismissed) };
        shown?;
        let mut lines = changes(&done.report);
        if let Some(source) = self.source.as_ref().filter(|source| self.is_due(source)) {
            self.asked = Instant::now();
            match work(self.wish, Some(source), manner) {
                Ok(None) => return Ok(Look::Dismissed),
                Ok(Some(done)) => {
                    lines.extend(changes(&done.report));
                    self.settled = done.given;
                    self.complaint.clear();
                }
                // What is there stays as it is.
                Err(error) => {
                    let complaint = format!("the subnets stay as they are: {}", error.chain());
                    if complaint != self.complaint {
                        tell(&complaint);
                        self.complaint = complaint;
                    }
                }
            }
        }
        Ok(if lines.is_empty() { Look::Fine } else { Look::Mended(lines) })
    }

    fn is_due(&self, source: &Source) -> bool {
        match source {
            Source::Api(_) => self.asked.elapsed() >= ASKED_EVERY,
            source => source.may_change(),
        }
    }
}

/// A line for whoever reads the container's log.
pub(super) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What an install that should have had nothing to do has done.
fn changes(report: &Report) -> Vec<String> {
    let name = |outcome: Outcome, what: String| match outcome {
        Outcome::Unchanged => None,
        Outcome::Installed => Some(format!("put back {what}, which was gone")),
        Outcome::Replaced => Some(format!("put back {what}, which was another program's")),
        _ => Some(format!("put back {what}, which was changed")),
    };
    let names = report.names.iter().filter_map(|row| name(row.outcome, format!("`{}`", row.name)));
    let conflist = report.conflist.as_ref().and_then(|made| {
        let what = format!("`{}` with {}", made.path.display(), made.subnets.join(" and "));
        name(made.outcome, what)
    });
    names.chain(conflist).collect()
}
