//! Mounts by file descriptor (fsopen(2), open_tree(2), mount_setattr(2), move_mount(2)).
