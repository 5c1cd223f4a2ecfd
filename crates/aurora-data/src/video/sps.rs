//! H.264 sequence parameter set (ITU-T H.264, 7.3.2.1 and annex E).

use super::yuv::YuvCoding;

/// Fields of a sequence parameter set that are used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sps {
    /// Color coding.
    pub coding: YuvCoding,
    /// Width in pixels, before cropping.
    pub width: u64,
    /// Height in pixels, before cropping.
    pub height: u64,
}

/// Profiles with a chroma format and scaling lists.
const HIGH: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

impl Sps {
    /// Parses a NAL unit of type 7, its header included.
    pub(super) fn parse(nal: &[u8]) -> Result<Self, String> {
        let payload = unescape(nal.get(1..).unwrap_or_default());
        let mut bits = Bits { data: &payload, at: 0 };
        parse(&mut bits).ok_or("its sequence parameter set is cut")?
    }
}

fn parse(bits: &mut Bits<'_>) -> Option<Result<Sps, String>> {
    let profile = bits.take(8)?;
    bits.take(16)?;
    bits.number()?;
    if HIGH.contains(&profile) {
        let chroma = bits.number()?;
        if chroma == 3 {
            bits.take(1)?;
        }
        let (luma_depth, chroma_depth) = (8 + bits.number()?, 8 + bits.number()?);
        if chroma != 1 || (luma_depth, chroma_depth) != (8, 8) {
            let form = ["monochrome", "4:2:0", "4:2:2", "4:4:4"].get(chroma as usize);
            return Some(Err(format!(
                "it is {} of {luma_depth} bits; 4:2:0 of 8 bits is decoded",
                form.unwrap_or(&"of an unknown form")
            )));
        }
        bits.take(1)?;
        if bits.flag()? {
            for list in 0..8 {
                if bits.flag()? {
                    skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.number()?;
    match bits.number()? {
        0 => {
            bits.number()?;
        }
        1 => {
            bits.take(1)?;
            bits.signed()?;
            bits.signed()?;
            let cycle = bits.number()?;
            if cycle > 255 {
                return None;
            }
            for _ in 0..cycle {
                bits.signed()?;
            }
        }
        _ => {}
    }
    bits.number()?;
    bits.take(1)?;
    let width = 16 * (u64::from(bits.number()?) + 1);
    let rows = u64::from(bits.number()?) + 1;
    if !bits.flag()? {
        return Some(Err("it is interlaced; whole frames are decoded".to_string()));
    }
    bits.take(1)?;
    if bits.flag()? {
        for _ in 0..4 {
            bits.number()?;
        }
    }
    // Errors beyond this point leave the default coding in place.
    let coding = yuv_coding(bits).unwrap_or_default();
    Some(Ok(Sps { coding, width, height: 16 * rows }))
}

/// Color description of the video usability information (VUI), if present.
fn yuv_coding(bits: &mut Bits<'_>) -> Option<YuvCoding> {
    let mut coding = YuvCoding::default();
    if !bits.flag()? {
        return Some(coding);
    }
    if bits.flag()? && bits.take(8)? == 255 {
        bits.take(32)?;
    }
    if bits.flag()? {
        bits.take(1)?;
    }
    if bits.flag()? {
        bits.take(3)?;
        coding.full_range = bits.flag()?;
        if bits.flag()? {
            bits.take(16)?;
            coding.matrix = bits.take(8)?;
        }
    }
    Some(coding)
}

fn skip_scaling_list(bits: &mut Bits<'_>, length: usize) -> Option<()> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..length {
        if next != 0 {
            next = last.wrapping_add(bits.signed()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// Removes emulation prevention bytes.
fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// Bit reader, most significant bit first.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..count {
            let byte = self.data.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// Unsigned Exp-Golomb code, ue(v).
    fn number(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// Signed Exp-Golomb code, se(v): 0, 1, -1, 2, -2, ...
    fn signed(&mut self) -> Option<i32> {
        let number = i64::from(self.number()?);
        let half = (number + 1) / 2;
        i32::try_from(if number % 2 == 1 { half } else { -half }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_exp_golomb() {
        // 1, 010, 011, 00100, 00101: 0 to 4.
        let data = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits { data: &data, at: 0 };
        assert_eq!([(); 5].map(|()| bits.number().unwrap()), [0, 1, 2, 3, 4]);
        let mut bits = Bits { data: &data, at: 0 };
        assert_eq!([(); 5].map(|()| bits.signed().unwrap()), [0, 1, -1, 2, -2]);
        assert!(Bits { data: &[0; 8], at: 0 }.number().is_none());
    }

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 5, 3]), [0, 0, 1, 0, 0, 0, 0, 5, 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sps::parse(&bytes);
        }
    }
}
