//! What a process does about itself: its arguments, descriptors, core dumps.
