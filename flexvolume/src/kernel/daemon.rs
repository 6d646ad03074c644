//! FUSE daemons: started in a session and cgroup of their own, found again by their volume.
