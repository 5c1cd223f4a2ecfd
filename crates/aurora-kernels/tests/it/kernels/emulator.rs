//! Emulator as an executor.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_uint, c_ulong, c_void};
use std::sync::LazyLock;

use aurora_kernels::cuda::{DeviceBuffer, DevicePointer, Executor, Launch};
use candle_core::Result;
use libloading::{Library, Symbol};

use crate::kernels::build;

type Kernel = unsafe extern "C" fn(*const c_void);
pub type Register = unsafe extern "C" fn(*const c_void, c_ulong, *const c_char);
pub type Release = unsafe extern "C" fn(*const c_void);
type Run =
    unsafe extern "C" fn(Kernel, *const c_void, *const c_uint, c_uint, c_uint) -> *const c_char;

static LIBRARY: LazyLock<Option<Library>> = LazyLock::new(|| {
    let asked = |wanted| std::env::var("AURORA_EMULATOR").is_ok_and(|value| value == wanted);
    if asked("off") {
        return None;
    }
    let Some(compiler) = build::compiler() else {
        let required = asked("required");
        assert!(
            !required,
            "no C++ compiler (CXX, g++, c++, clang++), and AURORA_EMULATOR=required"
        );
        return None;
    };
    // SAFETY: the library is ours, and loading it runs nothing.
    Some(unsafe { Library::new(build::library(&compiler)) }.unwrap())
});

/// Symbol that the library exports.
pub fn symbol<T>(name: &str) -> Symbol<'static, T> {
    let library = LIBRARY.as_ref().unwrap();
    // SAFETY: the types above are those of kernels/emulator/runtime.h.
    unsafe { library.get(name.as_bytes()) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Emulator: kernels on the CPU. Memory is tracked byte for byte: an access outside of it ends a launch.
pub struct Emulator {
    /// Buffers get names in the order they are made, for messages.
    count: RefCell<usize>,
}

impl Emulator {
    /// Emulator, or None where there is no C++ compiler or `AURORA_EMULATOR=off`.
    pub fn new() -> Option<Self> {
        LIBRARY.as_ref().map(|_| Self { count: RefCell::new(0) })
    }
}

struct Buffer {
    data: *mut u8,
    layout: std::alloc::Layout,
    bytes: usize,
}

impl DeviceBuffer for Buffer {
    fn pointer(&self) -> DevicePointer {
        DevicePointer(self.data as u64)
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by `allocate` with this layout; the name is known to the runtime until here.
        unsafe {
            symbol::<Release>("emulator_release")(self.data.cast());
            std::alloc::dealloc(self.data, self.layout);
        }
    }
}

impl Executor for Emulator {
    fn name(&self) -> String {
        "emulator".to_owned()
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn DeviceBuffer>> {
        let layout = std::alloc::Layout::from_size_align(bytes.max(1), 256).unwrap();
        // SAFETY: the size is not zero. All ones is a NaN in every float type.
        let data = unsafe {
            let data = std::alloc::alloc(layout);
            data.write_bytes(0xff, layout.size());
            data
        };
        *self.count.borrow_mut() += 1;
        let name = CString::new(format!("buffer {}", self.count.borrow())).unwrap();
        // SAFETY: the memory stays until it is released in `drop`.
        unsafe {
            symbol::<Register>("emulator_register")(data.cast(), bytes as c_ulong, name.as_ptr());
        }
        Ok(Box::new(Buffer { data, layout, bytes }))
    }

    fn upload(&self, bytes: &[u8], to: &dyn DeviceBuffer) -> Result<()> {
        assert!(bytes.len() <= to.bytes());
        // SAFETY: there is room.
        unsafe {
            let to = to.pointer().0 as *mut u8;
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }

    fn download(&self, from: &dyn DeviceBuffer) -> Result<Vec<u8>> {
        // SAFETY: the memory is that large, and every byte of it was written in `allocate`.
        Ok(unsafe { std::slice::from_raw_parts(from.pointer().0 as *const u8, from.bytes()) }
            .to_vec())
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let kernel = symbol::<Kernel>(launch.symbol);
        let size = *symbol::<*const c_uint>(&format!("{}_size", launch.symbol));
        let threads = *symbol::<*const c_uint>(&format!("{}_threads", launch.symbol));
        // SAFETY: both are constants of the library.
        let (size, threads) = unsafe { (*size as usize, *threads) };
        assert_eq!(size, launch.params_bytes(), "{}: size of the parameters", launch.symbol);
        assert!(launch.block <= threads, "{}: more threads than it is bound to", launch.symbol);
        // SAFETY: the runtime checks what the kernel touches.
        let message = unsafe {
            let run = symbol::<Run>("emulator_launch");
            let message =
                run(*kernel, launch.params(), launch.grid.as_ptr(), launch.block, launch.shared);
            if message.is_null() {
                return Ok(());
            }
            CStr::from_ptr(message).to_string_lossy().into_owned()
        };
        Err(candle_core::Error::Msg(format!("{}: {message}", launch.symbol)))
    }
}
