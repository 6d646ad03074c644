//! A throw-away node for tests: namespaces, pods, and calls as a runtime makes them.
