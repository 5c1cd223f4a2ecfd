//! A launch of a kernel as plain data, and where it can go.

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};

use candle_core::Result;

use crate::Error;

/// An address in the memory of an [`Executor`]; zero is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DevicePointer(pub u64);

impl DevicePointer {
    /// No memory: for what a kernel need not read or write.
    pub const NULL: Self = Self(0);

    /// The address of an element further on.
    #[must_use]
    pub fn offset(self, elements: usize, element: Element) -> Self {
        Self(self.0 + (elements * element.bytes()) as u64)
    }

    /// As it stands in a parameter struct that reads.
    pub(crate) fn read(self) -> *const c_void {
        self.0 as usize as *const c_void
    }

    /// As it stands in a parameter struct that writes.
    pub(crate) fn write(self) -> *mut c_void {
        self.0 as usize as *mut c_void
    }

    /// A pointer to f32 that a kernel writes.
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
    /// The upper half of an f32.
    Bf16,
}

impl Element {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Size of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// As symbols end.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The one of three symbols that is for this type; see [`symbol_for`].
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

/// A struct that kernels take by value.
///
/// # Safety
/// `repr(C)`, with the layout that `kernels/include/launch_params.h` gives it.
pub unsafe trait Params: Copy + 'static {}

/// One launch of one kernel.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The kernel.
    pub symbol: &'static str,
    /// Blocks in each direction; none of them zero.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    params: Box<[MaybeUninit<u64>]>,
    params_bytes: usize,
}

impl Launch {
    /// A launch of `symbol` with `params`.
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

    /// The parameter struct, aligned to eight bytes, for as long as the launch lives.
    pub fn params(&self) -> *const c_void {
        self.params.as_ptr().cast()
    }

    /// Size of the parameter struct.
    pub fn params_bytes(&self) -> usize {
        self.params_bytes
    }
}

/// A buffer in the memory of an [`Executor`], freed when dropped.
pub trait DeviceBuffer {
    /// Where it begins.
    fn pointer(&self) -> DevicePointer;
    /// Its size.
    fn bytes(&self) -> usize;
}

/// Where kernels run: a GPU's stream, or the emulator. What is asked of it happens in order.
pub trait Executor {
    /// Its name, for tables.
    fn name(&self) -> String;
    /// New memory with undefined contents.
    ///
    /// # Errors
    /// When there is not enough.
    fn allocate(&self, bytes: usize) -> Result<Box<dyn DeviceBuffer>>;
    /// Copies bytes to the beginning of `to`.
    ///
    /// # Errors
    /// More bytes than there is memory, or what the driver says.
    fn upload(&self, bytes: &[u8], to: &dyn DeviceBuffer) -> Result<()>;
    /// Copies all of `from`, after everything launched before.
    ///
    /// # Errors
    /// What went wrong in this copy or in a launch before it.
    fn download(&self, from: &dyn DeviceBuffer) -> Result<Vec<u8>>;
    /// Starts a kernel.
    ///
    /// # Errors
    /// A kernel that does not exist, or what the driver says.
    ///
    /// # Safety
    /// The pointers in the parameters point at memory of this machine that is as large as the
    /// kernel's contract says, and stays until the kernel has ended.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;
}
