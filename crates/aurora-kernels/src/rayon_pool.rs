//! Setup of the Rayon pool.

/// Makes the calling thread a worker of the Rayon pool, so that a loop does not begin by waking another thread and
/// waiting for it. For a program's main thread, once at its start. Without effect if the pool exists already.
pub fn include_main_thread() {
    // An error says that the pool exists.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}
