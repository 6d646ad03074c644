//! `install --stay`: installs, and puts back what other installers take away, until SIGTERM.

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use node::stay::{self, Look, Presence, Signals};
use node::{Error, Result};

use super::report::{Outcome, Report};
use super::source::{Given, Source};
use super::{Install, Manner, work};
use crate::role::OWN;

/// How often the API server is asked again: a node's subnets change only when the Node object is made anew.
const ASKED_EVERY: Duration = Duration::from_mins(10);

/// The word that it stays, in the folder of plugins from the first install on.
#[derive(Debug, Default)]
pub(super) struct Post(RefCell<Option<Presence>>);

impl Post {
    /// Shows it, where it is not shown. For the holder of the folder's lock.
    pub fn show(&self, folder: &Path) -> Result<()> {
        self.0.borrow_mut().get_or_insert_with(|| Presence::of(folder, OWN)).show()
    }

    /// Whether somebody uninstalled meanwhile.
    pub fn is_dismissed(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(Presence::is_dismissed)
    }

    fn end(self) -> Result<()> {
        self.0.into_inner().map_or(Ok(()), Presence::end)
    }
}

/// Ends with what the first install says, after `print` has said it, or with an error of it.
pub fn run(wish: &Install, print: &dyn Fn(&Report)) -> Result<()> {
    let signals = Signals::hold()?;
    let post = Post::default();
    let result = keep(wish, &signals, &post, print);
    let ended = post.end();
    result.and(ended)
}

fn keep(wish: &Install, signals: &Signals, post: &Post, print: &dyn Fn(&Report)) -> Result<()> {
    let source = Source::of(wish, &super::environment)?;
    let manner = Manner { signals: Some(signals), post: Some(post), ..Manner::default() };
    let Some(done) = work(wish, source.as_ref(), manner)? else {
        return if post.is_dismissed() { stay::rest(signals, &tell) } else { Ok(()) };
    };
    print(&done.report);
    let folders = || {
        let conf = source.is_some().then(|| done.conf.clone());
        std::iter::once(done.report.folder.clone()).chain(conf).collect()
    };
    let mut keeper = Keeper {
        wish,
        source: source.clone(),
        settled: done.given,
        asked: Instant::now(),
        complaint: String::new(),
        signals,
        post,
    };
    keeper.complain(done.refused.as_deref());
    stay::stay(signals, &folders, &mut || keeper.look(), &tell)
}

/// What is kept, and where it comes from.
struct Keeper<'a> {
    wish: &'a Install,
    source: Option<Source>,
    /// What the source said last: where it does not answer, the network stays as it is.
    settled: Option<Given>,
    asked: Instant,
    /// What was said of the network last.
    complaint: String,
    signals: &'a Signals,
    post: &'a Post,
}

impl Keeper<'_> {
    fn look(&mut self) -> Result<Look> {
        let settled = self.settled.clone();
        let manner = Manner {
            patience: Some(Duration::ZERO),
            signals: Some(self.signals),
            post: Some(self.post),
            again: true,
            settled: settled.as_ref(),
        };
        let known = settled.clone().map(Source::Known);
        let Some(done) = work(self.wish, known.as_ref(), manner)? else { return Ok(Look::Dismissed) };
        let (mut lines, mut refused) = (changes(&done.report), done.refused);
        if let Some(source) = self.source.as_ref().filter(|source| self.is_due(source)) {
            self.asked = Instant::now();
            match work(self.wish, Some(source), manner) {
                Ok(None) => return Ok(Look::Dismissed),
                Ok(Some(done)) => {
                    lines.extend(changes(&done.report));
                    refused = done.refused;
                    if refused.is_none() {
                        self.settled = done.given;
                    }
                }
                // The program's: told at the next look, if it is so then.
                Err(error) => refused = Some(error),
            }
        }
        self.complain(refused.as_deref());
        Ok(if lines.is_empty() { Look::Fine } else { Look::Mended(lines) })
    }

    /// Says why the network is not as it should be, once.
    fn complain(&mut self, refused: Option<&Error>) {
        let hint = refused.and_then(Error::advice).map_or_else(String::new, |hint| format!("; {hint}"));
        let line = refused.map(|error| format!("the network stays as it is: {}{hint}", error.chain()));
        let line = line.unwrap_or_default();
        if !line.is_empty() && line != self.complaint {
            tell(&line);
        }
        self.complaint = line;
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
