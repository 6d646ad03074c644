//! What of a pod's rates is not in effect.

use node::Result;

use super::index;
use crate::apply::Hands;
use crate::kernel::tc::{self, Bucket, Filter};
use crate::plan::step::Place;

/// A link without the bucket, or with another one. A burst that nobody told may be any.
pub(super) fn bucket(link: &str, wanted: &Bucket, told: bool, hands: &mut Hands) -> Result<Option<String>> {
    let Some(index) = index(Place::Host, link, hands)? else { return Ok(None) };
    let root = tc::root(hands.socket(Place::Host)?, index)?;
    let Some(found) = root.as_ref().and_then(|qdisc| qdisc.bucket) else {
        let kind = root.map_or_else(|| "nothing".to_owned(), |qdisc| format!("`{}`", qdisc.kind));
        return Ok(Some(format!("`{link}` has no rate: at its root is {kind} in place of `tbf`")));
    };
    let bits = |bytes: u64| u128::from(bytes) * 8;
    Ok(if found.rate != wanted.rate {
        Some(format!("`{link}` sends {} bits a second, not {}", bits(found.rate), bits(wanted.rate)))
    } else if told && found != *wanted {
        Some(format!("`{link}` has another burst than is asked for"))
    } else {
        None
    })
}

/// A link whose arrivals do not lead to `to`. Where that one is gone, this was told already.
pub(super) fn redirection(link: &str, to: &str, hands: &mut Hands) -> Result<Option<String>> {
    let (Some(own), Some(other)) = (index(Place::Host, link, hands)?, index(Place::Host, to, hands)?) else {
        return Ok(None);
    };
    let socket = hands.socket(Place::Host)?;
    if tc::ingress(socket, own)?.is_none() {
        return Ok(Some(format!("the ingress qdisc of `{link}` is gone")));
    }
    let leads = tc::filters(socket, own)?.contains(&Filter::Redirect(other));
    Ok((!leads).then(|| format!("the filter that redirects what arrives by `{link}` to `{to}` is gone")))
}
