//! A private mount namespace in a child process, in which a file system is made before anybody sees it.
