//! What the C library keeps of memory that was given back.

/// One heap for all threads. A look is made on one thread and its outcome kept on another, and a heap for each would
/// keep room for both. To be called before the first thread is started.
pub fn one_heap() {
    // SAFETY: mallopt(3) changes a setting of the C library; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives free pages back to the kernel: what a look at ten thousand devices needed is not needed until the next one.
pub fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time, by any thread.
    unsafe { libc::malloc_trim(0) };
}
