//! Emulator tests: it finds the faults that it is for, with their places, and computes the matrix instructions and
//! conversions of a GPU.

use aurora_kernels::cuda::{Element, Executor, Launch, Params};
use proptest::prelude::*;

use crate::kernels::emulator::Emulator;
use crate::kernels::support::{Tensor, normal, rounded};

#[repr(C)]
#[derive(Clone, Copy)]
struct Exchanged {
    x: u64,
    y: u64,
    fault: i32,
    one: i32,
}
// SAFETY: the layout of kernels/emulator/faults.h.
unsafe impl Params for Exchanged {}

#[repr(C)]
#[derive(Clone, Copy)]
struct Multiplied {
    a: u64,
    b: u64,
    c: u64,
}
// SAFETY: likewise.
unsafe impl Params for Multiplied {}

/// Result of one of the faulty kernels, or the emulator's message.
fn exchanged(
    kernel: &'static str,
    blocks: usize,
    threads: u32,
    fault: i32,
) -> Option<Result<Vec<f64>, String>> {
    let executor = Emulator::new()?;
    let length = threads as usize * if kernel == "emulator_async" { 4 } else { 1 };
    let x: Vec<f64> = (0..length).map(|i| i as f64).collect();
    let x = Tensor::new(&executor, Element::F32, &x);
    let y = Tensor::output(&executor, Element::F32, blocks * length);
    let params = Exchanged { x: x.pointer().0, y: y.pointer().0, fault, one: 1 };
    let launch = Launch::new(kernel, [blocks, 1, 1], threads, 0, &params).unwrap();
    // SAFETY: the memory is that of the launch; the faults are caught.
    let ran = unsafe { executor.launch(&launch) };
    Some(ran.map(|()| y.values()).map_err(|error| error.to_string()))
}

fn assert_caught(kernel: &'static str, blocks: usize, threads: u32, faults: &[(i32, &str)]) {
    for &(fault, message) in faults {
        let Some(result) = exchanged(kernel, blocks, threads, fault) else { return };
        let error = result.expect_err(message);
        assert!(error.contains(message), "fault {fault} of {kernel}: {error}");
    }
}

#[test]
fn a_block_exchanges_numbers() {
    let Some(result) = exchanged("emulator_exchange", 2, 64, 0) else { return };
    let row = (0..64).map(|i| f64::from(63 - i));
    assert_eq!(result.unwrap(), row.clone().chain(row).collect::<Vec<_>>());
    assert_caught(
        "emulator_exchange",
        2,
        64,
        &[
            (1, "shared memory that nobody wrote"),
            (2, "divergent barrier: some threads of a block wait at line"),
            (3, "divergent barrier: 40 threads wait at line"),
            (4, "out of bounds of an array at faults.cu:"),
            (5, "shared memory that nobody wrote"),
            (6, "out of bounds: reads 4 bytes at 0 bytes past the end of buffer 1 (256 bytes)"),
            (7, "out of bounds: reads 4 bytes at 4 bytes before buffer 1"),
            (8, "out of bounds: writes 4 bytes at 0 bytes past the end of buffer 2"),
            (9, "race: after another thread's write"),
            (10, "sum past the range of its type at faults.cu:"),
            (11, "race: another thread's write, with no barrier between: reads"),
            (12, "race: after another thread's read, with no barrier between: writes"),
        ],
    );
}

#[test]
fn a_warp_exchanges_numbers() {
    let Some(result) = exchanged("emulator_warp", 1, 32, 0) else { return };
    assert_eq!(result.unwrap(), (0..32).map(|i| f64::from(31 - i)).collect::<Vec<_>>());
    assert_caught(
        "emulator_warp",
        1,
        32,
        &[
            (1, "shared memory that nobody wrote"),
            (2, "divergent warp operation at line"),
            (3, "misaligned"),
        ],
    );
}

#[test]
fn copies_land_when_they_are_waited_for() {
    let Some(result) = exchanged("emulator_async", 1, 8, 0) else { return };
    let copied = |i: usize| if i / 4 == 5 { 0.0 } else { i as f64 };
    let want: Vec<f64> = (0..32).map(|i| copied(28 - i / 4 * 4 + i % 4)).collect();
    assert_eq!(result.unwrap(), want);
    assert_caught(
        "emulator_async",
        1,
        8,
        &[
            (1, "shared memory that nobody wrote"),
            (2, "shared memory that nobody wrote"),
            (3, "out of bounds: reads 16 bytes"),
        ],
    );
}

#[test]
fn matrix_instructions_multiply() {
    let Some(executor) = Emulator::new() else { return };
    for (element, kernel) in
        [(Element::F16, "emulator_multiply_f16"), (Element::Bf16, "emulator_multiply_bf16")]
    {
        let (a, b) = (normal(element, 0, 256), normal(element, 1, 128));
        let [ta, tb] = [&a, &b].map(|values| Tensor::new(&executor, element, values));
        let c = Tensor::output(&executor, Element::F32, 128);
        let params = Multiplied { a: ta.pointer().0, b: tb.pointer().0, c: c.pointer().0 };
        let launch = Launch::new(kernel, [1, 1, 1], 32, 0, &params).unwrap();
        // SAFETY: the memory is that of the launch.
        unsafe { executor.launch(&launch) }.unwrap();
        for (index, got) in c.values().into_iter().enumerate() {
            let (i, j) = (index / 8, index % 8);
            let want: f64 = (0..16).map(|k| a[i * 16 + k] * b[k * 8 + j]).sum();
            assert!((got - want).abs() < 1e-5, "{kernel}: ({i}, {j}) is {got}, not {want}");
        }
    }
}

fn assert_converted(element: Element, kernel: &'static str, numbers: &[f32]) {
    let Some(executor) = Emulator::new() else { return };
    let values: Vec<f64> = numbers.iter().map(|&x| f64::from(x)).collect();
    let x = Tensor::new(&executor, Element::F32, &values);
    let y = Tensor::output(&executor, Element::F32, values.len());
    let one = values.len() as i32;
    let params = Exchanged { x: x.pointer().0, y: y.pointer().0, fault: 0, one };
    let launch = Launch::new(kernel, [values.len().div_ceil(256), 1, 1], 256, 0, &params).unwrap();
    // SAFETY: the memory is that of the launch.
    unsafe { executor.launch(&launch) }.unwrap();
    for (got, x) in y.values().into_iter().zip(values) {
        let want = rounded(element, x);
        assert!(
            got == want || (got.is_nan() && want.is_nan()),
            "{kernel}({x:e}) is {got:e}, not {want:e}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn conversions_round_as_everywhere(bits in prop::collection::vec(any::<u32>(), 1..2000), small in prop::collection::vec(-1f32..1.0, 200)) {
        let numbers: Vec<f32> =
            bits.into_iter().map(f32::from_bits).chain(small.iter().map(|x| x * 7e-5)).collect();
        assert_converted(Element::F16, "emulator_convert_f16", &numbers);
        assert_converted(Element::Bf16, "emulator_convert_bf16", &numbers);
    }
}
