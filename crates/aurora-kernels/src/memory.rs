//! The process's memory: what the system allocator does with buffers that were freed.

/// Tells the allocator to keep freed memory for the next buffer of its kind instead of giving it
/// back to the system. For a program that trains or evaluates, called once at its start.
///
/// A step allocates and frees the same few hundred buffers of some megabytes again and again.
/// The GNU C library hands each of them back and asks for fresh pages, which the kernel clears
/// and maps one by one; on wide activations that can take longer than the arithmetic. The
/// process keeps its peak memory for good in exchange. Elsewhere than on GNU systems this does
/// nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator, under its lock.
    unsafe {
        // No buffer gets a mapping of its own, which would end with it.
        libc::mallopt(libc::M_MMAP_MAX, 0);
        // The heap is not cut back, and grows by larger steps.
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
