//! Sample: one image or clip with its texts, still encoded.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::byte_source::ByteSource;
use crate::caption::{MAX_IMAGE_WORDS, MAX_VIDEO_WORDS, clean};
use crate::question::{AnswerSet, Question, QuestionId};

/// Split of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// For model selection.
    #[serde(alias = "val", alias = "dev")]
    Validation,
    /// For the final metric.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

impl FromStr for Split {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "train" => Ok(Self::Train),
            "validation" | "val" | "dev" => Ok(Self::Validation),
            "test" => Ok(Self::Test),
            other => Err(crate::Error::Option {
                option: "split",
                value: other.to_string(),
                allowed: "one of train, validation, test",
            }),
        }
    }
}

/// Encoded media of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// One image: WebP, PNG or JPEG.
    Image(ByteSource),
    /// The frames of a clip, in order, each an image of its own.
    Frames(Vec<ByteSource>),
    /// One file that holds several frames: GIF, APNG, animated WebP or a video.
    Video(ByteSource),
}

impl Media {
    /// Byte sources of the media.
    pub fn contents(&self) -> &[ByteSource] {
        match self {
            Self::Image(content) | Self::Video(content) => std::slice::from_ref(content),
            Self::Frames(frames) => frames,
        }
    }

    /// True for clips.
    pub fn is_clip(&self) -> bool {
        !matches!(self, Self::Image(_))
    }

    /// Length of the encoded bytes.
    pub fn len(&self) -> u64 {
        self.contents().iter().map(ByteSource::len).sum()
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Encoded image or clip with its texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the shard or folder, for messages.
    pub shard: Arc<str>,
    /// Key within the shard or folder: the path up to the first dot of the file name.
    pub key: String,
    /// The image or clip.
    pub media: Media,
    /// Captions, cleaned (see [`crate::caption::clean`]). A shard's image has at least one, or a
    /// question; a folder's may have neither.
    pub captions: Vec<String>,
    /// Question about the image or clip.
    pub question: Option<Question>,
    /// Keywords that complement the captions.
    pub keywords: Vec<String>,
    /// Concept; images of one concept are positives of each other.
    pub concept: Option<String>,
    /// Split it belongs to.
    pub split: Option<Split>,
    /// Provenance.
    pub source: Option<String>,
}

/// One text or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts was expected")]
pub(crate) enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// JSON record beside an image. Unknown fields are ignored.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct SampleRecord {
    pub caption: Option<String>,
    pub captions: Option<Vec<String>>,
    #[serde(default)]
    pub keywords: Vec<String>,
    pub question: Option<String>,
    pub question_id: Option<QuestionId>,
    #[serde(default)]
    pub answers: AnswerSet,
    pub answer_type: Option<String>,
    pub concept: Option<String>,
    pub split: Option<Split>,
    pub source: Option<String>,
}

impl SampleRecord {
    /// Parses the JSON; the error says what is wrong and where.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(data).map_err(|e| e.to_string())
    }

    /// Sample of the record, with the lines of `text` as further captions; all cleaned.
    pub fn into_sample(
        self,
        (shard, key): (&Arc<str>, String),
        media: Media,
        text: &str,
    ) -> Sample {
        let words = if media.is_clip() { MAX_VIDEO_WORDS } else { MAX_IMAGE_WORDS };
        let tidy = |text: &str| Some(clean(text, words)).filter(|text| !text.is_empty());
        let captions = self.caption.iter().chain(self.captions.iter().flatten());
        let captions = captions.map(String::as_str).chain(text.lines()).filter_map(tidy).collect();
        let answers = self.answers;
        Sample {
            shard: Arc::clone(shard),
            key,
            media,
            captions,
            question: self
                .question
                .and_then(|text| Question::new(self.question_id, &text, answers))
                .map(|question| question.with_answer_type(self.answer_type)),
            keywords: self.keywords.iter().filter_map(|k| tidy(k)).collect(),
            concept: self.concept,
            split: self.split,
            source: self.source,
        }
    }
}
