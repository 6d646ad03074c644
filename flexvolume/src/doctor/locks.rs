//! Whether somebody holds a lock, without touching it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

/// Whether a process has an flock(2) on the file (proc_locks(5)).
pub(super) fn is_held(path: &Path) -> bool {
    let Ok(about) = fs::metadata(path) else { return false };
    let wanted = format!("{:02x}:{:02x}:{}", major(about.dev()), minor(about.dev()), about.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| line.split_whitespace().any(|word| word == wanted))
}

#[cfg(test)]
mod tests {
    use node::store::Lock;

    use super::*;

    #[test]
    fn a_lock_is_seen_without_being_taken() {
        let path = std::env::temp_dir().join(format!("nodeplug-doctor-lock-{}", std::process::id()));
        assert!(!is_held(&path), "not there");
        let lock = Lock::exclusive(&path).unwrap();
        assert!(is_held(&path));
        drop(lock);
        assert!(!is_held(&path));
        fs::remove_file(&path).unwrap();
    }
}
