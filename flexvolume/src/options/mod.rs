//! A volume's options: the flat map of strings that the kubelet hands over, and how it is read.
//!
//! Everything here is pure. The kubelet merges the pod author's own `options:` last, over its own keys,
//! so no key is to be trusted more than another: the pod's uid is checked against the target elsewhere.

mod json;
pub mod mount_options;
pub mod quantity;
mod reader;
pub mod relative_path;
pub mod seconds;
mod secret;
pub mod template;

use std::collections::BTreeMap;
use std::fmt;

use node::{Context, Kind, Result};
use zeroize::Zeroizing;

pub use quantity::Quantity;
pub use reader::Reader;
pub use relative_path::RelativePath;
pub use seconds::Seconds;
pub use secret::Secrets;

/// What every key of the kubelet's own starts with.
const KUBELET: &str = "kubernetes.io/";

/// The whole map, secrets included. Its memory is cleared when it is dropped; `Debug` shows keys alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, Zeroizing<String>>);

/// The pod that the volume is for, as the kubelet names it on `mount`; empty where it said nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// `kubernetes.io/pod.name`.
    pub name: String,
    /// `kubernetes.io/pod.namespace`.
    pub namespace: String,
    /// `kubernetes.io/pod.uid`.
    pub uid: String,
    /// `kubernetes.io/serviceAccount.name`.
    pub service_account: String,
}

impl Options {
    /// Reads a JSON object whose values are strings, as Go writes it. The last of two equal keys wins, as
    /// it does for Go. An error is `Kind::Decode`, names the key and the place, and holds no value.
    pub fn parse(json: &str) -> Result<Self> {
        json::parse(json).map(Self)
    }

    /// The value of `key`, empty or not.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The pod.
    pub fn pod(&self) -> Pod {
        Pod {
            name: self.kubelets("pod.name").to_owned(),
            namespace: self.kubelets("pod.namespace").to_owned(),
            uid: self.kubelets("pod.uid").to_owned(),
            service_account: self.kubelets("serviceAccount.name").to_owned(),
        }
    }

    /// The volume's name in the pod, or the PersistentVolume's name; empty where the kubelet said nothing.
    pub fn volume(&self) -> &str {
        self.kubelets("pvOrVolumeName")
    }

    /// The filesystem asked for: the option `fsType` before the field of the same name; "" is none.
    pub fn fs_type(&self) -> Option<&str> {
        let own = self.get("fsType").filter(|value| !value.is_empty());
        own.or_else(|| Some(self.kubelets("fsType")).filter(|value| !value.is_empty()))
    }

    /// Whether the volume is read-only: by the pod's (or claim's) `readOnly`, or by the option of that
    /// name. A [`Reader`] has to ask for `readOnly` as well, so that a wrong value is reported.
    pub fn read_only(&self) -> bool {
        self.kubelets("readwrite") == "ro" || self.get("readOnly") == Some("true")
    }

    /// The pod's fsGroup, sent whatever capabilities `init` declared.
    pub fn fs_group(&self) -> Result<Option<u32>> {
        // Kubelets before 1.15 wrote `kubernetes.io/fsGroup`.
        let text = [self.kubelets("mounterArgs.FsGroup"), self.kubelets("fsGroup")];
        let Some(text) = text.into_iter().find(|text| !text.is_empty()) else { return Ok(None) };
        let group = text.parse::<u32>().ok().filter(|group| *group != u32::MAX);
        let group = group.ok_or_else(|| format!("{} is not a group id from 0 to 4294967294", quoted(text)));
        group.doing(Kind::Config, || "read the pod's fsGroup".to_owned()).map(Some)
    }

    /// A reader of them.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self)
    }

    /// The pod's own options and the kubelet's words, without the Secret: what a record may hold once a
    /// reader has known every key.
    pub fn plain(&self) -> BTreeMap<String, String> {
        let plain = self.0.iter().filter(|(key, _)| !key.starts_with("kubernetes.io/secret/"));
        plain.map(|(key, value)| (key.clone(), value.as_str().to_owned())).collect()
    }

    /// The keys of the Secret that `secretRef` names, decoded.
    pub fn secrets(&self) -> Result<Secrets> {
        Secrets::of(self)
    }

    /// A key of the kubelet's own, without its prefix; absent is empty.
    fn kubelets(&self, key: &str) -> &str {
        self.get(&format!("{KUBELET}{key}")).unwrap_or_default()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Options")?;
        f.debug_set().entries(self.keys()).finish()
    }
}

/// Text in backticks, with control characters escaped and cut so that a message stays a line.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let cut: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    format!("`{}{more}`", cut.replace("\\\"", "\"").replace("\\'", "'"))
}

/// The word of `known` that somebody who wrote `word` most likely meant: the same in another case, or
/// within a third of its length.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let near = known.into_iter().map(|k| (strsim::damerau_levenshtein(&k.to_lowercase(), &word), k));
    near.filter(|(distance, k)| *distance <= k.len().max(word.len()) / 3).min().map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r#"{"backend":"tmpfs","kubernetes.io/fsType":"ext4","kubernetes.io/mounterArgs.FsGroup":"1234","kubernetes.io/pod.name":"p","kubernetes.io/pod.namespace":"ns","kubernetes.io/pod.uid":"uid-1","kubernetes.io/pvOrVolumeName":"data","kubernetes.io/readwrite":"rw","kubernetes.io/secret/password":"aHVudGVyMix4PXk=","kubernetes.io/secret/username":"Ym9i","kubernetes.io/serviceAccount.name":"sa","size":"1Mi"}"#;

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options(pairs.iter().map(|(k, v)| ((*k).to_owned(), Zeroizing::new((*v).to_owned()))).collect())
    }

    #[test]
    fn a_kubelets_own_words_are_understood() {
        let read = Options::parse(DUMP).unwrap();
        let pod = Pod {
            name: "p".into(),
            namespace: "ns".into(),
            uid: "uid-1".into(),
            service_account: "sa".into(),
        };
        assert_eq!(read.pod(), pod);
        assert_eq!((read.volume(), read.fs_type(), read.read_only()), ("data", Some("ext4"), false));
        assert_eq!(read.fs_group().unwrap(), Some(1234));
        let secrets = read.secrets().unwrap();
        assert_eq!(secrets.get("password"), Some(&b"hunter2,x=y"[..]));
        assert_eq!(secrets.names().collect::<Vec<_>>(), ["password", "username"]);
    }

    #[test]
    fn what_is_absent_is_empty_and_not_an_error() {
        let read = Options::default();
        assert_eq!(read.pod(), Pod::default());
        assert_eq!((read.volume(), read.fs_type(), read.read_only()), ("", None, false));
        assert_eq!(read.fs_group().unwrap(), None);
        assert!(read.secrets().unwrap().is_empty());
    }

    #[test]
    fn the_filesystem_and_read_only_come_from_either_side() {
        let table = [
            ([("kubernetes.io/fsType", ""), ("fsType", "")], None, false),
            ([("kubernetes.io/fsType", "ext4"), ("fsType", "xfs")], Some("xfs"), false),
            ([("kubernetes.io/fsType", "ext4"), ("fsType", "")], Some("ext4"), false),
            ([("kubernetes.io/readwrite", "ro"), ("readOnly", "false")], None, true),
            ([("kubernetes.io/readwrite", "rw"), ("readOnly", "true")], None, true),
            ([("kubernetes.io/readwrite", "rw"), ("readOnly", "false")], None, false),
        ];
        for (pairs, fs_type, read_only) in table {
            let read = options(&pairs);
            assert_eq!((read.fs_type(), read.read_only()), (fs_type, read_only), "{pairs:?}");
        }
    }

    #[test]
    fn the_group_comes_under_its_new_and_its_old_name() {
        let table = [
            ("kubernetes.io/mounterArgs.FsGroup", "1000", Some(Some(1000))),
            ("kubernetes.io/fsGroup", "5", Some(Some(5))),
            ("kubernetes.io/fsGroup", "", Some(None)),
            ("kubernetes.io/fsGroup", "-1", None),
            ("kubernetes.io/mounterArgs.FsGroup", "4294967295", None),
            ("kubernetes.io/mounterArgs.FsGroup", "wheel", None),
        ];
        for (key, value, expect) in table {
            assert_eq!(options(&[(key, value)]).fs_group().ok(), expect, "{key}={value}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", Options::parse(DUMP).unwrap());
        assert!(shown.contains("kubernetes.io/secret/password"), "{shown}");
        assert!(!shown.contains("aHVud") && !shown.contains("tmpfs"), "{shown}");
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_word() {
        let known = ["size", "mode", "readOnly"];
        for (word, expect) in [
            ("readonly", Some("readOnly")),
            ("sise", Some("size")),
            ("volume", None),
            ("", None),
            ("mdoe", Some("mode")),
        ] {
            assert_eq!(nearest(word, known), expect, "{word}");
        }
    }
}
