//! Configuration schema: path, type, range and doc line of each key, in one table.
//!
//! Values are checked against this table before serde sees them, so that an error can name the full
//! path of the key, the allowed values, and where the value was given. The doc lines become the
//! comments of a written configuration.

use aurora_kernels::device::DeviceChoice;
use toml::Value;

use super::ConfigError;

/// Schema row of one key.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Full path, for example `adapter.rank`.
    pub key: &'static str,
    /// Type of its value.
    pub value_type: ValueType,
    /// Doc line.
    pub doc: &'static str,
}

/// Type of a value.
#[derive(Debug, Clone, Copy)]
pub enum ValueType {
    /// Text that is not empty.
    Text,
    /// Text or list of texts, none empty.
    Texts,
    /// List of texts that may be empty; one text alone is a list of one.
    List(StringRule),
    /// Text that obeys a rule.
    Word(StringRule),
    /// Regular expression, or nothing; the function validates it.
    Pattern(fn(&str) -> bool),
    /// Boolean.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Integer from the first to the second, inclusive.
    Count(i64, i64),
    /// Finite number in a range.
    Real(Range),
    /// Two finite numbers in a range.
    RealPair(Range),
    /// Finite number in a range, or a list of them that is not empty.
    RealOrList(Range),
}

/// Rule on texts.
#[derive(Debug, Clone, Copy)]
pub struct StringRule {
    /// Description of the texts, for messages.
    pub what: &'static str,
    /// True if a text obeys the rule.
    pub fits: fn(&str) -> bool,
}

/// Type of the key `device`, which every run has.
pub(super) const DEVICE: ValueType = ValueType::Word(StringRule {
    what: DeviceChoice::ALLOWED,
    fits: |name| name.parse::<DeviceChoice>().is_ok(),
});

/// Doc line of the key `device`.
pub(super) const DEVICE_DOC: &str = "Where to compute: auto (the first GPU that this program can use, else the CPU), cpu, cuda, cuda:1.";

/// Numeric range between two bounds.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    low: f64,
    high: f64,
    open: [bool; 2],
}

impl Range {
    /// Above zero.
    pub const POSITIVE: Self = Self { low: 0.0, high: f64::INFINITY, open: [true, true] };
    /// Zero or more.
    pub const NOT_NEGATIVE: Self = Self { low: 0.0, high: f64::INFINITY, open: [false, true] };
    /// 0 to 1.
    pub const SHARE: Self = Self { low: 0.0, high: 1.0, open: [false, false] };
    /// 0 to below 1.
    pub const BELOW_ONE: Self = Self { low: 0.0, high: 1.0, open: [false, true] };

    /// Range from `low` to `high`, inclusive.
    pub const fn closed(low: f64, high: f64) -> Self {
        Self { low, high, open: [false, false] }
    }

    fn holds(&self, x: f64) -> bool {
        let [open_low, open_high] = self.open;
        let above = if open_low { x > self.low } else { x >= self.low };
        let below = if open_high { x < self.high } else { x <= self.high };
        x.is_finite() && above && below
    }

    fn describe(&self) -> String {
        let [open_low, open_high] = self.open;
        match (open_low, open_high, self.high.is_finite()) {
            (true, _, false) => format!("finite and above {}", self.low),
            (false, _, false) => format!("finite and at least {}", self.low),
            (_, true, _) => format!("{} to below {}", self.low, self.high),
            (_, false, _) => format!("{} to {}", self.low, self.high),
        }
    }
}

impl ValueType {
    /// Description of the range, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Texts => "a text or a list of texts".to_owned(),
            Self::List(words) => format!("a list of {}", words.what),
            Self::Word(words) => words.what.to_owned(),
            Self::Pattern(_) => "a regular expression".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", quoted(words)),
            Self::Count(low, i64::MAX) => format!("a whole number, at least {low}"),
            Self::Count(low, high) => format!("a whole number, {low} to {high}"),
            Self::Real(range) => format!("a number, {}", range.describe()),
            Self::RealPair(range) => format!("two numbers, each {}", range.describe()),
            Self::RealOrList(range) => {
                format!("a number or a list of numbers, each {}", range.describe())
            }
        }
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ")
}

impl Field {
    /// Checks a value and converts it to the form that serde expects (integers become floats where those
    /// are wanted). `origin` says where it was given.
    ///
    /// # Errors
    /// A value of another type or outside of what is allowed.
    pub fn accept(&self, value: Value, origin: &str) -> Result<Value, ConfigError> {
        let wrong_type = |value: &Value| ConfigError::WrongType {
            origin: origin.to_owned(),
            key: self.key.to_owned(),
            expected: self.value_type.describe(),
            found: describe(value),
        };
        let bad = |value: &Value| ConfigError::BadValue {
            origin: origin.to_owned(),
            key: self.key.to_owned(),
            value: value.to_string(),
            allowed: self.value_type.describe(),
        };
        let real = |value: &Value, range: &Range| match as_real(value) {
            None => Err(wrong_type(value)),
            Some(x) if !range.holds(x) => Err(bad(value)),
            Some(x) => Ok(Value::Float(x)),
        };
        match (&self.value_type, &value) {
            (ValueType::Text | ValueType::Texts, Value::String(text)) if text.is_empty() => {
                Err(bad(&value))
            }
            (ValueType::Text | ValueType::Texts, Value::String(_)) => Ok(value),
            (ValueType::Texts, Value::Array(items)) if items.is_empty() => Err(bad(&value)),
            (ValueType::Texts, Value::Array(items)) => {
                match items.iter().find(|item| item.as_str().is_none_or(str::is_empty)) {
                    Some(item) if item.is_str() => Err(bad(&value)),
                    Some(item) => Err(wrong_type(item)),
                    None => Ok(value),
                }
            }
            (ValueType::List(words), Value::String(text)) => match (words.fits)(text) {
                true => Ok(Value::Array(vec![value])),
                false => Err(bad(&value)),
            },
            (ValueType::List(words), Value::Array(items)) => {
                match items.iter().find(|item| !item.as_str().is_some_and(words.fits)) {
                    Some(item) if item.is_str() => Err(bad(item)),
                    Some(item) => Err(wrong_type(item)),
                    None => Ok(value),
                }
            }
            (ValueType::Word(words), Value::String(text)) => match (words.fits)(text) {
                true => Ok(value),
                false => Err(bad(&value)),
            },
            (ValueType::Pattern(fits), Value::String(text)) => match fits(text) {
                true => Ok(value),
                false => Err(bad(&value)),
            },
            (ValueType::Switch, Value::Boolean(_)) => Ok(value),
            (ValueType::Choice(words), Value::String(word)) => {
                if words.contains(&word.as_str()) {
                    Ok(value)
                } else {
                    Err(bad(&value))
                }
            }
            (ValueType::Count(low, high), Value::Integer(n)) => {
                if (low..=high).contains(&n) {
                    Ok(value)
                } else {
                    Err(bad(&value))
                }
            }
            (ValueType::Real(range), _) => real(&value, range),
            (ValueType::RealPair(range), Value::Array(items)) if items.len() == 2 => {
                Ok(Value::Array(items.iter().map(|x| real(x, range)).collect::<Result<_, _>>()?))
            }
            (ValueType::RealOrList(_), Value::Array(items)) if items.is_empty() => Err(bad(&value)),
            (ValueType::RealOrList(range), Value::Array(items)) => {
                Ok(Value::Array(items.iter().map(|x| real(x, range)).collect::<Result<_, _>>()?))
            }
            (ValueType::RealOrList(range), _) => real(&value, range),
            _ => Err(wrong_type(&value)),
        }
    }
}

fn as_real(value: &Value) -> Option<f64> {
    match value {
        Value::Float(x) => Some(*x),
        Value::Integer(n) => Some(*n as f64),
        _ => None,
    }
}

/// Type and value, for messages.
fn describe(value: &Value) -> String {
    let kind = match value {
        Value::String(_) => "the text",
        Value::Integer(_) => "the whole number",
        Value::Float(_) => "the number",
        Value::Boolean(_) => "the switch",
        Value::Datetime(_) => "the date",
        Value::Array(_) => "the list",
        Value::Table(_) => return "a section".to_owned(),
    };
    format!("{kind} {value}")
}

/// Keys and sections directly inside `section` (empty: the top), in the order of the table.
pub fn children(fields: &[&Field], section: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for field in fields {
        let inside = if section.is_empty() {
            Some(field.key)
        } else {
            field.key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(inside) = inside {
            let name = match inside.split_once('.') {
                Some((first, _)) => format!("[{first}]"),
                None => inside.to_owned(),
            };
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

/// True if `path` is a section.
pub fn is_section(fields: &[&Field], path: &str) -> bool {
    fields.iter().any(|f| f.key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Nearest existing path to an unknown one: a slip of a letter or two, or the right key in another
/// section.
pub fn nearest(fields: &[&Field], key: &str) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let mut paths: Vec<&str> = Vec::new();
    for field in fields {
        paths.push(field.key);
        paths.extend(field.key.match_indices('.').map(|(at, _)| &field.key[..at]));
    }
    let cost = |path: &str| {
        let elsewhere = distance(&last(key), &last(path)) + 1;
        distance(key, path).min(elsewhere)
    };
    let best = paths.into_iter().min_by_key(|path| (cost(path), distance(key, path)))?;
    (cost(best) <= 2.max(last(key).chars().count() / 3)).then(|| best.to_owned())
}

/// Levenshtein edit distance, row by row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIELDS: [Field; 3] = [
        Field { key: "seed", value_type: ValueType::Count(0, i64::MAX), doc: "" },
        Field { key: "adapter.rank", value_type: ValueType::Count(1, 4096), doc: "" },
        Field { key: "adapter.gated_query", value_type: ValueType::Switch, doc: "" },
    ];

    #[test]
    fn finds_what_was_meant() {
        let fields: Vec<&Field> = FIELDS.iter().collect();
        let near = |key: &str| nearest(&fields, key);
        assert_eq!(near("adapter.rnak").as_deref(), Some("adapter.rank"));
        assert_eq!(near("rank").as_deref(), Some("adapter.rank"));
        assert_eq!(near("adaptor").as_deref(), Some("adapter"));
        assert_eq!(near("optimizer"), None);
        assert_eq!(children(&fields, ""), ["seed", "[adapter]"]);
        assert_eq!(children(&fields, "adapter"), ["rank", "gated_query"]);
        assert!(is_section(&fields, "adapter") && !is_section(&fields, "adapt"));
    }

    #[test]
    fn ranges_say_what_they_hold() {
        let cases = [
            (Range::POSITIVE, "finite and above 0", vec![1e-9], vec![0.0, -1.0, f64::INFINITY]),
            (Range::NOT_NEGATIVE, "finite and at least 0", vec![0.0], vec![-1e-9, f64::NAN]),
            (Range::SHARE, "0 to 1", vec![0.0, 1.0], vec![1.1]),
            (Range::BELOW_ONE, "0 to below 1", vec![0.0, 0.999], vec![1.0]),
        ];
        for (range, text, inside, outside) in cases {
            assert_eq!(range.describe(), text);
            assert!(inside.into_iter().all(|x| range.holds(x)));
            assert!(!outside.into_iter().any(|x| range.holds(x)));
        }
    }

    #[test]
    fn lists_are_checked_item_by_item() {
        let field = |value_type| Field { key: "k", value_type, doc: "" };
        let parse = |text: &str| text.parse::<toml::Table>().unwrap()["k"].clone();
        let pair = field(ValueType::RealPair(Range::BELOW_ONE));
        assert_eq!(pair.accept(parse("k = [0, 0.5]"), "o").unwrap().to_string(), "[0.0, 0.5]");
        for bad in ["k = [0.9]", "k = [0.9, 1.0]", "k = [0.9, \"x\"]", "k = 0.9"] {
            assert!(pair.accept(parse(bad), "o").is_err(), "{bad}");
        }
        let texts = field(ValueType::Texts);
        assert!(texts.accept(parse("k = [\"a\", \"b\"]"), "o").is_ok());
        for bad in ["k = []", "k = \"\"", "k = [\"a\", \"\"]", "k = [1]", "k = 1"] {
            assert!(texts.accept(parse(bad), "o").is_err(), "{bad}");
        }
        let layer = |text: &str| text.parse::<u8>().is_ok();
        let words = field(ValueType::List(StringRule { what: "layers", fits: layer }));
        assert_eq!(words.accept(parse("k = \"3\""), "o").unwrap().to_string(), "[\"3\"]");
        assert!(words.accept(parse("k = []"), "o").is_ok());
        for bad in ["k = \"x\"", "k = [\"1\", \"x\"]", "k = [1]", "k = 1"] {
            assert!(words.accept(parse(bad), "o").is_err(), "{bad}");
        }
        let list = field(ValueType::RealOrList(Range::NOT_NEGATIVE));
        assert_eq!(list.accept(parse("k = 1"), "o").unwrap().to_string(), "1.0");
        for bad in ["k = []", "k = [-1]", "k = true"] {
            assert!(list.accept(parse(bad), "o").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn distance_is_a_distance(a in "[ab.]{0,6}", b in "[ab.]{0,6}", c in "[ab.]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
        }
    }
}
