//! A container: a process in a mount namespace of its own, into which volumes are bound.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{Kubelet, Volume};
use crate::call::{self, Answer};

/// Where volumes are in a container: `/mnt/NAME`.
const INSIDE: &str = "/mnt";

/// A running container.
#[derive(Debug)]
pub struct Container {
    main: Child,
}

impl Kubelet {
    /// Starts a container with these volumes, each at `/mnt/NAME`.
    #[track_caller]
    pub fn container(&self, volumes: &[&Volume]) -> Container {
        let mounts: Vec<_> = volumes.iter().map(|v| (v.path(), v.name.clone())).collect();
        Container::start(&mounts)
    }

    /// Starts a container that sees `below` in the volume at `/mnt/NAME`, and nothing else of it.
    #[track_caller]
    pub fn container_of_sub_path(&self, volume: &Volume, below: &str) -> Container {
        let source = self.sub_path(volume, "main", below);
        Container::start(&[(source, volume.name.clone())])
    }
}

impl Container {
    /// Starts one with folders of the node at `/mnt/NAME`. Mounts that the node makes later appear in it
    /// only where the node shares them, and its own never leave it.
    #[track_caller]
    pub fn start(mounts: &[(PathBuf, String)]) -> Self {
        let mounts = mounts.to_vec();
        // The process takes its namespace from the thread that starts it.
        let started = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mounts");
            let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).expect("make mounts slaves");
            mount(Some("tmpfs"), INSIDE, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("cover /mnt");
            for (source, name) in &mounts {
                let target = Path::new(INSIDE).join(name);
                std::fs::create_dir(&target).expect("make a mount point");
                let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(source), &target, None::<&str>, bind, None::<&str>)
                    .unwrap_or_else(|e| panic!("bind `{}`: {e}", source.display()));
            }
            let mut command = Command::new("sleep");
            command.arg("infinity").current_dir("/");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("start the container")
        });
        Self { main: started.join().expect("start a container") }
    }

    /// The process id of its first process.
    pub fn pid(&self) -> u32 {
        self.main.id()
    }

    /// Runs a shell line inside.
    #[track_caller]
    pub fn run(&self, line: &str) -> Answer {
        self.enter(&[], line)
    }

    /// Runs a shell line inside as somebody without any capability.
    #[track_caller]
    pub fn run_as(&self, user: u32, groups: &[u32], line: &str) -> Answer {
        let (user, groups) =
            (user.to_string(), groups.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        let groups =
            if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        self.enter(&["setpriv", &uid, &gid, &groups, "--bounding-set=-all", "--inh-caps=-all"], line)
    }

    /// Runs a shell line inside that must succeed; its output.
    #[track_caller]
    pub fn says(&self, line: &str) -> String {
        let answer = self.run(line);
        assert!(answer.ok(), "{line}: {answer:?}");
        answer.stdout
    }

    #[track_caller]
    fn enter(&self, words: &[&str], line: &str) -> Answer {
        let target = self.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &target, "--mount", "--wdns=/"]).args(words).args(["sh", "-c", line]);
        call::run(&mut command, b"")
    }

    /// Ends it; its namespace, and the mounts in it, go with it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.main.kill());
        drop(self.main.wait());
    }
}
