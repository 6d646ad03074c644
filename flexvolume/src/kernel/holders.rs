//! Who keeps a mount busy.
