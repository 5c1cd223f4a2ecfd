//! Annotation records: the rows of a JSON list, JSON lines, CSV or TSV.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::csv_quotes;
use crate::on_error::SkipLog;
use crate::question::{AnswerSet, QuestionId};
use crate::sample::{SampleRecord, Texts};
use crate::{Error, Result, Split};

/// Separator of several values in a cell of CSV or TSV.
const BETWEEN: char = '|';

/// Fields of a row with the accepted names of their column or key, the canonical one first.
pub(crate) const NAMES: &[(&str, &[&str])] = &[
    ("image", &["image", "picture", "file_name", "path"]),
    ("clip_name", &["clip_name", "clip"]),
    ("video_id", &["video_id"]),
    ("image_id", &["image_id"]),
    ("caption", &["caption", "captions", "text"]),
    ("question", &["question"]),
    ("question_id", &["question_id", "id"]),
    ("answer", &["answer", "answers"]),
    ("answer_type", &["answer_type"]),
    ("dataset", &["dataset"]),
    ("keywords", &["keywords"]),
    ("concept", &["concept"]),
    ("split", &["split"]),
    ("source", &["source"]),
];

/// Accepted names of a field.
pub(crate) fn names(field: &str) -> &'static [&'static str] {
    NAMES.iter().find(|(known, _)| *known == field).map_or(&[], |(_, names)| names)
}

/// Annotation row of any format. Unknown fields are ignored; a duplicate field is an error.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct AnnotationRecord {
    #[serde(alias = "picture", alias = "file_name", alias = "path")]
    pub image: Option<String>,
    #[serde(alias = "clip")]
    pub clip_name: Option<String>,
    pub video_id: Option<QuestionId>,
    pub image_id: Option<QuestionId>,
    #[serde(alias = "captions", alias = "text")]
    pub caption: Option<Texts>,
    pub question: Option<String>,
    #[serde(alias = "id")]
    pub question_id: Option<QuestionId>,
    #[serde(alias = "answers")]
    pub answer: Option<AnswerSet>,
    pub answer_type: Option<String>,
    pub dataset: Option<String>,
    pub keywords: Option<Texts>,
    pub concept: Option<String>,
    pub split: Option<Split>,
    pub source: Option<String>,
}

impl AnnotationRecord {
    /// Sample record of the row.
    pub fn record(&self) -> SampleRecord {
        let texts = |texts: &Option<Texts>| texts.as_ref().map(|t| t.as_slice().to_vec());
        SampleRecord {
            caption: None,
            captions: texts(&self.caption),
            keywords: texts(&self.keywords).unwrap_or_default(),
            question: self.question.clone(),
            question_id: self.question_id.clone(),
            answers: self.answer.clone().unwrap_or_default(),
            answer_type: self.answer_type.clone(),
            concept: self.concept.clone(),
            split: self.split,
            source: self.source.clone(),
        }
    }

    /// Sample record of the row; without a concept, rows of one `image_id` are positives of each
    /// other.
    pub fn image_record(&self) -> SampleRecord {
        let mut record = self.record();
        if record.concept.is_none() {
            record.concept = self.image_id.as_ref().map(QuestionId::to_string);
        }
        record
    }
}

/// Row with its place in the file, for messages.
#[derive(Debug)]
pub(super) struct PlacedRecord {
    pub place: String,
    pub row: AnnotationRecord,
}

/// Reads every row of a file. `skips` handles single unreadable rows where the next row can be
/// found.
///
/// # Errors
/// A file that cannot be read, is not UTF-8, or whose rows cannot be separated; with a policy that
/// stops, the first unreadable row.
pub(super) fn read(path: &Path, skips: &SkipLog) -> Result<Vec<PlacedRecord>> {
    let text = text(path)?;
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("csv") => separated(path, &text, b',', skips),
        Some("tsv") => separated(path, &text, b'\t', skips),
        _ if text.trim_start().starts_with('[') => list(path, &text, skips),
        _ => lines(path, &text, skips),
    }
}

/// Text of a file.
pub(super) fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { path: path.to_path_buf() },
        _ => Error::Read { path: path.to_path_buf(), source },
    })?;
    let bad = |line, reason: &str| Err(Error::annotations(path, line, reason));
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return bad(None, "it is UTF-16; save it as UTF-8");
    }
    match String::from_utf8(bytes) {
        // Spreadsheets write a byte order mark.
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let before = error.as_bytes().iter().take(valid);
            let line = before.filter(|&&byte| byte == b'\n').count() as u64 + 1;
            bad(Some(line), "it is not UTF-8; save the file as UTF-8")
        }
    }
}

/// Parses a JSON list: as a whole if every row is valid, which is faster, otherwise item by item.
fn list(path: &Path, text: &str, skips: &SkipLog) -> Result<Vec<PlacedRecord>> {
    let place = |index: usize| format!("row {}", index + 1);
    if let Ok(rows) = serde_json::from_str::<Vec<AnnotationRecord>>(text) {
        let placed = |(index, row)| PlacedRecord { place: place(index), row };
        return Ok(rows.into_iter().enumerate().map(placed).collect());
    }
    let members = ListItems::of(text)
        .map_err(|e| Error::annotations(path, Some(e.line() as u64), &e.to_string()))?;
    let mut out = Vec::new();
    for (index, (member, (line, column))) in members.enumerate() {
        match serde_json::from_str(member) {
            Ok(row) => out.push(PlacedRecord { place: place(index), row }),
            Err(e) => {
                let column = e.column() + if e.line() == 1 { column } else { 0 };
                let at = format!("line {}, column {column}", line + e.line() - 1);
                refuse(path, place(index), unread(&e, &at), skips)?;
            }
        }
    }
    Ok(out)
}

/// Message of a JSON error. The parser counts from the start of its input; `at` is the place of
/// that in the file.
fn unread(error: &serde_json::Error, at: &str) -> String {
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or(&message);
    format!("{reason} at {at}; a JSON object was expected")
}

/// Items of a JSON list as they stand in the text, each with the line in which it begins, counted
/// from 1, and the columns before it.
struct ListItems<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

impl<'a> ListItems<'a> {
    /// # Errors
    /// A text that is no JSON or no list, wherever in it that shows.
    fn of(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str::<Vec<IgnoredAny>>(text)?;
        Ok(Self { rest: text, line: 1, column: 0 })
    }

    /// Takes the next `length` bytes.
    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        match taken.rfind('\n') {
            Some(last) => {
                self.line += taken.bytes().filter(|&byte| byte == b'\n').count();
                self.column = length - last - 1;
            }
            None => self.column += length,
        }
        Some(taken)
    }
}

impl<'a> Iterator for ListItems<'a> {
    type Item = (&'a str, (usize, usize));

    fn next(&mut self) -> Option<Self::Item> {
        // Only these characters can separate the items of a valid list or precede the first.
        let is_between = |letter: char| letter.is_ascii_whitespace() || "[,".contains(letter);
        self.take(self.rest.len() - self.rest.trim_start_matches(is_between).len())?;
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        let (length, begins) = (values.byte_offset(), (self.line, self.column));
        Some((self.take(length)?, begins))
    }
}

/// Parses JSON lines.
fn lines(path: &Path, text: &str, skips: &SkipLog) -> Result<Vec<PlacedRecord>> {
    let mut out = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("line {}", index + 1);
        match serde_json::from_str(line) {
            Ok(row) => out.push(PlacedRecord { place, row }),
            Err(e) => {
                let reason = unread(&e, &format!("column {}", e.column()));
                refuse(path, place, reason, skips)?;
            }
        }
    }
    Ok(out)
}

/// Table row of text cells, with columns by the canonical names of the fields.
#[derive(Debug, Default, Deserialize)]
struct CsvCells {
    image: Option<String>,
    clip_name: Option<String>,
    image_id: Option<String>,
    caption: Option<String>,
    question: Option<String>,
    question_id: Option<String>,
    answer: Option<String>,
    answer_type: Option<String>,
    keywords: Option<String>,
    concept: Option<String>,
    split: Option<String>,
    source: Option<String>,
}

impl CsvCells {
    fn row(self) -> Result<AnnotationRecord, String> {
        let parts =
            |cell: String| cell.split(BETWEEN).map(|part| part.trim().to_string()).collect();
        let id = |cell: String| match cell.parse() {
            Ok(number) => QuestionId::Number(number),
            Err(_) => QuestionId::Name(cell),
        };
        Ok(AnnotationRecord {
            image: self.image,
            clip_name: self.clip_name,
            video_id: None,
            image_id: self.image_id.map(id),
            caption: self.caption.map(|cell| Texts::Many(parts(cell))),
            question: self.question,
            question_id: self.question_id.map(id),
            answer: self.answer.map(|cell| AnswerSet::Annotators(parts(cell))),
            answer_type: self.answer_type,
            dataset: None,
            keywords: self.keywords.map(|cell| Texts::Many(parts(cell))),
            concept: self.concept,
            split: self
                .split
                .map(|s| s.trim().parse().map_err(|e: Error| e.to_string()))
                .transpose()?,
            source: self.source,
        })
    }
}

/// Parses CSV or TSV. In TSV a quote is an ordinary character, since it has nothing to protect.
fn separated(path: &Path, text: &str, between: u8, skips: &SkipLog) -> Result<Vec<PlacedRecord>> {
    let bad = |line, reason: String| Error::annotations(path, line, &reason);
    if between == b',' {
        csv_quotes::check(text).map_err(|(line, reason)| bad(Some(line), reason))?;
    }
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(between)
        .quoting(between == b',')
        .from_reader(text.as_bytes());
    let headings: csv::StringRecord = reader
        .headers()
        .map_err(|e| bad(Some(1), e.to_string()))?
        .iter()
        .map(|heading| heading.trim().to_lowercase())
        .collect();
    let needed = [["image", "clip_name"], ["caption", "question"]];
    for names in needed.map(|fields| fields.map(names).concat()) {
        if !headings.iter().any(|heading| names.contains(&heading)) {
            let found: Vec<&str> = headings.iter().collect();
            return Err(bad(
                Some(1),
                format!(
                    "the first line names no column {}; it names: {} (columns are parted by {})",
                    names.join(" or "),
                    found.join(", "),
                    if between == b',' { "commas" } else { "tabs" },
                ),
            ));
        }
    }
    let field =
        |name| NAMES.iter().find(|(_, names)| names.contains(&name)).map(|(field, _)| *field);
    let fields: csv::StringRecord = headings.iter().map(|h| field(h).unwrap_or(h)).collect();
    let mut out = Vec::new();
    let mut record = csv::StringRecord::new();
    loop {
        let place = |line: Option<u64>| format!("line {}", line.unwrap_or_default());
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(out),
            Ok(true) => {
                let place = place(record.position().map(csv::Position::line));
                let row = record
                    .deserialize::<CsvCells>(Some(&fields))
                    .map_err(|e| e.to_string())
                    .and_then(CsvCells::row);
                match row {
                    Ok(row) => out.push(PlacedRecord { place, row }),
                    Err(reason) => refuse(path, place, reason, skips)?,
                }
            }
            Err(error) => {
                let place = place(error.position().map(csv::Position::line));
                let reason = match error.kind() {
                    csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!(
                        "it has {len} fields, and the first line names {expected_len} columns; put a \
                         field that has a separator in it in quotes"
                    ),
                    _ => error.to_string(),
                };
                refuse(path, place, reason, skips)?;
            }
        }
    }
}

fn refuse(path: &Path, place: String, reason: String, skips: &SkipLog) -> Result<()> {
    let what = format!("{}, {place}", path.display());
    skips.handle(what, Error::row(path, place, &reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON uses the serde names of the struct, every other form the list.
    #[test]
    fn names_are_the_same_in_every_form() {
        for (field, names) in NAMES {
            assert_eq!(names.first(), Some(field));
            let read = |name: &str| {
                let value = if *field == "split" { "test" } else { "x" };
                serde_json::from_str::<AnnotationRecord>(&format!("{{\"{name}\": \"{value}\"}}"))
                    .unwrap()
            };
            for name in *names {
                assert_ne!(read(name), AnnotationRecord::default(), "{name}");
                assert_eq!(read(name), read(field), "{name}");
            }
        }
    }
}
