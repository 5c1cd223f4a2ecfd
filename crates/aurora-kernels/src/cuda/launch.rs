//! Kernel launches as plain data, and the executors that run them.

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};

use candle_core::Result;

use crate::Error;

/// An address in the memory of an [`Executor`]; zero is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DevicePointer(pub u64);

impl DevicePointer {
    /// Null pointer, for memory that a kernel need not read or write.
    pub const NULL: Self = Self(0);

    /// Address `elements` elements further on.
    #[must_use]
    pub fn offset(self, elements: usize, element: Element) -> Self {
        Self(self.0 + (elements * element.bytes()) as u64)
    }

    /// Pointer of a parameter struct, to memory that a kernel reads.
    pub(crate) fn read(self) -> *const c_void {
        self.0 as usize as *const c_void
    }

    /// Pointer of a parameter struct, to memory that a kernel writes.
    pub(crate) fn write(self) -> *mut c_void {
        self.0 as usize as *mut c_void
    }

    /// Pointer of a parameter struct, to f32 that a kernel writes.
    pub(crate) fn floats(self) -> *mut f32 {
        self.0 as usize as *mut f32
    }
}

/// Element type of a kernel's tensors; sums are f32 with all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32 bits.
    F32,
    /// IEEE half precision.
    F16,
    /// bf16: the upper half of an f32.
    Bf16,
}

impl Element {
    /// All element types.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Suffix in the symbols of kernels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Selects the symbol for this type out of three; see [`symbol_for`].
    pub(crate) fn pick(self, symbols: [&'static str; 3]) -> &'static str {
        match self {
            Self::F32 => symbols[0],
            Self::F16 => symbols[1],
            Self::Bf16 => symbols[2],
        }
    }
}

/// The symbol of a kernel for an element type: `symbol_for!(element, "layer_norm_forward")`.
macro_rules! symbol_for {
    ($element:expr, $kernel:literal) => {
        $element.pick([
            concat!($kernel, "_f32"),
            concat!($kernel, "_f16"),
            concat!($kernel, "_bf16"),
        ])
    };
}
pub(crate) use symbol_for;

/// Parameter struct that kernels take by value.
///
/// # Safety
/// `repr(C)`, with the layout that `kernels/include/launch_params.h` gives it.
pub unsafe trait Params: Copy + 'static {}

/// Launch of one kernel.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Symbol of the kernel.
    pub symbol: &'static str,
    /// Grid: blocks in each direction, none of them zero.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    params: Box<[MaybeUninit<u64>]>,
    params_bytes: usize,
}

impl Launch {
    /// Launch of `symbol` with `params`.
    ///
    /// # Errors
    /// A grid that no GPU has room for (more than 2^31 - 1 blocks along x, 65,535 along y or z).
    pub fn new<P: Params>(
        symbol: &'static str,
        grid: [usize; 3],
        block: u32,
        shared: usize,
        params: &P,
    ) -> Result<Self> {
        const LIMITS: [usize; 3] = [(1 << 31) - 1, 65_535, 65_535];
        let fits = grid.iter().zip(LIMITS).all(|(&blocks, limit)| (1..=limit).contains(&blocks));
        let (true, Ok(shared)) = (fits, u32::try_from(shared)) else {
            return Err(Error::Argument {
                op: symbol,
                name: "the grid",
                shape: grid.to_vec(),
                expected: format!("1 to {LIMITS:?} blocks: cut the batch into smaller ones"),
            }
            .into());
        };
        let mut packed = vec![MaybeUninit::uninit(); size_of::<P>().div_ceil(8)];
        // SAFETY: the vector has room for a P, and copies of a P are allowed.
        unsafe { packed.as_mut_ptr().cast::<P>().write_unaligned(*params) };
        Ok(Self {
            symbol,
            grid: grid.map(|blocks| blocks as u32),
            block,
            shared,
            params: packed.into(),
            params_bytes: size_of::<P>(),
        })
    }

    /// Pointer to the parameter struct, aligned to eight bytes, for as long as the launch lives.
    pub fn params(&self) -> *const c_void {
        self.params.as_ptr().cast()
    }

    /// Size of the parameter struct in bytes.
    pub fn params_bytes(&self) -> usize {
        self.params_bytes
    }
}

/// Device buffer in the memory of an [`Executor`], freed when dropped.
pub trait DeviceBuffer {
    /// Address of its beginning.
    fn pointer(&self) -> DevicePointer;
    /// Size in bytes.
    fn bytes(&self) -> usize;
}

/// Executor of kernels: a GPU's stream, or the emulator. Requests run in order.
pub trait Executor {
    /// Name, for tables.
    fn name(&self) -> String;
    /// Allocates memory with undefined contents.
    ///
    /// # Errors
    /// Out of memory.
    fn allocate(&self, bytes: usize) -> Result<Box<dyn DeviceBuffer>>;
    /// Copies bytes to the beginning of `to`.
    ///
    /// # Errors
    /// More bytes than there is memory, or errors of the driver.
    fn upload(&self, bytes: &[u8], to: &dyn DeviceBuffer) -> Result<()>;
    /// Copies all of `from`, after everything launched before.
    ///
    /// # Errors
    /// Errors of this copy or of a launch before it.
    fn download(&self, from: &dyn DeviceBuffer) -> Result<Vec<u8>>;
    /// Starts a kernel.
    ///
    /// # Errors
    /// A kernel that does not exist, or errors of the driver.
    ///
    /// # Safety
    /// The pointers in the parameters point at memory of this machine that is as large as the
    /// kernel's contract says, and stays until the kernel has ended.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;
}
