//! The kubelet's call, read once: `argv = [path, call, arguments…]`.
//!
//! Options arrive as one JSON object in one argument; it holds the secrets, so it is never quoted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use node::{Error, Kind, Result};

use crate::name::Driver;
use crate::options::Options;

/// A call of the protocol.
#[derive(Debug)]
pub enum Call {
    /// What can the driver do?
    Init,
    /// Make the volume of these options at this folder.
    Mount(PathBuf, Options),
    /// Take away what is at this folder.
    Unmount(PathBuf),
    /// The volume's medium has grown: grow its file system to this many bytes.
    ExpandFs {
        /// The volume's options.
        options: Options,
        /// The volume's folder in the pod.
        target: PathBuf,
        /// The size that is wanted.
        new: u64,
    },
    /// Grow the medium itself.
    ExpandVolume {
        /// The size that is wanted.
        new: u64,
    },
    /// What is the volume called?
    GetVolumeName(Options),
    /// Attach to this node. There is nothing to attach.
    Attach,
    /// Is it attached?
    IsAttached,
    /// Detach.
    Detach,
    /// Wait until this device is there.
    WaitForAttach(String),
    /// Mount the device for all pods of the node; every pod gets a mount of its own.
    MountDevice,
    /// Take that away.
    UnmountDevice,
    /// Something else.
    Unknown(String),
}

/// The words of the protocol.
pub const CALLS: [&str; 12] = [
    "init",
    "mount",
    "unmount",
    "expandfs",
    "expandvolume",
    "getvolumename",
    "attach",
    "isattached",
    "detach",
    "waitforattach",
    "mountdevice",
    "unmountdevice",
];

impl Call {
    /// The protocol's word for it.
    pub fn word(&self) -> &str {
        match self {
            Self::Init => "init",
            Self::Mount(..) => "mount",
            Self::Unmount(_) => "unmount",
            Self::ExpandFs { .. } => "expandfs",
            Self::ExpandVolume { .. } => "expandvolume",
            Self::GetVolumeName(_) => "getvolumename",
            Self::Attach => "attach",
            Self::IsAttached => "isattached",
            Self::Detach => "detach",
            Self::WaitForAttach(_) => "waitforattach",
            Self::MountDevice => "mountdevice",
            Self::UnmountDevice => "unmountdevice",
            Self::Unknown(word) => word,
        }
    }
}

/// A call and the name under which it came.
#[derive(Debug)]
pub struct Request {
    /// The name of the driver.
    pub driver: Driver,
    /// The call.
    pub call: Call,
}

impl Request {
    /// Reads the arguments, the path that was exec'd first.
    pub fn read<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut words = Words { left: arguments.into_iter(), call: String::new() };
        let driver = Driver::called(OsStr::from_bytes(words.left.next().unwrap_or_default()));
        words.call = String::from_utf8_lossy(words.left.next().unwrap_or_default()).into_owned();
        Ok(Self { driver, call: words.call()? })
    }
}

struct Words<I> {
    left: I,
    call: String,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Words<I> {
    fn call(&mut self) -> Result<Call> {
        Ok(match self.call.as_str() {
            "init" => Call::Init,
            "mount" => Call::Mount(self.folder()?, self.options()?),
            "unmount" => Call::Unmount(self.folder()?),
            "expandfs" => {
                let options = self.options()?;
                let _device = self.next("the device's path")?;
                Call::ExpandFs { options, target: self.folder()?, new: self.bytes()? }
            }
            "expandvolume" => {
                self.options()?;
                let _device = self.next("the device's folder")?;
                Call::ExpandVolume { new: self.bytes()? }
            }
            "getvolumename" => Call::GetVolumeName(self.options()?),
            "attach" => Call::Attach,
            "isattached" => Call::IsAttached,
            "detach" => Call::Detach,
            "waitforattach" => Call::WaitForAttach(self.text("the device's path")?),
            "mountdevice" => Call::MountDevice,
            "unmountdevice" => Call::UnmountDevice,
            other => Call::Unknown(other.to_owned()),
        })
    }

    fn next(&mut self, what: &str) -> Result<&'a [u8]> {
        self.left.next().ok_or_else(|| {
            Error::caused(Kind::Usage, format!("read the call `{}`", self.call), format!("{what} is missing"))
        })
    }

    fn folder(&mut self) -> Result<PathBuf> {
        Ok(OsStr::from_bytes(self.next("the volume's folder")?).into())
    }

    /// The text of an argument. What is not UTF-8 is not repeated.
    fn text(&mut self, what: &str) -> Result<String> {
        let bytes = self.next(what)?;
        let text = std::str::from_utf8(bytes).map_err(|_| {
            Error::caused(
                Kind::Decode,
                format!("read the call `{}`", self.call),
                format!("{what} is not UTF-8"),
            )
        })?;
        Ok(text.to_owned())
    }

    fn options(&mut self) -> Result<Options> {
        let bytes = self.next("the JSON object of options")?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::caused(Kind::Decode, "read the volume's options", "they are not UTF-8"))?;
        Options::parse(text)
    }

    fn bytes(&mut self) -> Result<u64> {
        let text = self.text("the new size in bytes")?;
        text.parse().map_err(|e: std::num::ParseIntError| {
            Error::caused(Kind::Usage, format!("read the new size of `{}`", self.call), e)
        })
    }
}
