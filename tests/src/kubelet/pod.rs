//! Pods and the volumes that they ask for.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::go_json;

/// The kubelet's root folder.
pub const ROOT: &str = "/var/lib/kubelet";

/// A pod, as far as its volumes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, of which no two pods have the same.
    pub uid: String,
    /// Its service account; empty for a static pod.
    pub service_account: String,
}

impl Pod {
    /// A pod of the account `default`, with a new UID.
    pub fn new(namespace: &str, name: &str) -> Self {
        let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a UUID");
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.trim().to_owned(),
            service_account: "default".to_owned(),
        }
    }

    /// A volume that is written in the pod itself.
    pub fn inline(&self, driver: &str, name: &str) -> Volume {
        Volume {
            pod: self.clone(),
            driver: driver.to_owned(),
            name: name.to_owned(),
            options: BTreeMap::new(),
            fs_type: String::new(),
            persistent: false,
            read_only: false,
            fs_group: None,
            secret: None,
            mount_options: false,
        }
    }

    /// A volume of a claim of the pod, bound to the PersistentVolume `name`.
    pub fn persistent(&self, driver: &str, name: &str) -> Volume {
        Volume { persistent: true, ..self.inline(driver, name) }
    }

    /// The pod's folder on the node.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(ROOT).join("pods").join(&self.uid)
    }
}

/// One volume of one pod.
#[derive(Debug, Clone)]
pub struct Volume {
    pub(crate) pod: Pod,
    pub(crate) driver: String,
    pub(crate) name: String,
    options: BTreeMap<String, String>,
    fs_type: String,
    pub(crate) persistent: bool,
    pub(crate) read_only: bool,
    pub(crate) fs_group: Option<u32>,
    secret: Option<Secret>,
    pub(crate) mount_options: bool,
}

#[derive(Debug, Clone)]
struct Secret {
    kind: String,
    data: BTreeMap<String, Vec<u8>>,
}

impl Volume {
    /// One of `options:`.
    #[must_use]
    pub fn option(mut self, key: &str, value: &str) -> Self {
        self.options.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Takes one of `options:` away.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.options.remove(key);
        self
    }

    /// `fsType:`.
    #[must_use]
    pub fn fs_type(mut self, fs_type: &str) -> Self {
        fs_type.clone_into(&mut self.fs_type);
        self
    }

    /// `readOnly:` of the volume in the pod, or of the claim; that of a PersistentVolume does nothing.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// `fsGroup:` of the pod.
    #[must_use]
    pub fn fs_group(mut self, group: u32) -> Self {
        self.fs_group = Some(group);
        self
    }

    /// A key of the secret that `secretRef:` names, of the type that the kubelet wants.
    #[must_use]
    pub fn secret(mut self, key: &str, value: &[u8]) -> Self {
        let kind = self.driver.clone();
        let secret = self.secret.get_or_insert_with(|| Secret { kind, data: BTreeMap::new() });
        secret.data.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The type of the secret, such as `Opaque`.
    #[must_use]
    pub fn secret_type(mut self, kind: &str) -> Self {
        let data = self.secret.map(|s| s.data).unwrap_or_default();
        self.secret = Some(Secret { kind: kind.to_owned(), data });
        self
    }

    /// `mountOptions:` of the PersistentVolume, which the kubelet refuses.
    #[must_use]
    pub fn mount_options(mut self) -> Self {
        self.mount_options = true;
        self
    }

    /// Where it is mounted for the pod.
    pub fn path(&self) -> PathBuf {
        self.pod.folder().join("volumes").join(self.driver.replace('/', "~")).join(&self.name)
    }

    /// Where an attached volume's device is mounted for all pods. By the volume's name alone: inline
    /// volumes of one name share it.
    pub fn device_path(&self) -> PathBuf {
        let drivers = PathBuf::from(ROOT).join("plugins/kubernetes.io/flexvolume");
        drivers.join(&self.driver).join("mounts").join(&self.name)
    }

    /// The pod whose it is.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The volume's name, or the PersistentVolume's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `vendor/driver`.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The driver's options as JSON, without what only `mount` gets.
    pub fn json(&self) -> String {
        go_json::object(&self.merged(Vec::new()))
    }

    /// The options that `mount` gets; an error where the secret is of another type.
    pub fn mount_json(&self) -> Result<String, String> {
        let pod = &self.pod;
        let mut more = vec![
            ("kubernetes.io/pod.name".to_owned(), pod.name.clone()),
            ("kubernetes.io/pod.namespace".to_owned(), pod.namespace.clone()),
            ("kubernetes.io/pod.uid".to_owned(), pod.uid.clone()),
            ("kubernetes.io/serviceAccount.name".to_owned(), pod.service_account.clone()),
        ];
        if let Some(secret) = &self.secret {
            if secret.kind != self.driver {
                return Err(format!(
                    "couldn't get secret {}/{} err: cannot get secret of type {}",
                    pod.namespace, self.name, self.driver
                ));
            }
            let encoded = |(key, value): (&String, &Vec<u8>)| {
                (format!("kubernetes.io/secret/{key}"), STANDARD.encode(value))
            };
            more.extend(secret.data.iter().map(encoded));
        }
        if let Some(group) = self.fs_group {
            more.push(("kubernetes.io/mounterArgs.FsGroup".to_owned(), group.to_string()));
        }
        Ok(go_json::object(&self.merged(more)))
    }

    /// The kubelet's own keys, then `more`, then the user's options, which override both.
    fn merged(&self, more: Vec<(String, String)>) -> BTreeMap<String, String> {
        let access = if self.read_only { "ro" } else { "rw" };
        let own = [
            ("kubernetes.io/fsType", self.fs_type.as_str()),
            ("kubernetes.io/readwrite", access),
            ("kubernetes.io/pvOrVolumeName", &self.name),
        ];
        let mut all: BTreeMap<_, _> =
            own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        all.extend(more);
        all.extend(self.options.clone());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        Pod { service_account: "sa".to_owned(), uid: "uid-1".to_owned(), ..Pod::new("ns", "p") }
    }

    #[test]
    fn mount_gets_the_pod_the_secret_and_the_group() {
        let volume = pod().inline("acme/disk", "data").option("backend", "tmpfs").option("size", "1Mi");
        let volume = volume.fs_type("ext4").fs_group(1234).secret("password", b"hunter2,x=y");
        let volume = volume.secret("username", b"bob");
        let expect = concat!(
            r#"{"backend":"tmpfs","kubernetes.io/fsType":"ext4","kubernetes.io/mounterArgs.FsGroup":"1234","#,
            r#""kubernetes.io/pod.name":"p","kubernetes.io/pod.namespace":"ns","kubernetes.io/pod.uid":"uid-1","#,
            r#""kubernetes.io/pvOrVolumeName":"data","kubernetes.io/readwrite":"rw","#,
            r#""kubernetes.io/secret/password":"aHVudGVyMix4PXk=","kubernetes.io/secret/username":"Ym9i","#,
            r#""kubernetes.io/serviceAccount.name":"sa","size":"1Mi"}"#,
        );
        assert_eq!(volume.mount_json().as_deref(), Ok(expect));
        assert!(!volume.json().contains("secret") && !volume.json().contains("pod."), "{}", volume.json());
    }

    #[test]
    fn options_of_the_user_come_last_and_win() {
        let volume = pod().inline("acme/disk", "data").option("kubernetes.io/readwrite", "<rw&>").read_only();
        let json = volume.json();
        assert!(json.contains(r#""kubernetes.io/readwrite":"\u003crw\u0026\u003e""#), "{json}");
    }

    #[test]
    fn a_secret_of_another_type_is_refused() {
        let volume = pod().persistent("acme/disk", "pv").secret("k", b"v").secret_type("Opaque");
        let why = volume.mount_json().unwrap_err();
        assert!(why.ends_with("cannot get secret of type acme/disk"), "{why}");
    }

    #[test]
    fn paths_are_the_kubelets() {
        let volume = pod().inline("acme/disk", "data");
        assert_eq!(volume.path().to_str(), Some("/var/lib/kubelet/pods/uid-1/volumes/acme~disk/data"));
        let device = "/var/lib/kubelet/plugins/kubernetes.io/flexvolume/acme/disk/mounts/data";
        assert_eq!(volume.device_path().to_str(), Some(device));
    }
}
