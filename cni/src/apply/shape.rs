//! What needs a look at a link's qdiscs: whose is in the way, and whose may be taken away.

use node::Result;

use super::Hands;
use crate::kernel::socket::{Refusal, refused};
use crate::kernel::tc::{self, Filter};
use crate::plan::step::{Place, Verb};

impl Hands<'_> {
    /// Whose qdisc a refused verb met, as a hint.
    pub(super) fn qdisc_in_the_way(
        &mut self,
        place: Place,
        verb: &Verb,
        refusal: &Refusal,
    ) -> Option<String> {
        let (link, look): (_, fn(&mut _, _) -> _) = match verb {
            Verb::Shape { link, .. } => (link, tc::root),
            Verb::Ingress { link, .. } => (link, tc::ingress),
            _ => return None,
        };
        let index = self.index(place, link).ok().flatten().filter(|_| refusal.errno() == libc::EEXIST)?;
        let qdisc = look(self.socket(place).ok()?, index).ok().flatten()?;
        Some(format!(
            "`{link}` has the qdisc `{} {:x}:`, which somebody else made: take the rates out, or have the \
             other program leave this link alone",
            qdisc.kind, qdisc.handle
        ))
    }

    /// Deletes the ingress qdisc of a link whose filters lead to `to` or nowhere. Any other is somebody
    /// else's, and stays; so does the link where it is gone.
    pub(super) fn unredirect(&mut self, link: &str, to: &str) -> Result<()> {
        let Some(index) = self.index(Place::Host, link)? else { return Ok(()) };
        let own = self.index(Place::Host, to)?;
        let socket = self.socket(Place::Host)?;
        if tc::ingress(socket, index)?.is_none_or(|qdisc| qdisc.kind != "ingress") {
            return Ok(());
        }
        // A redirection whose link is gone leads to 0.
        let is_own = |filter: &Filter| match *filter {
            Filter::Redirect(target) => target == 0 || Some(target) == own,
            Filter::Other => false,
        };
        if !tc::filters(socket, index)?.iter().all(is_own) {
            return Ok(());
        }
        match socket.batch(vec![tc::delete_ingress(index)])?.pop().flatten() {
            Some(refusal) if ![libc::ENODEV, libc::ENOENT, libc::EINVAL].contains(&refusal.errno()) => {
                Err(refused(format!("delete the ingress qdisc of `{link}`"), refusal))
            }
            _ => Ok(()),
        }
    }
}
