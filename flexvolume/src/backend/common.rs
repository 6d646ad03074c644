//! The options that every backend has.

use std::time::{Duration, Instant};

use node::Result;

use crate::kernel::own::Scope;
use crate::options::mount_options::{self, Fs, MountOptions};
use crate::options::{Options, Pod, Reader};
use crate::plan::{Limits, Step};
use crate::policy::Policy;

/// The common options, read.
#[derive(Debug, Clone)]
pub struct Common {
    /// Neither the pod nor anybody else writes through this mount.
    pub read_only: bool,
    /// Nothing on it is executed.
    pub noexec: bool,
    /// The set-user-id bits of its files count.
    pub suid: bool,
    /// Its device nodes are devices.
    pub dev: bool,
    /// The pod's group.
    pub fs_group: Option<u32>,
    /// How the pod's group gets the volume, where the pod said so.
    pub group_policy: Option<GroupPolicy>,
    /// Permissions of the volume's root folder.
    pub mode: Option<u32>,
    /// Owner of the volume's root folder.
    pub uid: Option<u32>,
    /// Group of the volume's root folder.
    pub gid: Option<u32>,
    /// The label of all its files.
    pub selinux: Option<String>,
    /// The file system that is asked for.
    pub fs_type: Option<String>,
    mount_options: String,
    /// When the call has to be over.
    pub deadline: Instant,
}

/// The values of `fsGroupPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPolicy {
    /// The volume stays as it is.
    None,
    /// So much of it is given to the group.
    Give(Scope),
}

impl Common {
    /// Reads them, `start` being when the call began.
    pub fn read(
        options: &Options,
        pod: &Pod,
        policy: &Policy,
        reader: &mut Reader<'_>,
        start: Instant,
    ) -> Self {
        let scopes = [
            ("none", GroupPolicy::None),
            ("root", GroupPolicy::Give(Scope::Root)),
            ("onRootMismatch", GroupPolicy::Give(Scope::OnRootMismatch)),
            ("recursive", GroupPolicy::Give(Scope::Recursive)),
        ];
        // Asked through the reader so that their shapes are checked; their values are the options' own.
        reader.flag("readOnly");
        let timeout = reader.seconds("timeout").unwrap_or(policy.timeout).min(policy.timeout).duration();
        let common = Self {
            read_only: options.read_only(),
            noexec: reader.flag("noexec").unwrap_or(false),
            suid: reader.flag("allowSuid").unwrap_or(false),
            dev: reader.flag("allowDev").unwrap_or(false),
            fs_group: reader.allowed(options.fs_group()).flatten(),
            group_policy: reader.choice("fsGroupPolicy", &scopes),
            mode: reader.mode("mode"),
            uid: reader.id("uid"),
            gid: reader.id("gid"),
            selinux: reader.text("selinuxContext").map(str::to_owned),
            fs_type: {
                reader.text("fsType");
                options.fs_type().map(str::to_owned)
            },
            mount_options: reader.text("mountOptions").unwrap_or_default().to_owned(),
            deadline: start + timeout.max(Duration::from_secs(1)),
        };
        common.allowed(&pod.namespace, policy, reader);
        common
    }

    fn allowed(&self, namespace: &str, policy: &Policy, reader: &mut Reader<'_>) {
        if self.suid {
            reader.allowed(policy.suid(namespace));
        }
        if self.dev {
            reader.allowed(policy.dev(namespace));
        }
        if self.selinux.is_some() {
            reader.allowed(policy.selinux_context(namespace));
        }
    }

    /// What every mount allows at most.
    pub fn limits(&self) -> Limits {
        Limits {
            read_only: self.read_only,
            nosuid: !self.suid,
            nodev: !self.dev,
            noexec: self.noexec,
            ..Limits::default()
        }
    }

    /// The option `mountOptions`, read for `fs`.
    pub fn mount_options(&self, fs: Fs) -> Result<MountOptions> {
        if self.mount_options.is_empty() {
            return Ok(MountOptions::default());
        }
        mount_options::parse(fs, &self.mount_options)
    }

    /// The step that gives a tree to the pod's group, where there is one and the volume may be written;
    /// `scope` is the backend's own habit.
    pub fn give(&self, scope: Option<Scope>) -> Option<Step> {
        let scope = match self.group_policy {
            None => scope,
            Some(GroupPolicy::None) => None,
            Some(GroupPolicy::Give(scope)) => Some(scope),
        };
        let gid = self.fs_group.filter(|_| !self.read_only)?;
        Some(Step::Give { gid, scope: scope? })
    }
}
