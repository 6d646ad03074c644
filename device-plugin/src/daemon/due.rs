//! What the loop does by the clock.

use std::time::Instant;

use super::Daemon;
use crate::kernel::memory;

impl Daemon {
    /// When the loop has to wake though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let slots = self.slots.iter().flat_map(|slot| {
            let look = (!slot.looking).then_some(slot.next_look);
            let check = if slot.checking { None } else { slot.next_check };
            [look, check]
        });
        slots.chain([self.settled, self.calm, self.part, self.trim]).flatten().min()
    }

    pub(super) async fn do_what_is_due(&mut self) {
        let now = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.calm) {
            self.calm = None;
            self.reload().await;
        }
        let mut anew = false;
        for slot in self.slots.iter_mut().filter(|slot| slot.next_look <= now && !slot.looking) {
            slot.dirty = true;
            anew = true;
        }
        if is_due(self.settled) || (self.settled.is_none() && self.slots.iter().any(|slot| slot.dirty)) {
            self.settled = None;
            self.look_where_dirty(anew);
        }
        self.check_where_due(now);
        if is_due(self.trim) {
            self.trim = None;
            memory::trim();
        }
        if is_due(self.part) {
            self.ask_who_holds();
        }
    }
}
