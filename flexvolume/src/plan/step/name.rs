//! What a step is called where its time is told: a word or two, the same for every volume.

use super::super::Medium;
use super::Step;

impl Step {
    /// Its kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Remember(..) | Self::RememberAnew(..) | Self::RememberMount(..) => "record",
            Self::Forget(_) => "forget record",
            Self::Make { .. } => "make",
            Self::Folder { .. } => "folder",
            Self::Clone { .. } => "copy",
            Self::Lower(_) => "lower layer",
            Self::Upper(_) => "upper layer",
            Self::Layer(_) => "overlay",
            Self::Stop(_) => "stop program",
            Self::Serve(_) => "start program",
            Self::Share(_) => "mount share",
            Self::Populate { .. } => "populate",
            Self::Medium(medium) => medium.name(),
            Self::Give { .. } | Self::GiveApart { .. } => "give to group",
            Self::Limit { .. } => "limit",
            Self::Attach(_) => "attach",
            Self::Replace(_) => "replace",
            Self::Detach(_) | Self::DetachApart(..) => "detach",
        }
    }
}

impl Medium {
    fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create image",
            Self::Publish { .. } => "name image",
            Self::Remove(_) => "remove file",
            Self::Delete(_) => "delete image",
            Self::Lengthen { .. } => "lengthen image",
            Self::Loop { .. } => "loop device",
            Self::Reuse(_) => "share loop device",
            Self::Capacity => "tell capacity",
            Self::Format { .. } | Self::Formatted | Self::Finish(_) => "format",
            Self::Check { .. } => "check",
            Self::Resize | Self::Grow { .. } => "grow",
            Self::Root { .. } => "root folder",
        }
    }
}
