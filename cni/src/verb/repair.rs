//! Puts back what nf_tables has to hold for every living pod, from the records: after `nft flush ruleset`,
//! or after a host's firewall loaded its own rules over everything.
//!
//! An ADD that finds no rule of ours although pods live does the same, and so does STATUS, which runtimes
//! ask for every few seconds: a flush costs pods their masquerade and host ports for that long and no
//! longer. What is there already is left alone.

use std::path::Path;

use node::{Error, Kind, Result};

use crate::apply::Hands;
use crate::attachment::{Attachment, Attachments};
use crate::kernel::link;
use crate::owner::Owner;
use crate::plan::reassert;
use crate::plan::step::{Place, Step};
use crate::request::Call;
use crate::state::State;
use crate::verb::check;

/// What was found out about one attachment.
#[derive(Debug)]
pub struct Mended {
    /// Its record.
    pub record: Attachment,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an attachment's part of nf_tables.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing was missing.
    Whole,
    /// This was missing and is back; or, where only a look was asked for, is missing.
    Missing(Vec<String>),
    /// The pod is gone: DEL, GC or `ipam check --fix` removes what is left of it.
    Gone,
    /// It could not be mended.
    Failed(Box<Error>),
}

/// Looks at every attachment, and puts back what is missing where `mend` says so; `tell` hears of each as it
/// is done.
pub fn every(
    state: &State,
    hands: &mut Hands,
    mend: bool,
    mut tell: impl FnMut(&Mended),
) -> Result<Vec<Mended>> {
    let _one_at_a_time = state.repairing()?;
    hands.repairing = true;
    let all = each(state, hands, mend, &mut tell)?;
    hands.repairing = false;
    if mend && all.iter().all(|m| !matches!(m.outcome, Outcome::Failed(_))) {
        state.note_mended()?;
    }
    Ok(all)
}

/// Looks at every attachment and holds up nobody. A pod that is on its way out meanwhile may be told of as if
/// something of it were missing.
pub fn look(state: &State, hands: &mut Hands) -> Result<Vec<Mended>> {
    each(state, hands, false, &mut |_| {})
}

fn each(state: &State, hands: &mut Hands, mend: bool, tell: &mut dyn FnMut(&Mended)) -> Result<Vec<Mended>> {
    let mut all = Vec::new();
    for folder in state.everywhere()? {
        for record in folder.all()?.into_iter().filter(|r| r.boot == state.boot) {
            let steps = reassert(&record);
            if steps.is_empty() {
                continue;
            }
            let outcome = one(&folder, &record, steps, hands, mend).unwrap_or_else(Outcome::Failed);
            let mended = Mended { record, outcome };
            tell(&mended);
            all.push(mended);
        }
    }
    Ok(all)
}

/// After an ADD that found our table gone: mends the other pods. What goes wrong there must not fail this pod;
/// the note stays, and STATUS tells it.
pub fn where_flushed(call: &Call, hands: &mut Hands) {
    if hands.state().was_flushed() {
        let _ = after_flush(hands, Some(&call.owner));
    }
}

/// After a flush was noticed: mends in silence all but one.
pub fn after_flush(hands: &mut Hands, but: Option<&Owner>) -> Result<()> {
    let state = hands.state();
    let _one_at_a_time = state.repairing()?;
    hands.repairing = true;
    let result = mend_all(state, hands, but);
    hands.repairing = false;
    result.and_then(|()| state.note_mended())
}

fn mend_all(state: &State, hands: &mut Hands, but: Option<&Owner>) -> Result<()> {
    let mut first = Ok(());
    for folder in state.everywhere()? {
        let others = |r: &Attachment| r.boot == state.boot && Some(&r.owner) != but;
        for record in folder.all()?.into_iter().filter(others) {
            let steps = reassert(&record);
            if steps.is_empty() || !lives(&record, hands)? {
                continue;
            }
            let result = put(&folder, &record, steps, hands);
            if first.is_ok() {
                first = result;
            }
        }
    }
    first
}

fn one(
    folder: &Attachments,
    record: &Attachment,
    steps: Vec<Step>,
    hands: &mut Hands,
    mend: bool,
) -> Result<Outcome> {
    if !lives(record, hands)? {
        return Ok(Outcome::Gone);
    }
    let mut missing = Vec::new();
    for step in &steps {
        missing.extend(check::absent(step, hands)?);
    }
    if missing.is_empty() {
        return Ok(Outcome::Whole);
    }
    if mend {
        put(folder, record, steps, hands)?;
    }
    Ok(Outcome::Missing(missing))
}

/// An ADD may have been taken back before: then what was put goes again.
fn put(folder: &Attachments, record: &Attachment, steps: Vec<Step>, hands: &mut Hands) -> Result<()> {
    let undo: Vec<Step> = steps.iter().filter_map(node::step::Step::inverse).collect();
    let result = hands.run(steps, &mut node::step::Done::default());
    if folder.has(&record.owner) { result } else { result.and(hands.run_all(undo)) }
}

/// Whether the pod is still there: its host end, or where it has none its namespace.
pub fn lives(record: &Attachment, hands: &mut Hands) -> Result<bool> {
    hands.go(Place::Host)?;
    match record.host_end() {
        Some(name) => Ok(link::index(&name)?.is_some()),
        None => Ok(Path::new(&record.netns).exists()),
    }
}

/// The refusal of an ADD or a STATUS whose repair went wrong.
pub fn failed(error: Box<Error>) -> Box<Error> {
    Error::caused(Kind::Unavailable, "put back what a flush of nf_tables took from pods that live", error)
        .hint("`nodeplug-cni repair` says what is wrong with which pod")
}
