//! The emulator as a machine.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_uint, c_ulong, c_void};
use std::sync::LazyLock;

use aurora_kernels::cuda::{DevicePointer, Launch, Machine, Memory};
use candle_core::Result;
use libloading::{Library, Symbol};

use crate::build;

type Kernel = unsafe extern "C" fn(*const c_void);
type Register = unsafe extern "C" fn(*const c_void, c_ulong, *const c_char);
type Release = unsafe extern "C" fn(*const c_void);
type Run =
    unsafe extern "C" fn(Kernel, *const c_void, *const c_uint, c_uint, c_uint) -> *const c_char;

static LIBRARY: LazyLock<Option<Library>> = LazyLock::new(|| {
    let Some(compiler) = build::compiler() else {
        let required = std::env::var("AURORA_EMULATOR").is_ok_and(|value| value == "required");
        assert!(
            !required,
            "no C++ compiler (CXX, g++, c++, clang++), and AURORA_EMULATOR=required"
        );
        return None;
    };
    // SAFETY: the library is ours, and loading it runs nothing.
    Some(unsafe { Library::new(build::library(&compiler)) }.unwrap())
});

fn symbol<T>(name: &str) -> Symbol<'static, T> {
    let library = LIBRARY.as_ref().unwrap();
    // SAFETY: the types above are those of kernels/emulator/runtime.h.
    unsafe { library.get(name.as_bytes()) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Kernels on the CPU. Memory is told apart byte for byte: an access outside of it ends a launch.
pub struct Emulator {
    /// Buffers get names in the order they are made, for messages.
    count: RefCell<usize>,
}

impl Emulator {
    /// The emulator, or None where there is no C++ compiler.
    pub fn new() -> Option<Self> {
        LIBRARY.as_ref().map(|_| Self { count: RefCell::new(0) })
    }
}

impl Emulator {
    /// Two buffers so far apart that no 32-bit index of elements reaches from one to the other.
    /// They are never given back.
    pub fn far_apart(&self, bytes: usize) -> [Box<dyn Memory>; 2] {
        const DISTANCE: usize = (1 << 34) + (1 << 20);
        // SAFETY: a new mapping; memory is used up only by the pages that are written.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 2 * DISTANCE, access, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        [0, DISTANCE].map(|offset| {
            let data = start.cast::<u8>().wrapping_add(offset);
            // SAFETY: inside of the mapping, which stays.
            unsafe {
                symbol::<Register>("emulator_register")(
                    data.cast(),
                    bytes as c_ulong,
                    c"a far buffer".as_ptr(),
                );
            }
            Box::new(Far { data, bytes }) as Box<dyn Memory>
        })
    }
}

struct Far {
    data: *mut u8,
    bytes: usize,
}

impl Memory for Far {
    fn pointer(&self) -> DevicePointer {
        DevicePointer(self.data as u64)
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Rows with a long way between them, of which only the rows are memory that a kernel may touch: for
/// indices past 2^31.
pub struct FarRows {
    data: *mut u8,
    rows: usize,
    distance: usize,
}

impl FarRows {
    /// Rows with these contents, each `distance` bytes after the one before.
    pub fn new(_: &Emulator, rows: &[&[u8]], distance: usize) -> Self {
        let length = rows.len() * distance;
        // SAFETY: a new mapping; pages that nobody touches take no memory.
        let data = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(data, libc::MAP_FAILED, "no room for {length} bytes of addresses");
        let this = Self { data: data.cast(), rows: rows.len(), distance };
        for (index, row) in rows.iter().enumerate() {
            assert!(row.len() <= distance);
            let name = CString::new(format!("far row {index}")).unwrap();
            // SAFETY: the row lies in the mapping, which stays until `drop`.
            unsafe {
                let to = this.data.add(index * distance);
                to.copy_from_nonoverlapping(row.as_ptr(), row.len());
                symbol::<Register>("emulator_register")(
                    to.cast(),
                    row.len() as c_ulong,
                    name.as_ptr(),
                );
            }
        }
        this
    }

    /// Where the first row begins.
    pub fn pointer(&self) -> DevicePointer {
        DevicePointer(self.data as u64)
    }

    /// The first bytes of a row.
    pub fn row(&self, index: usize, bytes: usize) -> Vec<u8> {
        assert!(index < self.rows && bytes <= self.distance);
        // SAFETY: in the mapping, which was zeros at first.
        unsafe { std::slice::from_raw_parts(self.data.add(index * self.distance), bytes) }.to_vec()
    }
}

impl Drop for FarRows {
    fn drop(&mut self) {
        // SAFETY: made by `new`, with this length.
        unsafe {
            for index in 0..self.rows {
                let row = self.data.add(index * self.distance);
                symbol::<Release>("emulator_release")(row.cast());
            }
            libc::munmap(self.data.cast(), self.rows * self.distance);
        }
    }
}

struct Buffer {
    data: *mut u8,
    layout: std::alloc::Layout,
    bytes: usize,
}

impl Memory for Buffer {
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

impl Machine for Emulator {
    fn name(&self) -> String {
        "emulator".to_owned()
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>> {
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

    fn upload(&self, bytes: &[u8], to: &dyn Memory) -> Result<()> {
        assert!(bytes.len() <= to.bytes());
        // SAFETY: there is room.
        unsafe {
            let to = to.pointer().0 as *mut u8;
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }

    fn download(&self, from: &dyn Memory) -> Result<Vec<u8>> {
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
