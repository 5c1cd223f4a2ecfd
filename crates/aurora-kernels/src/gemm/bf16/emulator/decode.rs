//! Decoder of the few instructions in the kernels, as Intel's manual encodes them (volume 2, chapter 2).

use std::ffi::c_int;

use libc::greg_t;

/// Operation of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    LoadTileConfig,
    ReleaseTiles,
    ZeroTile,
    LoadTile,
    StoreTile,
    MultiplyTiles,
    /// vdpbf16ps.
    MultiplyPairs,
    /// vmovups from memory.
    Load,
    /// vmovups to memory.
    Store,
    /// vpbroadcastd.
    Broadcast,
    /// vpxord.
    Xor,
    /// vaddps.
    Add,
}

/// Decoded instruction with its operands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instruction {
    pub(super) action: Action,
    /// Length in bytes.
    pub(super) length: usize,
    /// Operands: the register in ModRM.reg, the one in the prefix, and the one of ModRM.rm.
    pub(super) register: usize,
    pub(super) second: usize,
    pub(super) third: Operand,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Operand {
    Register(usize),
    /// Address in memory; of a tile that of its first row, with the distance to the next.
    Memory {
        address: usize,
        step: usize,
    },
}

/// Contents of a prefix: the opcode table, and the upper bits of register numbers.
struct Prefix {
    length: usize,
    /// Kind of prefix, opcode map, mandatory prefix (none, 66, F3, F2).
    table: (Kind, u8, u8),
    reg: usize,
    index: usize,
    base: usize,
    second: usize,
    /// Upper bits of a register in ModRM.rm.
    rm: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vex,
    Evex,
}

/// Decodes the instruction at this address, if it is one of ours; `registers` are the general ones, as the system
/// lays them out.
///
/// # Safety
/// An instruction can be read there.
pub(super) unsafe fn instruction(at: *const u8, registers: &[greg_t]) -> Option<Instruction> {
    // SAFETY: a decoder reads no byte before those in front of it said that the instruction goes on.
    let byte = |index: usize| unsafe { at.add(index).read() };
    let prefix = match byte(0) {
        0xc4 => vex(byte(1), byte(2))?,
        0x62 => evex([byte(1), byte(2), byte(3)])?,
        _ => return None,
    };
    let (code, modrm) = (byte(prefix.length), byte(prefix.length + 1));
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let (in_register, by_index) = (mode == 3, mode != 3 && rm == 4);
    // Unit of a displacement of one byte.
    let (action, unit) = match (prefix.table, code) {
        ((Kind::Vex, 2, 0), 0x49) if modrm == 0xc0 => (Action::ReleaseTiles, 1),
        ((Kind::Vex, 2, 0), 0x49) if !in_register && reg == 0 => (Action::LoadTileConfig, 1),
        ((Kind::Vex, 2, 3), 0x49) if in_register && rm == 0 => (Action::ZeroTile, 1),
        ((Kind::Vex, 2, 3), 0x4b) if by_index => (Action::LoadTile, 1),
        ((Kind::Vex, 2, 2), 0x4b) if by_index => (Action::StoreTile, 1),
        ((Kind::Vex, 2, 2), 0x5c) if in_register => (Action::MultiplyTiles, 1),
        ((Kind::Evex, 2, 2), 0x52) => (Action::MultiplyPairs, 64),
        ((Kind::Evex, 2, 1), 0x58) if !in_register => (Action::Broadcast, 4),
        ((Kind::Evex, 1, 1), 0xef) => (Action::Xor, 64),
        ((Kind::Evex, 1, 0), 0x58) => (Action::Add, 64),
        ((Kind::Evex, 1, 0), 0x10) if !in_register => (Action::Load, 64),
        ((Kind::Evex, 1, 0), 0x11) if !in_register => (Action::Store, 64),
        _ => return None,
    };
    let mut length = prefix.length + 2;
    let third = if in_register {
        Operand::Register(rm + prefix.rm)
    } else {
        let general = |number: usize| registers[ORDER[number] as usize] as usize;
        let (mut base, mut step) = (rm, 0);
        if by_index {
            let sib = byte(length);
            length += 1;
            base = usize::from(sib & 7);
            let index = usize::from(sib >> 3 & 7) + prefix.index;
            // Index 4 without an upper bit stands for none.
            if index != 4 {
                step = general(index) << (sib >> 6);
            }
        }
        let displacement = match mode {
            // Relative to the instruction, or to nothing: no kernel does that.
            0 if base == 5 => return None,
            0 => 0,
            1 => {
                length += 1;
                isize::from(byte(length - 1) as i8) * unit
            }
            _ => {
                length += 4;
                i32::from_le_bytes([4, 3, 2, 1].map(|back| byte(length - back))) as isize
            }
        };
        let start = general(base + prefix.base).wrapping_add_signed(displacement);
        // The index is part of the address, but for tiles, where it is their step.
        let of_tile = matches!(action, Action::LoadTile | Action::StoreTile);
        let address = if of_tile { start } else { start.wrapping_add(step) };
        Operand::Memory { address, step }
    };
    Some(Instruction { action, length, register: reg + prefix.reg, second: prefix.second, third })
}

/// The system's indices of the general registers, in the order of their numbers.
const ORDER: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Bit `bit` of a byte that stores it inverted.
fn inverted(byte: u8, bit: u8) -> usize {
    usize::from(byte >> bit & 1 == 0)
}

/// VEX prefix: 128 bits, W = 0, as in all instructions of AMX here.
fn vex(first: u8, second: u8) -> Option<Prefix> {
    (second & 0x84 == 0).then(|| Prefix {
        length: 3,
        table: (Kind::Vex, first & 0x1f, second & 3),
        reg: inverted(first, 7) << 3,
        index: inverted(first, 6) << 3,
        base: inverted(first, 5) << 3,
        second: usize::from(!second >> 3 & 15),
        rm: inverted(first, 5) << 3,
    })
}

/// EVEX prefix: 512 bits, W = 0, without mask, broadcast and rounding of its own.
fn evex([first, second, third]: [u8; 3]) -> Option<Prefix> {
    (first & 0x08 == 0 && second & 0x84 == 0x04 && third & 0xf7 == 0x40).then(|| Prefix {
        length: 4,
        table: (Kind::Evex, first & 7, second & 3),
        reg: inverted(first, 7) << 3 | inverted(first, 4) << 4,
        index: inverted(first, 6) << 3,
        base: inverted(first, 5) << 3,
        second: usize::from(!second >> 3 & 15) | inverted(third, 3) << 4,
        rm: inverted(first, 5) << 3 | inverted(first, 6) << 4,
    })
}
