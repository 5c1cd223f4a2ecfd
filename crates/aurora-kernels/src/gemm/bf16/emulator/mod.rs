//! Instruction emulator: the kernels on a processor that lacks their instructions.
//!
//! Such a processor raises a signal at each of them. The handler here decodes the instruction (`decode.rs`), executes
//! it as Intel's manual defines it on registers of its own, one set for each thread (`state.rs`), and resumes behind
//! it. General registers and memory are the real ones, so that addresses, strides and loops are tested as they are.
//! An instruction that no kernel uses ends the process as it would have. Where a processor has the instructions, no
//! signal comes and the same tests run on it.

mod decode;
mod state;

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::sync::Once;

use libc::{sigaction, siginfo_t, ucontext_t};

use crate::isa::Isa;
use state::State;

thread_local! {
    static STATE: RefCell<State> = const { RefCell::new(State::NEW) };
}

/// Installs the emulator for the instructions that the processor lacks, from now on and in all threads.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Also asks the system for the registers of AMX, if there are any.
        if Isa::of_processor() == Isa::Amx {
            return;
        }
        // SAFETY: the handler touches nothing but the context that it is given and its thread's own state, which the
        // interrupted code, a kernel, does not touch.
        unsafe {
            let mut action: sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as extern "C" fn(_, _, _) as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    });
}

/// Number of instructions emulated in this thread so far.
pub(super) fn emulated() -> u64 {
    STATE.with_borrow(|state| state.count)
}

extern "C" fn handle(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands over the context of the interrupted thread, whose next instruction can be read.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let mut at = registers[libc::REG_RIP as usize] as *const u8;
        let mut any = false;
        // Those that follow right behind would only come here again.
        STATE.with_borrow_mut(|state| {
            while let Some(instruction) = decode::instruction(at, registers)
                && state.run(&instruction).is_some()
            {
                at = at.add(instruction.length);
                any = true;
            }
        });
        registers[libc::REG_RIP as usize] = at as i64;
        if !any {
            libc::signal(libc::SIGILL, libc::SIG_DFL);
        }
    }
}
