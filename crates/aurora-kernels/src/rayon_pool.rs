//! Setup of the Rayon pool.

/// Makes the calling thread one of those that share loops, so that a loop does not begin by waking another and waiting
/// for it. For a program's main thread, once at its start. Where the threads are there already, nothing changes.
pub fn include_main_thread() {
    // An error says that they are there.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}
