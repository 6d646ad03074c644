//! What the loop does by the clock.

use std::time::Instant;

use super::{Daemon, LATE};
use crate::kernel::memory;

impl Daemon {
    /// When the loop has to wake though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let slots = self.slots.iter().flat_map(|slot| {
            // What waits for the end of a burst waits for nothing else.
            let look = (slot.looking.is_none() && !slot.dirty).then_some(slot.next_look);
            let late = slot.looking.filter(|_| !slot.late).map(|since| since + LATE);
            let check = if slot.checking > 0 { None } else { slot.next_check };
            [look, late, check]
        });
        slots.chain([self.settled, self.calm, self.part, self.trim]).flatten().min()
    }

    pub(super) async fn do_what_is_due(&mut self) {
        let now = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.calm) {
            self.calm = None;
            self.reload().await;
            self.look_at_file_later();
        }
        let mut anew = false;
        for slot in self.slots.iter_mut().filter(|slot| slot.next_look <= now && slot.looking.is_none()) {
            slot.dirty = true;
            anew = true;
        }
        if anew {
            // What nothing told of is noticed now: the kubelet's sockets, too.
            self.order(|orders| orders.looks += 1);
        }
        self.tell_of_late_looks(now);
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
