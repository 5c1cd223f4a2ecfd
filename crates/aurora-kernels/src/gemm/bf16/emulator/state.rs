//! Registers of AMX and AVX-512, and the effects of the instructions on them, after the operations in Intel's manual
//! (volume 2).

use super::decode::{Action, Instruction, Operand};

/// Register state of one thread.
pub(super) struct State {
    wide: [[u32; 16]; 32],
    tiles: [[[u32; 16]; 16]; 8],
    /// Rows of each tile, and bytes of a row; none before configuration.
    cut: Option<[(usize, usize); 8]>,
    /// Number of instructions so far.
    pub(super) count: u64,
}

impl State {
    pub(super) const NEW: Self =
        Self { wide: [[0; 16]; 32], tiles: [[[0; 16]; 16]; 8], cut: None, count: 0 };

    /// Executes the instruction; None, and no effect, where a processor would refuse it.
    ///
    /// # Safety
    /// All memory that it reads can be read, and that it writes be written.
    pub(super) unsafe fn run(&mut self, instruction: &Instruction) -> Option<()> {
        let Instruction { action, register, second, third, .. } = *instruction;
        // SAFETY: vouched for by the caller.
        unsafe {
            match (action, third) {
                (Action::LoadTileConfig, Operand::Memory { address, .. }) => {
                    self.cut = Some(cut(&(address as *const [u8; 64]).read_unaligned())?);
                    self.tiles = Self::NEW.tiles;
                }
                (Action::ReleaseTiles, _) => (self.cut, self.tiles) = (None, Self::NEW.tiles),
                (Action::ZeroTile, _) => {
                    self.cut?;
                    *self.tiles.get_mut(register)? = [[0; 16]; 16];
                }
                (Action::LoadTile, Operand::Memory { address, step }) => {
                    let (rows, bytes) = *self.cut?.get(register)?;
                    let mut tile = [[0; 16]; 16];
                    for (row, to) in tile[..rows].iter_mut().enumerate() {
                        let from = (address + row * step) as *const u8;
                        from.copy_to_nonoverlapping(to.as_mut_ptr().cast(), bytes);
                    }
                    self.tiles[register] = tile;
                }
                (Action::StoreTile, Operand::Memory { address, step }) => {
                    let (rows, bytes) = *self.cut?.get(register)?;
                    for (row, from) in self.tiles[register][..rows].iter().enumerate() {
                        let to = (address + row * step) as *mut u8;
                        to.copy_from_nonoverlapping(from.as_ptr().cast(), bytes);
                    }
                }
                (Action::MultiplyTiles, Operand::Register(third)) => {
                    self.multiply_tiles(register, third, second)?;
                }
                (Action::Store, Operand::Memory { address, .. }) => {
                    (address as *mut [u32; 16]).write_unaligned(self.wide[register]);
                }
                (Action::Broadcast, Operand::Memory { address, .. }) => {
                    self.wide[register] = [(address as *const u32).read_unaligned(); 16];
                }
                (_, operand) => {
                    let third = match operand {
                        Operand::Register(number) => *self.wide.get(number)?,
                        Operand::Memory { address, .. } => {
                            (address as *const [u32; 16]).read_unaligned()
                        }
                    };
                    let second = self.wide[second];
                    for (lane, to) in self.wide[register].iter_mut().enumerate() {
                        let (second, third) = (second[lane], third[lane]);
                        let sum = f32::from_bits(second) + f32::from_bits(third);
                        *to = match action {
                            Action::Load => third,
                            Action::Xor => second ^ third,
                            Action::Add => sum.to_bits(),
                            Action::MultiplyPairs => {
                                let sum = step(f32::from_bits(*to), high(second), high(third));
                                step(sum, low(second), low(third)).to_bits()
                            }
                            _ => return None,
                        };
                    }
                }
            }
        }
        self.count += 1;
        Some(())
    }

    /// Tile product: `to` plus `left` times `right`; even and odd depths are summed apart, then together, then with
    /// `to`.
    fn multiply_tiles(&mut self, to: usize, left: usize, right: usize) -> Option<()> {
        let cut = self.cut?;
        let ((rows, bytes), (left_rows, depth), (right_rows, columns)) =
            (*cut.get(to)?, *cut.get(left)?, *cut.get(right)?);
        // The processor refuses tiles that do not fit, or are the same register.
        let fits = rows == left_rows && bytes == columns && depth == right_rows * 4;
        if !fits || to == left || to == right || left == right {
            return None;
        }
        for row in 0..rows {
            for column in 0..bytes / 4 {
                let (mut even, mut odd) = (0.0, 0.0);
                for pair in 0..depth / 4 {
                    let (a, b) = (self.tiles[left][row][pair], self.tiles[right][pair][column]);
                    even = step(even, low(a), low(b));
                    odd = step(odd, high(a), high(b));
                }
                let sum = &mut self.tiles[to][row][column];
                let both = flushed(even + odd);
                *sum = flushed(flushed(f32::from_bits(*sum)) + both).to_bits();
            }
        }
        Some(())
    }
}

/// Rows and row bytes in the operand of ldtilecfg, if a processor accepts it.
fn cut(operand: &[u8; 64]) -> Option<[(usize, usize); 8]> {
    let reserved = operand[2..16].iter().chain(&operand[32..48]).chain(&operand[56..]);
    if operand[0] != 1 || operand[1] != 0 || reserved.copied().any(|byte| byte != 0) {
        return None;
    }
    let mut cut = [(0, 0); 8];
    for (tile, cut) in cut.iter_mut().enumerate() {
        let bytes = u16::from_le_bytes([operand[16 + 2 * tile], operand[17 + 2 * tile]]);
        *cut = (operand[48 + tile].into(), bytes.into());
        if cut.0 > 16 || cut.1 > 64 || cut.1 % 4 != 0 || (cut.0 == 0) != (cut.1 == 0) {
            return None;
        }
    }
    Some(cut)
}

/// Upper and lower bf16 of a pair, as f32.
fn high(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

fn low(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

/// Fused multiply-add `sum + a b`: one rounding, to nearest and ties to even; subnormal inputs and results become
/// zero.
pub(super) fn step(sum: f32, a: f32, b: f32) -> f32 {
    flushed(flushed(a).mul_add(flushed(b), flushed(sum)))
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}
