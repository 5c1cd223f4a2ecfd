//! Far memory: pieces with a long way between them, so that an index cut to 32 bits on its way misses all but the
//! first.

use std::ffi::{c_ulong, c_void};

use aurora_kernels::cuda::DevicePointer;

use crate::kernels::emulator::{Emulator, Register, Release, symbol};

/// Pieces of memory of one size, each at the same distance from the one before.
pub struct Far {
    reserved: *mut c_void,
    pieces: usize,
    bytes: usize,
    /// Bytes between the beginnings of neighbors.
    pub distance: usize,
}

impl Far {
    /// Distance further than 32 bits count in elements of any type, and a multiple of 16.
    pub const DISTANCE: usize = 5 << 31;

    /// Allocates pieces of `bytes` bytes, all ones, `distance` bytes apart.
    pub fn new(_: &Emulator, pieces: usize, bytes: usize, distance: usize) -> Self {
        assert!(bytes <= distance);
        // SAFETY: a new mapping; pages that nobody touches take no memory.
        let reserved = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), pieces * distance, access, flags, -1, 0)
        };
        assert_ne!(reserved, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let far = Self { reserved, pieces, bytes, distance };
        for piece in 0..pieces {
            let start = far.place(piece, 0, bytes);
            // SAFETY: inside of the mapping, which stays until `drop`.
            unsafe {
                start.write_bytes(0xff, bytes);
                let register = symbol::<Register>("emulator_register");
                register(start.cast(), bytes as c_ulong, c"one of several far apart".as_ptr());
            }
        }
        far
    }

    fn place(&self, piece: usize, offset: usize, length: usize) -> *mut u8 {
        assert!(piece < self.pieces && offset + length <= self.bytes);
        self.reserved.cast::<u8>().wrapping_add(piece * self.distance + offset)
    }

    /// Pointer to the first piece.
    pub fn pointer(&self) -> DevicePointer {
        DevicePointer(self.reserved as u64)
    }

    /// Writes bytes into a piece.
    pub fn write(&self, piece: usize, offset: usize, bytes: &[u8]) {
        let to = self.place(piece, offset, bytes.len());
        // SAFETY: there is room.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Reads bytes of a piece.
    pub fn read(&self, piece: usize, offset: usize, length: usize) -> Vec<u8> {
        let from = self.place(piece, offset, length);
        // SAFETY: all of it was written in `new`.
        unsafe { std::slice::from_raw_parts(from, length) }.to_vec()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // SAFETY: made by `new`; the runtime forgets the pieces before they are gone.
        unsafe {
            for piece in 0..self.pieces {
                symbol::<Release>("emulator_release")(self.place(piece, 0, 0).cast());
            }
            libc::munmap(self.reserved, self.pieces * self.distance);
        }
    }
}
