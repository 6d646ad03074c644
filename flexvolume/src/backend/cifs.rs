//! A share by the distribution's mount.cifs(8).
//!
//! User name, password and domain reach the helper in a memory file that nobody else has a name for. A
//! helper that has no password asks a person for it and waits, so a share without one has to say that it
//! needs none. The pod's group gets the share by mount options: who owns what is made up by the client.

use node::Result;

use super::common::GroupPolicy;
use super::share::{self, Server, Wanted, Words};
use super::{Asked, Wish};
use crate::options::mount_options::{Attr, Fs, MountOptions};
use crate::options::{Reader, Secrets};
use crate::plan::{Protocol, Share, credential};

/// `3` is any of 3.x that the server speaks. SMB 1 has neither encryption nor a safe signature.
const VERSIONS: [&str; 6] = ["3", "3.0", "3.02", "3.1.1", "2.1", "2.0"];
const SECURITY: [&str; 7] = ["none", "krb5", "krb5i", "ntlmssp", "ntlmsspi", "ntlmv2", "ntlmv2i"];
/// What files and folders show where the pod has a group: everything for it and for the owner.
const GROUP_MODE: u32 = 0o770;
/// The most that the helper takes (`MAX_USERNAME_SIZE`, `MAX_DOMAIN_SIZE`, `MOUNT_PASSWD_SIZE`): of a
/// password, after it has doubled the commas.
const LONGEST_NAME: usize = 255;
const LONGEST_PASSWORD: usize = 512;

/// Reads the options `source` or `server` and `share`, `subDir`, `createSubDir`, `vers`, `domain`, `sec`,
/// `seal`, `multiuser`, `guest`, `cruid`, `fileMode`, `dirMode`.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    wanted(asked, reader).map(share::wish)
}

/// `None` where the mistakes that the reader has noted leave nothing to go on.
pub(super) fn wanted(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Option<Wanted>> {
    let place = place(reader);
    share::fs_type(asked, reader, &["cifs", "smb3"], Protocol::Cifs);
    if asked.common.mode.is_some() {
        reader.problem("mode", "is not for a share of cifs; write `fileMode` and `dirMode`");
    }
    let more = share::mount_options(reader, Fs::Cifs);
    let read_only = asked.common.read_only || more.attributes.contains(&Attr::ReadOnly);
    let access = Access::read(asked, reader, &more)?;
    let options = words(asked, reader, &more, &access, read_only);
    let folder = share::sub_folder(asked, reader, false);
    let Some((server, path)) = place else { return Ok(None) };
    let helper = asked.policy.cifs(&asked.pod.namespace, server.plain())?.helper.clone();
    let source = format!("//{}/{path}", server.plain());
    let credentials = access.credentials;
    let share = Share { protocol: Protocol::Cifs, helper, source, options, credentials, folder };
    Ok(Some(Wanted { share, give: None, attributes: more.attributes, read_only }))
}

/// Server, and share with the path behind it.
fn place(reader: &mut Reader<'_>) -> Option<(Server, String)> {
    let source = reader.text("source").map(str::to_owned);
    let server = reader.text("server").map(str::to_owned);
    let share = reader.text("share").map(str::to_owned);
    let (from, server, share) = match (source, server, share) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            reader.problem("source", "says what `server` and `share` say; write one or the other");
            return None;
        }
        (Some(source), None, None) => {
            let parts = source.strip_prefix("//").and_then(|rest| rest.split_once('/'));
            let Some((server, share)) = parts else {
                reader.problem("source", "is not a share; write //server/share, with forward slashes");
                return None;
            };
            ("source", server.to_owned(), share.to_owned())
        }
        (None, server, share) => {
            let server =
                reader.required("server", server, "the server's name, or write `source: //server/share`");
            let share =
                reader.required("share", share, "the share's name, or write `source: //server/share`");
            ("share", server?, share?)
        }
    };
    let server = server.parse::<Server>().map_err(|why| {
        reader.problem(if from == "source" { from } else { "server" }, why);
    });
    let fit = share::smb_path(&share).map_err(|why| {
        reader.problem(from, format!("{why}; write the share's name, and folders behind it if need be"));
    });
    fit.ok().and(server.ok()).map(|server| (server, share))
}

/// How the user is known to the server.
#[derive(Debug, Default)]
struct Access {
    guest: bool,
    sec: Option<&'static str>,
    cruid: Option<u32>,
    domain: Option<String>,
    credentials: Vec<(&'static str, String)>,
}

impl Access {
    fn read(asked: &Asked<'_>, reader: &mut Reader<'_>, more: &MountOptions) -> Result<Self> {
        let secrets = asked.options.secrets()?;
        let guest = reader.flag("guest").unwrap_or(false);
        let sec = reader.choice("sec", &SECURITY.map(|s| (s, s)));
        let cruid = reader.id("cruid");
        let domain = reader.text("domain").map(str::to_owned);
        let written = more.options.iter().find(|o| o.name == "sec").and_then(|o| o.value.as_deref());
        let kind = sec.or(written).unwrap_or_default();
        let ticket = kind.starts_with("krb5");
        if cruid.is_some() && !ticket {
            reader.problem("cruid", "says whose Kerberos ticket counts; write `sec: krb5` with it");
        }
        if let Some(why) = domain.as_deref().and_then(|domain| name(domain.as_bytes()).err()) {
            reader.problem("domain", why);
        }
        let credentials = if guest { Vec::new() } else { lines(reader, &secrets, domain.is_some()) };
        if guest && (ticket || has(&secrets, "username") || has(&secrets, "password")) {
            reader.problem("guest", "contradicts `sec: krb5` and a Secret with `username` or `password`");
        }
        if !guest && !ticket && kind != "none" {
            complete(asked, reader, &secrets);
        }
        Ok(Self { guest, sec, cruid, domain, credentials })
    }
}

fn has(secrets: &Secrets, key: &str) -> bool {
    secrets.get(key).is_some_and(|value| !credential(value).is_empty())
}

/// The lines of the credentials that the Secret has; unfit values are noted.
fn lines(reader: &mut Reader<'_>, secrets: &Secrets, domain: bool) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for key in ["username", "password", "domain"] {
        let Some(value) = secrets.get(key).map(credential).filter(|value| !value.is_empty()) else {
            continue;
        };
        let fit = if key == "password" { password(value) } else { name(value) };
        if let Err(why) = fit {
            reader.problem("secretRef", format!("names a Secret whose `{key}` {why}"));
        }
        if key == "domain" && domain {
            reader.problem("domain", "stands in the Secret, too; leave one of them out");
        }
        lines.push((key, key.to_owned()));
    }
    lines
}

/// Without these the helper asks a person.
fn complete(asked: &Asked<'_>, reader: &mut Reader<'_>, secrets: &Secrets) {
    let missing: Vec<&str> = ["username", "password"].into_iter().filter(|key| !has(secrets, key)).collect();
    if missing.is_empty() {
        return;
    }
    let kind = asked.target.driver().replacen('~', "/", 1);
    reader.problem(
        "secretRef",
        format!(
            "has to name a Secret with {}: `kubectl create secret generic NAME --type={kind} \
             --from-literal=username=USER --from-literal=password=PASSWORD`; a share without a password \
             needs `guest: \"true\"`, one with Kerberos `sec: krb5`",
            missing.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ")
        ),
    );
}

/// A password may have any character but those that end the line that it stands in.
fn password(value: &[u8]) -> std::result::Result<(), String> {
    let doubled: usize = value.iter().map(|b| if *b == b',' { 2 } else { 1 }).sum();
    if doubled > LONGEST_PASSWORD {
        return Err(format!("is longer than {LONGEST_PASSWORD} bytes, where a comma counts as two"));
    }
    if value.iter().any(|b| matches!(b, b'\n' | b'\r' | b'\0')) {
        return Err("has a line end or a zero byte, which no password of a share can have".to_owned());
    }
    Ok(())
}

/// A user's or a domain's name: mount.cifs puts it between commas as it is, so a comma would begin a mount
/// option that nobody has looked at.
fn name(value: &[u8]) -> std::result::Result<(), String> {
    if value.len() > LONGEST_NAME {
        return Err(format!("is longer than {LONGEST_NAME} bytes"));
    }
    if std::str::from_utf8(value).is_err() || value.iter().any(|b| b.is_ascii_control() || *b == b',') {
        return Err(
            "has a comma or a control character, which no user's or domain's name can have".to_owned()
        );
    }
    Ok(())
}

fn words(
    asked: &Asked<'_>,
    reader: &mut Reader<'_>,
    more: &MountOptions,
    access: &Access,
    read_only: bool,
) -> Vec<String> {
    let common = &asked.common;
    let said = |name: &str| more.options.iter().any(|option| option.name == name);
    let group = common.fs_group.filter(|_| common.group_policy != Some(GroupPolicy::None));
    let gid = common.gid.or(group.filter(|_| !said("gid")));
    let usual = |name: &str| (group.is_some() && !said(name)).then_some(GROUP_MODE);
    let mut words = Words::new(asked, read_only);
    let vers = reader.choice("vers", &VERSIONS.map(|v| (v, v)));
    words.text("vers", vers.or((!said("vers")).then_some("3")));
    words.text("sec", access.sec);
    words.flag("seal", reader.flag("seal").unwrap_or(false));
    words.flag("multiuser", reader.flag("multiuser").unwrap_or(false));
    words.flag("guest", access.guest);
    words.text("cruid", access.cruid);
    words.text("domain", access.domain.as_deref());
    words.text("uid", common.uid);
    words.text("gid", gid);
    words.text("file_mode", reader.mode("fileMode").or(usual("file_mode")).map(|m| format!("0{m:o}")));
    words.text("dir_mode", reader.mode("dirMode").or(usual("dir_mode")).map(|m| format!("0{m:o}")));
    words.label(reader, common.selinux.as_deref());
    words.more(reader, more);
    words.all()
}
