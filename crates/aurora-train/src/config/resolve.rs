//! Configuration resolution: defaults, a file and overrides to a typed configuration, and back to TOML.

use std::fmt::Write as _;
use std::path::Path;

use aurora_kernels::device::DeviceChoice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::ConfigError;
use super::schema::{Field, ValueType, children, is_section, nearest};

/// Configuration resolved from layers: built-in defaults, then a file, then overrides, each over the
/// one before.
pub trait RunConfig: Serialize + DeserializeOwned {
    /// Defaults as TOML, with every key but those that [`RunConfig::complete`] fills in.
    const DEFAULTS: &'static str;

    /// Schema of every key, section by section.
    fn fields() -> Vec<&'static Field>;

    /// Value of the key `device`.
    fn device(&self) -> &str;

    /// Parsed value of the key `device`.
    ///
    /// # Errors
    /// A text that is no device; a resolved one is.
    fn device_choice(&self) -> Result<DeviceChoice, ConfigError> {
        self.device().parse().map_err(|_| ConfigError::BadValue {
            origin: "the configuration".to_owned(),
            key: "device".to_owned(),
            value: format!("{:?}", self.device()),
            allowed: DeviceChoice::ALLOWED.to_owned(),
        })
    }

    /// Fills in values that depend on others.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`].
    fn complete(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Checks values against each other.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`].
    fn check(&self) -> Result<(), ConfigError>;

    /// Default configuration.
    ///
    /// # Errors
    /// None in practice: the defaults are tested.
    fn defaults() -> Result<Self, ConfigError> {
        Self::resolve(None, &[] as &[&str])
    }

    /// Resolves defaults, then the TOML file if there is one, then overrides `section.key=value`.
    ///
    /// The value of an override is parsed as TOML; anything that is not TOML is text, so that
    /// `adapter.kind=heads` needs no quotes.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, an unknown key, a value of the wrong type or outside
    /// of what is allowed, values that contradict each other.
    fn resolve<S: AsRef<str>>(file: Option<&Path>, overrides: &[S]) -> Result<Self, ConfigError> {
        let text = match file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                Some((path.display().to_string(), text))
            }
        };
        Self::resolve_text(text.as_ref().map(|(o, t)| (o.as_str(), t.as_str())), overrides)
    }

    /// Resolves as [`RunConfig::resolve`], with the file's text and a name for it.
    ///
    /// # Errors
    /// As [`RunConfig::resolve`].
    fn resolve_text<S: AsRef<str>>(
        file: Option<(&str, &str)>,
        overrides: &[S],
    ) -> Result<Self, ConfigError> {
        let fields = Self::fields();
        let mut merged = Table::new();
        for (origin, text) in [("the defaults", Self::DEFAULTS)].into_iter().chain(file) {
            overlay(&fields, &mut merged, parse(origin, text)?, "", origin)?;
        }
        for text in overrides {
            let text = text.as_ref();
            let layer = parse_override(&fields, text)?;
            overlay(&fields, &mut merged, layer, "", &format!("--set {text}"))?;
        }
        let mut config: Self = Value::Table(merged).try_into().map_err(|e: toml::de::Error| {
            ConfigError::Syntax { origin: "the configuration".to_owned(), message: e.to_string() }
        })?;
        config.complete()?;
        config.check()?;
        Ok(config)
    }

    /// Writes the whole configuration as TOML, each key under its doc line.
    ///
    /// # Errors
    /// None in practice: everything a configuration holds can be written as TOML.
    fn to_toml(&self) -> Result<String, ConfigError> {
        let value = Value::try_from(self).map_err(|e| ConfigError::Conflict(e.to_string()))?;
        let mut text = String::new();
        let mut section = "";
        for field in Self::fields() {
            let (home, key) = field.key.rsplit_once('.').unwrap_or(("", field.key));
            let mut found = Some(&value);
            for part in field.key.split('.') {
                found = found.and_then(|v| v.get(part));
            }
            let Some(found) = found else { continue };
            if home != section {
                section = home;
                let _ = write!(text, "\n[{home}]\n");
            }
            let shown = match found {
                Value::Float(x) if *x != 0.0 && x.abs() < 1e-3 => format!("{x:e}"),
                other => other.to_string(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# {}\n{key} = {shown}", field.doc);
        }
        Ok(text)
    }
}

/// Lists every key with its type and doc line, for `--help`.
pub fn describe<C: RunConfig>() -> String {
    let mut text = String::new();
    for field in C::fields() {
        let _ = writeln!(text, "{}: {}\n    {}", field.key, field.value_type.describe(), field.doc);
    }
    text
}

fn parse(origin: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
        origin: origin.to_owned(),
        message: e.to_string().trim_end().to_owned(),
    })
}

/// Parses the override `a.b=value` into the table `{ a = { b = value } }`.
fn parse_override(fields: &[&Field], text: &str) -> Result<Table, ConfigError> {
    let error = || ConfigError::Override { text: text.to_owned(), example: "adapter.rank=16" };
    let (path, raw) = text.split_once('=').ok_or_else(error)?;
    let (path, raw) = (path.trim(), raw.trim());
    let parts: Vec<&str> = path.split('.').collect();
    if raw.is_empty() || parts.iter().any(|part| part.is_empty()) {
        return Err(error());
    }
    let read = format!("value = {raw}").parse::<Table>().ok().filter(|table| table.len() == 1);
    let mut value = match read.and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => Value::String(raw.to_owned()),
    };
    // A folder called 2024 is text all the same.
    let value_type = fields.iter().find(|f| f.key == path).map(|f| f.value_type);
    if matches!(
        value_type,
        Some(
            ValueType::Text
                | ValueType::Texts
                | ValueType::List(_)
                | ValueType::Word(_)
                | ValueType::Pattern(_)
        )
    ) && !value.is_str()
        && !value.is_array()
    {
        value = Value::String(raw.to_owned());
    }
    for part in parts.iter().rev() {
        value = Value::Table(Table::from_iter([((*part).to_owned(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(error()),
    }
}

/// Overlays the keys of `layer`, found in `section`, on `target`, checking each.
fn overlay(
    fields: &[&Field],
    target: &mut Table,
    layer: Table,
    section: &str,
    origin: &str,
) -> Result<(), ConfigError> {
    for (name, value) in layer {
        let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        if let Some(field) = fields.iter().find(|f| f.key == path) {
            target.insert(name, field.accept(value, origin)?);
        } else if is_section(fields, &path) {
            let Value::Table(inner) = value else {
                return Err(ConfigError::WrongType {
                    origin: origin.to_owned(),
                    expected: format!("a section with {}", children(fields, &path).join(", ")),
                    key: path,
                    found: value.to_string(),
                });
            };
            let below = target.entry(name).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                overlay(fields, below, inner, &path, origin)?;
            }
        } else {
            return Err(ConfigError::UnknownKey {
                origin: origin.to_owned(),
                suggestion: nearest(fields, &path),
                key: path,
                allowed: children(fields, section),
            });
        }
    }
    Ok(())
}
