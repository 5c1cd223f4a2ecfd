//! Minimal reader of Thrift's compact protocol, to validate a Parquet file before the library
//! parses it: unneeded fields are skipped, and nothing is allocated.

/// Type codes of the compact protocol.
pub(super) const I32: u8 = 5;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// Nesting limit of structs and lists; a page header has three levels.
const MAX_DEPTH: usize = 32;

/// Reason for an early end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Unexpected end of input.
    End,
    /// Malformed value.
    Bad,
}

/// Reader of values from a byte slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// Bytes consumed.
    pub fn consumed(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Zigzag varint of any width.
    pub fn int(&mut self) -> Result<i64, Stop> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// List header: number and type of the elements that follow.
    pub fn list(&mut self) -> Result<(u64, u8), Stop> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        Ok((count, head & 15))
    }

    /// Calls `see` with the id and type of each field of a struct; it reads the value and returns
    /// true, or the value is skipped.
    pub fn fields(
        &mut self,
        see: &mut dyn FnMut(&mut Self, i64, u8) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        self.fields_at(0, see)
    }

    fn fields_at(
        &mut self,
        depth: usize,
        see: &mut dyn FnMut(&mut Self, i64, u8) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.int()?,
                more => id.checked_add(i64::from(more)).ok_or(Stop::Bad)?,
            };
            let kind = head & 15;
            if !see(self, id, kind)? {
                self.skip(kind, depth)?;
            }
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Bad);
        }
        match kind {
            1 | 2 => Ok(()), // a field that is a truth value has it in its type
            3 => self.byte().map(|_| ()),
            4..=6 => self.varint().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let len = self.varint()?;
                self.pass(len)
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.element(kind, depth))
            }
            11 => {
                let count = self.varint()?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)
                })
            }
            STRUCT => self.fields_at(depth + 1, &mut |_, _, _| Ok(false)),
            13 => self.pass(16),
            _ => Err(Stop::Bad),
        }
    }

    /// Skips an element of a list or map, where a boolean is a byte: no element is shorter than a
    /// byte, so no count can run past the end.
    fn element(&mut self, kind: u8, depth: usize) -> Result<(), Stop> {
        match kind {
            1 | 2 => self.byte().map(|_| ()),
            _ => self.skip(kind, depth + 1),
        }
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let (&first, rest) = self.rest.split_first().ok_or(Stop::End)?;
        self.rest = rest;
        Ok(first)
    }

    fn pass(&mut self, count: u64) -> Result<(), Stop> {
        let count = usize::try_from(count).map_err(|_| Stop::End)?;
        self.rest = self.rest.get(count..).ok_or(Stop::End)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Stop> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_read_or_skipped() {
        // 1: i32 -3, 2: binary "ab", 3: list of two structs {1: true}, 5: i32 300
        let bytes =
            [0x15, 5, 0x18, 2, b'a', b'b', 0x19, 0x2c, 0x11, 0, 0x11, 0, 0x25, 0xd8, 4, 0, 9];
        let mut reader = Reader::new(&bytes);
        let mut seen = Vec::new();
        reader
            .fields(&mut |reader, id, kind| {
                if kind == I32 {
                    seen.push((id, reader.int()?));
                }
                Ok(kind == I32)
            })
            .unwrap();
        assert_eq!(seen, [(1, -3), (5, 300)]);
        assert_eq!(reader.consumed(), bytes.len() - 1);
        for cut in 0..bytes.len() - 1 {
            let none = &mut |_: &mut Reader<'_>, _, _| Ok(false);
            assert_eq!(Reader::new(&bytes[..cut]).fields(none), Err(Stop::End));
        }
    }

    #[test]
    fn depth_and_counts_are_bounded() {
        let none = &mut |_: &mut Reader<'_>, _, _| Ok(false);
        assert_eq!(Reader::new(&[0x1c; 100_000]).fields(none), Err(Stop::Bad));
        assert_eq!(Reader::new(&[0x19; 100_000]).fields(none), Err(Stop::Bad));
        let many = [0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Reader::new(&many).fields(none), Err(Stop::End));
    }

    proptest! {
        /// Parsing ends on any input, within its bounds.
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.fields(&mut |_, _, _| Ok(false));
            prop_assert!(reader.consumed() <= bytes.len());
        }
    }
}
