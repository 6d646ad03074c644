//! The mounts of this process, as the kernel lists them.
