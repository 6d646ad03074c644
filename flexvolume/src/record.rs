//! The write-ahead record of a volume.
