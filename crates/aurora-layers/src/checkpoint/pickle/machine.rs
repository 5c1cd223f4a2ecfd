//! Stack machine of the pickle parser.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Id, Pickle, PickleError, Storage, StridedTensor, Value};

/// Maximum number of instructions. A state dict takes some forty per tensor, an optimizer's state three times that;
/// each instruction may take a hundred bytes of memory.
const MOST_INSTRUCTIONS: usize = 1 << 21;

/// Maximum length of a line and of a function's name, in bytes.
const LONGEST_LINE: usize = 256;

/// Maximum number of dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;

/// Runs the pickle at the start of `bytes`.
pub(super) fn run(bytes: &[u8]) -> Result<Pickle, PickleError> {
    let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
    Machine { bytes, at: 0, started: 0, values, stack, marks, memo }.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    started: usize, // byte of the instruction at work
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>, // heights of the stack
    memo: HashMap<u64, Id>,
}

type Step<T> = Result<T, PickleError>;

impl Machine<'_> {
    fn run(mut self) -> Step<Pickle> {
        for _ in 0..MOST_INSTRUCTIONS {
            self.started = self.at;
            let [instruction] = self.array()?;
            match instruction {
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { values: self.values, root, length: self.at });
                }
                0x80 => {
                    let [version] = self.array()?;
                    if !(2..=5).contains(&version) {
                        return self.fail(format!("protocol {version}; 2 to 5 are known"));
                    }
                }
                0x95 => drop(self.array::<8>()?), // frame: a hint for readers of streams
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'2' => {
                    let top = self.peek()?;
                    self.stack.push(top);
                }
                b'q' | b'r' | b'p' | 0x94 => self.remember(instruction)?,
                b'h' | b'j' | b'g' => self.recall(instruction)?,
                b'c' | 0x93 => self.global(instruction)?,
                b'Q' | b'R' | b'b' | 0x81 => self.call(instruction)?,
                b'a' | b'e' | b's' | b'u' => self.fill(instruction)?,
                b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'}' | b'd' => {
                    self.collect(instruction)?
                }
                _ => self.literal(instruction)?,
            }
        }
        self.fail(format!(
            "more than {MOST_INSTRUCTIONS} instructions; save the state dict alone, without what is beside it"
        ))
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Step<T> {
        Err(PickleError { offset: self.started, reason: reason.into(), cut: false })
    }

    fn cut<T>(&self, reason: &str) -> Step<T> {
        let reason = format!("{reason}; the file is cut, fetch or write it again");
        Err(PickleError { offset: self.started, reason, cut: true })
    }

    fn take(&mut self, count: usize) -> Step<&[u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return self.cut("ends in the middle of an instruction");
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().take(LONGEST_LINE).position(|&b| b == b'\n') else {
            if rest.len() > LONGEST_LINE {
                return self.fail(format!("a line of more than {LONGEST_LINE} bytes"));
            }
            return self.cut("a line has no end");
        };
        let text = String::from_utf8_lossy(&rest[..length]).trim_end_matches('\r').to_owned();
        self.at += length + 1;
        Ok(text)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn peek(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => self.fail("takes from an empty stack"),
        }
    }

    fn pop(&mut self) -> Step<Id> {
        let id = self.peek()?;
        self.stack.pop();
        Ok(id)
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => self.fail("collects without a mark"),
        }
    }

    fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::None)
    }

    fn remember(&mut self, instruction: u8) -> Step<()> {
        let key = match instruction {
            b'q' => u64::from(u8::from_le_bytes(self.array()?)),
            b'r' => u64::from(u32::from_le_bytes(self.array()?)),
            b'p' => self.number()?,
            _ => self.memo.len() as u64,
        };
        let top = self.peek()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, instruction: u8) -> Step<()> {
        let key = match instruction {
            b'h' => u64::from(u8::from_le_bytes(self.array()?)),
            b'j' => u64::from(u32::from_le_bytes(self.array()?)),
            _ => self.number()?,
        };
        match self.memo.get(&key) {
            Some(&id) => self.stack.push(id),
            None => return self.fail(format!("recalls entry {key}, which was never stored")),
        }
        Ok(())
    }

    fn number(&mut self) -> Step<u64> {
        let line = self.line()?;
        line.parse().or_else(|_| self.fail(format!("{line:?} is no number")))
    }

    fn global(&mut self, instruction: u8) -> Step<()> {
        let (module, name) = if instruction == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (self.get(module), self.get(name)) {
                (Value::Text(module), Value::Text(name))
                    if module.len() + name.len() <= LONGEST_LINE =>
                {
                    (module.to_string(), name.to_string())
                }
                _ => return self.fail("names a function by something that is no short text"),
            }
        };
        self.push(Value::Global(format!("{module} {name}")));
        Ok(())
    }

    /// Handles a call of Python's: a persistent id becomes a storage, a rebuilt tensor a tensor.
    fn call(&mut self, instruction: u8) -> Step<()> {
        let argument = self.pop()?;
        if instruction == b'Q' {
            let storage = self.storage(argument)?;
            self.push(Value::Storage(Arc::new(storage)));
            return Ok(());
        }
        let target = self.peek()?;
        if instruction == b'b' {
            // State of an object: state dicts carry module versions this way.
            return match self.get(target) {
                Value::Dict(_) => Ok(()),
                _ => self.fail("sets the state of an object that is no dictionary"),
            };
        }
        self.pop()?;
        let Value::Global(name) = self.get(target) else {
            return self.fail("calls something that is no function");
        };
        let Value::Tuple(arguments) = self.get(argument) else {
            return self.fail(format!("calls {name} with something that is no tuple"));
        };
        match (name.as_str(), arguments.as_slice()) {
            ("collections OrderedDict", []) => self.push(Value::Dict(Vec::new())),
            ("torch._utils _rebuild_tensor_v2", &[storage, offset, shape, stride, ..]) => {
                let tensor = self.tensor(storage, offset, shape, stride)?;
                self.push(Value::Tensor(Arc::new(tensor)));
            }
            ("torch._utils _rebuild_parameter", &[tensor, ..]) => match self.get(tensor) {
                Value::Tensor(_) => self.stack.push(tensor),
                _ => return self.fail("makes a parameter of something that is no tensor"),
            },
            _ => {
                let called = name.replace(' ', ".");
                return self.fail(format!(
                    "calls {called}, which is no tensor, and nothing is executed; save the state dict alone \
                     (torch.save(model.state_dict(), path)) and try again"
                ));
            }
        }
        Ok(())
    }

    fn storage(&self, id: Id) -> Step<Storage> {
        let wrong = || self.fail("refers to data outside that is no storage of numbers");
        let Value::Tuple(parts) = self.get(id) else { return wrong() };
        let [tag, kind, key, _, count, ..] = parts.as_slice() else { return wrong() };
        match (self.get(*tag), self.get(*kind), self.get(*key), self.get(*count)) {
            (Value::Text(tag), Value::Global(kind), Value::Text(key), &Value::Int(count))
                if **tag == *"storage" =>
            {
                let Some(kind) = kind.strip_prefix("torch ") else { return wrong() };
                let Ok(count) = usize::try_from(count) else { return wrong() };
                Ok(Storage { key: key.clone(), kind: kind.to_owned(), count })
            }
            _ => wrong(),
        }
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, stride: Id) -> Step<StridedTensor> {
        let Value::Storage(storage) = self.get(storage) else {
            return self.fail("builds a tensor on something that is no storage");
        };
        let whole = |id: Id| match *self.get(id) {
            Value::Int(value) => usize::try_from(value).ok(),
            _ => None,
        };
        let list = |id: Id| match self.get(id) {
            Value::Tuple(ids) if ids.len() <= MOST_DIMENSIONS => {
                ids.iter().map(|&id| whole(id)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        match (whole(offset), list(shape), list(stride)) {
            (Some(offset), Some(shape), Some(stride)) if shape.len() == stride.len() => {
                Ok(StridedTensor { storage: storage.clone(), offset, shape, stride })
            }
            _ => self.fail("builds a tensor with sizes or strides that are none"),
        }
    }

    fn fill(&mut self, instruction: u8) -> Step<()> {
        let items = match instruction {
            b'a' => vec![self.pop()?],
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.since_mark()?,
        };
        let target = self.peek()?;
        match (self.values.get_mut(target), matches!(instruction, b'a' | b'e')) {
            (Some(Value::List(list)), true) => list.extend(items),
            (Some(Value::Dict(entries)), false) if items.len() % 2 == 0 => {
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return self.fail("adds items to something that cannot take them"),
        }
        Ok(())
    }

    fn collect(&mut self, instruction: u8) -> Step<()> {
        let items = match instruction {
            b')' | b']' | b'}' => Vec::new(),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..instruction {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
            _ => self.since_mark()?,
        };
        let value = match instruction {
            b']' | b'l' => Value::List(items),
            b'}' | b'd' if items.len() % 2 == 0 => {
                Value::Dict(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
            }
            b'}' | b'd' => return self.fail("a dictionary with a key and no value"),
            _ => Value::Tuple(items),
        };
        self.push(value);
        Ok(())
    }

    fn literal(&mut self, instruction: u8) -> Step<()> {
        let value = match instruction {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(i64::from(u8::from_le_bytes(self.array()?))),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8a => {
                let length = u8::from_le_bytes(self.array()?);
                long(self.take(usize::from(length))?)
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                long(self.take(length)?)
            }
            b'X' | 0x8c | 0x8d => {
                let length = self.length(instruction == 0x8c, instruction == 0x8d)?;
                match String::from_utf8(self.take(length)?.to_vec()) {
                    Ok(text) => Value::Text(text.into()),
                    Err(_) => return self.fail("a text that is not UTF-8"),
                }
            }
            // Byte strings of Python 2, which become text.
            b'T' | b'U' => {
                let length = self.length(instruction == b'U', false)?;
                Value::Text(String::from_utf8_lossy(self.take(length)?).into())
            }
            b'B' | b'C' | 0x8e => {
                let length = self.length(instruction == b'C', instruction == 0x8e)?;
                Value::Bytes(self.take(length)?.to_vec())
            }
            other => {
                return self
                    .fail(format!("instruction 0x{other:02x}, which no file of tensors has"));
            }
        };
        self.push(value);
        Ok(())
    }

    /// Reads a length of one, four or eight bytes.
    fn length(&mut self, short: bool, long: bool) -> Step<usize> {
        let length = if short {
            u64::from(u8::from_le_bytes(self.array()?))
        } else if long {
            u64::from_le_bytes(self.array()?)
        } else {
            u64::from(u32::from_le_bytes(self.array()?))
        };
        usize::try_from(length).or_else(|_| self.fail("a length beyond memory"))
    }
}

/// Little-endian two's complement number of any length.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Long(bytes.to_vec());
    }
    let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [sign; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}
