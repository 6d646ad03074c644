//! A share by the distribution's mount.nfs(8).
//!
//! The helper tries once (`retry=0`): trying again is the kubelet's. Without `vers` client and server agree
//! on the newest 4.x that both speak; NFS 3 has to be asked for, as it needs more services on both sides.

use node::Result;

use super::share::{self, Server, Wanted, Words};
use super::{Asked, Wish};
use crate::options::Reader;
use crate::options::mount_options::{Attr, Fs, MountOptions};
use crate::plan::{Protocol, Share};

const VERSIONS: [&str; 5] = ["3", "4", "4.0", "4.1", "4.2"];
const TRANSPORTS: [&str; 4] = ["tcp", "tcp6", "rdma", "rdma6"];
const SECURITY: [&str; 5] = ["sys", "krb5", "krb5i", "krb5p", "none"];

/// Reads the options `server`, `share`, `subDir`, `createSubDir`, `vers`, `proto`, `port`, `sec`, `timeo`,
/// `retrans`, `nconnect`, `nolock`.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    wanted(asked, reader).map(share::wish)
}

/// `None` where the mistakes that the reader has noted leave nothing to go on.
pub(super) fn wanted(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Option<Wanted>> {
    let server = reader.parsed::<Server>("server");
    let server = reader.required("server", server, "the server's name or address");
    let export = reader.text("share").map(str::to_owned);
    let export = reader.required("share", export, "the exported folder, such as /export/data");
    let export = export.filter(|path| export_is_plain(reader, path));
    share::fs_type(asked, reader, &["nfs", "nfs4"], Protocol::Nfs);
    let more = share::mount_options(reader, Fs::Nfs);
    let read_only = asked.common.read_only || more.attributes.contains(&Attr::ReadOnly);
    let options = words(asked, reader, &more, read_only);
    let folder = share::sub_folder(asked, reader, true);
    let (Some(server), Some(export)) = (server, export) else { return Ok(None) };
    let helper = asked.policy.nfs(&asked.pod.namespace, server.plain())?.helper.clone();
    let mut common = asked.common.clone();
    common.read_only = read_only;
    let source = format!("{server}:{export}");
    let credentials = Vec::new();
    let share = Share { protocol: Protocol::Nfs, helper, source, options, credentials, folder };
    // Who may change the group of files on a server is the server's to say: only when it is asked for.
    Ok(Some(Wanted { share, give: common.give(None), attributes: more.attributes, read_only }))
}

/// Whether the exported folder is written plainly; a mistake is noted.
fn export_is_plain(reader: &mut Reader<'_>, export: &str) -> bool {
    let problem = match export.strip_prefix('/') {
        None => Err("does not start with `/`".to_owned()),
        Some("") => Ok(()),
        Some(rest) => share::path(rest),
    };
    let problem = problem.map_err(|why| reader.problem("share", format!("{why}; write /export/data")));
    problem.is_ok()
}

fn words(asked: &Asked<'_>, reader: &mut Reader<'_>, more: &MountOptions, read_only: bool) -> Vec<String> {
    let mut words = Words::new(asked, read_only);
    let vers = reader.choice("vers", &VERSIONS.map(|v| (v, v)));
    let elsewhere = more.options.iter().any(|o| matches!(o.name.as_str(), "vers" | "nfsvers"));
    words.text("vers", vers.or((!elsewhere).then_some("4")));
    words.text("retry", Some(0));
    words.text("proto", reader.choice("proto", &TRANSPORTS.map(|t| (t, t))));
    words.text("port", reader.number("port", 1..=65535));
    words.text("sec", reader.choice("sec", &SECURITY.map(|s| (s, s))));
    words.text("timeo", reader.number("timeo", 1..=6000));
    words.text("retrans", reader.number("retrans", 0..=1000));
    words.text("nconnect", reader.number("nconnect", 1..=16));
    words.flag("nolock", reader.flag("nolock").unwrap_or(false));
    words.label(reader, asked.common.selinux.as_deref());
    words.more(reader, more);
    words.all()
}
