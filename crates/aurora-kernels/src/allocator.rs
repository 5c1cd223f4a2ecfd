//! Process memory: allocator settings for freed buffers, and available memory.

/// Makes the system allocator keep freed memory for later buffers instead of returning it to the system, and asks for
/// huge pages. For a program that trains or evaluates, called once at its start.
///
/// A step allocates and frees the same few hundred buffers of some megabytes over and over. glibc returns each of
/// them to the system and requests fresh pages, which the kernel clears and maps one by one; on wide activations that
/// can take longer than the arithmetic. A GEMM also reads rows some kilobytes apart: with pages of 4 KiB the TLB
/// misses every few lines. In exchange the process keeps its peak memory. Without glibc this does nothing.
pub fn retain_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt only sets parameters of the allocator, under its lock.
        unsafe {
            // No mapping of its own for any buffer: it would end with the buffer.
            libc::mallopt(libc::M_MMAP_MAX, 0);
            // No trimming of the heap (-1 is the manual's "never"), and growth by larger steps.
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        }
        advise_huge_pages();
    }
}

/// Requests huge pages for the heap to come: a range of its addresses is allocated, advised and freed again. No page
/// of it is touched, so it costs no memory. Without huge pages or room for the range nothing changes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn advise_huge_pages() {
    // Strict overcommit (mode 2) counts addresses as memory: others would lack the range.
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

/// Bytes of memory available to the process without evicting anything: the kernel's estimate or the rest of its
/// control group's limit, whichever is less. None if neither is known.
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

/// `MemAvailable` of `/proc/meminfo`, in bytes.
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
