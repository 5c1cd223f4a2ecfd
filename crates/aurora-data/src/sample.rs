//! One picture with what is said about it, as it lies in a shard or folder.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

/// One of the three parts of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
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

/// A picture, still encoded, with its words.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the shard or folder, for messages.
    pub shard: Arc<str>,
    /// The picture's name in it: the path up to the first dot of the file name.
    pub key: String,
    /// The encoded picture: WebP, PNG or JPEG.
    pub picture: Vec<u8>,
    /// Captions, cleaned (see [`crate::caption::clean`]). A shard's picture has at least one; a
    /// folder's may have none.
    pub captions: Vec<String>,
    /// Words that add to the captions.
    pub keywords: Vec<String>,
    /// What the picture shows; pictures of one concept are positives of each other.
    pub concept: Option<String>,
    /// The part it belongs to.
    pub split: Option<Split>,
    /// Where it came from.
    pub source: Option<String>,
}

/// The JSON beside a picture. Other fields are allowed and ignored.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Record {
    caption: Option<String>,
    captions: Option<Vec<String>>,
    #[serde(default)]
    pub keywords: Vec<String>,
    pub concept: Option<String>,
    pub split: Option<Split>,
    pub source: Option<String>,
}

impl Record {
    /// Parses the JSON; the error says what is wrong and where.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(data).map_err(|e| e.to_string())
    }

    /// The captions of both fields.
    pub fn captions(&self) -> impl Iterator<Item = &String> {
        self.caption.iter().chain(self.captions.iter().flatten())
    }
}
