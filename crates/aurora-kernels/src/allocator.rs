//! The process's memory: what the system allocator does with buffers that were freed, and how much there is.

/// Tells the allocator to keep freed memory for the next buffer of its kind instead of giving it
/// back to the system, and the system to give it in huge pages. For a program that trains or
/// evaluates, called once at its start.
///
/// A step allocates and frees the same few hundred buffers of some megabytes again and again.
/// The GNU C library hands each of them back and asks for fresh pages, which the kernel clears
/// and maps one by one; on wide activations that can take longer than the arithmetic. And a product
/// reads rows some kilobytes apart: in pages of 4 KiB the processor looks a page up for every few lines.
/// The process keeps its peak memory for good in exchange. Elsewhere than on GNU systems this does
/// nothing.
pub fn retain_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt only sets parameters of the allocator, under its lock.
        unsafe {
            // No buffer gets a mapping of its own, which would end with it.
            libc::mallopt(libc::M_MMAP_MAX, 0);
            // The heap is never cut back (-1 is the manual's "never"), and grows by larger steps.
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        }
        advise_huge_pages();
    }
}

/// Asks for huge pages for the heap to come: a part of its addresses is taken, given the advice, and freed again. No
/// page of it is touched, so that it costs no memory. A system that knows no huge pages, or has no room, goes on as before.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn advise_huge_pages() {
    // Where addresses count as memory (mode 2), others would find it gone.
    let counted = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    let Some(bytes) = available_memory().and_then(|bytes| usize::try_from(bytes).ok()) else {
        return;
    };
    if counted.map_or(true, |mode| mode.trim() == "2") {
        return;
    }
    // SAFETY: the advice is for whole pages of a block that this function alone has; it changes none of their values.
    unsafe {
        let block = libc::malloc(bytes);
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        if !block.is_null() && page.is_power_of_two() {
            let start = (block as usize).next_multiple_of(page);
            let end = (block as usize + bytes) / page * page;
            libc::madvise(
                start as *mut libc::c_void,
                end.saturating_sub(start),
                libc::MADV_HUGEPAGE,
            );
        }
        libc::free(block);
    }
}

/// Bytes that the process can still take without pushing anything out: what the kernel calls
/// available, or what is left of the limit of its control group, whichever is less. None where
/// neither says anything.
pub fn available_memory() -> Option<u64> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left = |limit: &str, used: &str| Some(number(limit)?.saturating_sub(number(used)?));
    let group = left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current").or_else(|| {
        let folder = "/sys/fs/cgroup/memory";
        left(&format!("{folder}/memory.limit_in_bytes"), &format!("{folder}/memory.usage_in_bytes"))
    });
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = meminfo.and_then(|text| meminfo_available(&text));
    group.into_iter().chain(machine).min()
}

/// The line `MemAvailable` of `/proc/meminfo`, in bytes.
fn meminfo_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let number = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "MemTotal:       16384 kB\nMemAvailable:    1234 kB\nBuffers: 1 kB\n";
        assert_eq!(meminfo_available(text), Some(1234 * 1024));
        for bad in [
            "",
            "MemAvailable: 12",
            "MemAvailable: many kB",
            "MemAvailable: 99999999999999999999 kB",
        ] {
            assert_eq!(meminfo_available(bad), None, "{bad}");
        }
        // Whatever the machine says, some memory is left while this runs.
        assert_ne!(available_memory(), Some(0));
    }
}
