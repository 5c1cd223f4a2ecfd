//! A frozen weight is not copied: counted at the allocator, forward and backward.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use aurora_kernels::{DeltaMode, LowRank, adapted_linear, linear};
use candle_core::{DType, Device, Tensor, Var};

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as called.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Asks the child process, in which no other test allocates, to measure.
const CHILD: &str = "AURORA_TEST_NO_COPY";

#[test]
fn a_frozen_weight_is_not_copied() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_copy::steps_counted", "--ignored", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the other test runs it in a process of its own"]
fn steps_counted() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // Each thread has room for a part of a weight, so few of them.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (tokens, width) = (8, 4096);
    let make = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let weight = make((width, width)); // 64 MiB
    let x = Var::from_tensor(&make((tokens, width))).unwrap();
    let a = Var::from_tensor(&make((2, width))).unwrap();
    let b = Var::from_tensor(&make((width, 2))).unwrap();
    // A transpose too: strides are no reason for a copy.
    for weight in [weight.clone(), weight.t().unwrap()] {
        let run = || {
            let delta = LowRank::new(a.as_tensor().clone(), b.as_tensor().clone()).unwrap();
            let y = linear(&x, &weight, None).unwrap();
            let y = adapted_linear(&y, &weight, None, &delta, DeltaMode::Apply).unwrap();
            y.sum_all().unwrap().backward().unwrap();
        };
        threads.install(run);
        let before = ALLOCATED.load(Ordering::Relaxed);
        threads.install(run);
        let used = ALLOCATED.load(Ordering::Relaxed) - before;
        assert!(used < width * width * 4 / 4, "{used} bytes allocated");
    }
}
