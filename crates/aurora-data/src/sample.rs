//! One image with what is said about it, as it lies in a shard or folder.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::byte_source::ByteSource;
use crate::caption::{MAX_IMAGE_WORDS, MAX_VIDEO_WORDS, clean};
use crate::question::{AnswerSet, Question, QuestionId};

/// One of the three parts of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// For choosing among runs.
    #[serde(alias = "val", alias = "dev")]
    Validation,
    /// For the final figure.
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

/// What there is to see, still encoded.
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
    /// The contents it consists of.
    pub fn contents(&self) -> &[ByteSource] {
        match self {
            Self::Image(content) | Self::Video(content) => std::slice::from_ref(content),
            Self::Frames(frames) => frames,
        }
    }

    /// Whether it is a clip.
    pub fn is_clip(&self) -> bool {
        !matches!(self, Self::Image(_))
    }

    /// How many encoded bytes there are.
    pub fn len(&self) -> u64 {
        self.contents().iter().map(ByteSource::len).sum()
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An image or clip, still encoded, with its words.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the shard or folder, for messages.
    pub shard: Arc<str>,
    /// The image's name in it: the path up to the first dot of the file name.
    pub key: String,
    /// The image or clip.
    pub media: Media,
    /// Captions, cleaned (see [`crate::caption::clean`]). A shard's image has at least one, or a
    /// question; a folder's may have neither.
    pub captions: Vec<String>,
    /// A question about it.
    pub question: Option<Question>,
    /// Words that add to the captions.
    pub keywords: Vec<String>,
    /// What the image shows; images of one concept are positives of each other.
    pub concept: Option<String>,
    /// The part it belongs to.
    pub split: Option<Split>,
    /// Where it came from.
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

/// The JSON beside an image. Other fields are allowed and ignored.
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

    /// A sample of what it says and of the lines of `text`, further captions; all cleaned.
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
