//! The host's loopback addresses on the way to a pod.
//!
//! IPv4 keeps them off every other link, unless `route_localnet` lets them out and in: who switches it on has
//! to drop what a link's neighbours send to 127.0.0.0/8 (see [`super::nft`]). IPv6 drops what bears ::1 as it
//! comes in, whatever is configured; the answer of a pod, which gets that address only when its translation
//! is taken back, needs a local route on the link that it came by (`rt6_need_strict` in the kernel).

use node::Result;

use super::socket::{RouteSocket, refused};
use super::{link, route, sysctl};

/// Opens `name` for them; a link that is gone needs nothing.
pub fn open(socket: &mut RouteSocket, name: &str, four: bool, six: bool) -> Result<()> {
    if four {
        sysctl::set(&setting(name), "1")?;
    }
    let Some(index) = link::index(name)?.filter(|_| six) else { return Ok(()) };
    match socket.batch(vec![route::add_loopback(index)])?.pop().flatten() {
        // There already, or a kernel without IPv6.
        Some(refusal) if matches!(refusal.errno(), libc::EEXIST | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            Ok(())
        }
        Some(refusal) => Err(refused(format!("add the local route `::1` on `{name}`"), refusal)),
        None => Ok(()),
    }
}

/// What of it is not in effect. A link that is gone is told by whoever made it.
pub fn closed(socket: &mut RouteSocket, name: &str, four: bool, six: bool) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let Some(index) = link::index(name)? else { return Ok(lines) };
    if four && sysctl::get(&setting(name))?.is_some_and(|value| value != "1") {
        lines.push(format!("`{}` is off", setting(name)));
    }
    if six && !route::has_loopback(socket, index)? {
        lines.push(format!("the local route `::1` on `{name}` is gone"));
    }
    Ok(lines)
}

fn setting(name: &str) -> String {
    format!("net/ipv4/conf/{name}/route_localnet")
}
