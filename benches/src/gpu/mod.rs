//! GPU half of the benches: the operands of a case in an executor's memory, and the device that times its launches.

mod device;
mod work;

pub use device::Device;
pub use work::{Held, Numbers, Operands, Work};
