use std::path::Path;
use std::time::Instant;

use super::*;
use crate::options::Options;
use crate::policy::{Handover, Policy};
use crate::target::Target;

const POLICY: &str = r#"
backends:
  fuse:
    profiles:
      sshfs:
        program: /usr/bin/sshfs
        arguments: ["${source}", "${mountpoint}", "-f", "-p", "${option.port}", "-o",
                    "gid=${fsGroup},IdentityFile=${secret.ssh-privatekey}"]
        sources: ["*@storage.example:*"]
        options: {port: {default: "22", allow: ["[0-9]*"]}}
        secrets: [ssh-privatekey, known_hosts]
        namespaces: [ns]
      rclone:
        program: /usr/bin/rclone
        arguments: [mount, "bucket:${pod.namespace}/${volume}", "${mountpoint}", --allow-other]
        environment: {RCLONE_CONFIG: "${secret.rclone.conf}"}
        handover: folder
        secrets: [rclone.conf]
      own:
        program: /usr/bin/own
        arguments: ["${mountpoint}"]
        defaultPermissions: false
      other: {program: /bin/x, arguments: ["${mountpoint}"], namespaces: [web]}
"#;

const KEY: (&str, &str) = ("kubernetes.io/secret/ssh-privatekey", "aHVudGVyMg==");
const SSHFS: (&str, &str) = ("profile", "sshfs");
const SOURCE: (&str, &str) = ("source", "bob@storage.example:/x, y");

fn wish(options: &[(&str, &str)]) -> std::result::Result<Fuse, String> {
    let pod =
        [("pod.namespace", "ns"), ("pod.name", "web-0"), ("pvOrVolumeName", "data"), ("readwrite", "rw")];
    let pod = pod.map(|(key, value)| (format!("kubernetes.io/{key}"), value));
    let own = options.iter().map(|(key, value)| ((*key).to_owned(), *value));
    let map: serde_json::Map<_, _> = pod.into_iter().chain(own).map(|(k, v)| (k, v.into())).collect();
    let options = Options::parse(&serde_json::Value::Object(map).to_string()).unwrap();
    let policy = Policy::parse(POLICY).unwrap();
    let target = Target::parse(Path::new("/k/pods/u/volumes/nodeplug~fuse/data"), Path::new("/k")).unwrap();
    let (pod, mut reader) = (options.pod(), options.reader());
    let common = Common::read(&options, &pod, &policy, &mut reader, Instant::now());
    let asked = Asked { options: &options, pod, target: &target, policy: &policy, common };
    let wish = fuse(&asked, &mut reader).map_err(|e| e.chain())?;
    reader.finish().map_err(|e| e.causes())?;
    Ok(wish)
}

/// The program's arguments, as they would be with these paths.
fn line(service: &Service) -> String {
    let words = service.arguments.iter().map(|words| words.with("/M", |key| format!("/S/{key}")));
    words.collect::<Vec<_>>().join("|")
}

fn settings(service: &Service) -> String {
    service.settings.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn a_program_gets_its_profile_s_words_and_what_the_pod_may_choose() {
    let fuse =
        wish(&[SSHFS, SOURCE, KEY, ("port", "2222"), ("kubernetes.io/mounterArgs.FsGroup", "7")]).unwrap();
    let service = &fuse.service;
    let expect = "bob@storage.example:/x, y|/M|-f|-p|2222|-o|gid=7,IdentityFile=/S/ssh-privatekey";
    assert_eq!(line(service), expect);
    let expect = "rootmode=40000,user_id=0,group_id=0,allow_other,subtype=sshfs,default_permissions";
    assert_eq!(settings(service), expect);
    assert_eq!(
        (service.handover, service.secrets.as_slice()),
        (Handover::Descriptor, ["ssh-privatekey".to_owned()].as_slice())
    );
    let mut record = Record::default();
    fuse.describe(&mut record);
    assert_eq!((record.source.as_str(), record.daemon), ("bob@storage.example:/x, y", true));
    let lines: Vec<_> = fuse.steps().iter().map(ToString::to_string).collect();
    let volume = service.volume.to_string();
    let expect = [
        format!("end what serves the volume `{volume}`"),
        "serve `bob@storage.example:/x, y` by `/usr/bin/sshfs` through an open /dev/fuse".to_owned(),
    ];
    assert_eq!(lines, expect);

    let fuse = wish(&[("profile", "rclone"), ("kubernetes.io/secret/rclone.conf", "eA==")]).unwrap();
    assert_eq!(line(&fuse.service), "mount|bucket:ns/data|/M|--allow-other");
    let environment: Vec<_> = fuse.service.environment.iter().map(|(n, w)| format!("{n}={w}")).collect();
    assert_eq!(environment, ["RCLONE_CONFIG=${secret.rclone.conf}"]);
    assert_eq!(fuse.service.others, Path::new("/k/pods"));

    let fuse =
        wish(&[("profile", "own"), ("mountOptions", "noatime,max_read=65536"), ("fsGroupPolicy", "root")]);
    let expect = "rootmode=40000,user_id=0,group_id=0,allow_other,subtype=own,max_read=65536";
    assert_eq!(settings(&fuse.unwrap().service), expect);
}

#[test]
fn what_a_profile_does_not_allow_is_refused() {
    let own = ("profile", "own");
    let table: [(&[(&str, &str)], &str); 16] = [
        (&[], "`profile` is missing"),
        (&[("profile", "nope")], "the node's policy has none of this name"),
        (&[("profile", "other")], "does not allow it to the namespace `ns`"),
        (&[SSHFS, KEY], "`source` is missing"),
        (&[SSHFS, KEY, ("source", "bob@evil.example:/")], "the profile's `sources` do not match it"),
        (&[SSHFS, KEY, ("source", "-oProxyCommand=x@storage.example:")], "starts with a dash"),
        (&[SSHFS, KEY, SOURCE, ("port", "22,ProxyCommand=x")], "`port` has a comma"),
        (&[SSHFS, KEY, SOURCE, ("port", "-1")], "`port` starts with a dash"),
        (&[SSHFS, KEY, SOURCE, ("port", "x")], "`port` is not what the node's policy allows"),
        (&[SSHFS, KEY, SOURCE, ("port", "2\n2")], "`port` has a newline or another control character"),
        (&[SSHFS, SOURCE], "the volume's Secret has no key `ssh-privatekey`"),
        (&[SSHFS, KEY, SOURCE, ("program", "/bin/sh")], "`program` is not an option here"),
        (&[own, ("source", "x")], "`source` is nothing that this profile has a use for"),
        (&[own, ("uid", "0")], "`uid` is nothing that a profile takes"),
        (&[own, ("mountOptions", "suid")], "suid"),
        (&[own, ("mountOptions", "fd=3")], "fd"),
    ];
    for (options, expect) in table {
        let why = wish(options).unwrap_err();
        assert!(why.contains(expect), "{options:?}: {why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}
