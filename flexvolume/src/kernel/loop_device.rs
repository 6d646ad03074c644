//! Loop devices over one open file (loop(4)).
