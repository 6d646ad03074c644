//! Which file system lies on a device or in a file, by its superblock.
