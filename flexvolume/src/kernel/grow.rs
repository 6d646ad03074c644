//! Grows a mounted file system to the size of its device.
