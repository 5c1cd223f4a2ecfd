//! Embedded packs: splits, leaks, licenses. The leak check is written independently of the command
//! that makes the packs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use aurora_data::caption::{MAX_IMAGE_WORDS, clean};
use aurora_data::{Dataset, Decode, Keywords, Sample, Split, embedded};
use sha2::{Digest, Sha256};

fn part(samples: &[Sample], split: Split) -> Vec<&Sample> {
    samples.iter().filter(|s| s.split == Some(split)).collect()
}

/// Lower-case words without plural endings. Coarser than the packer's on purpose: it removes more.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .replace(['\'', '’'], "")
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(|w| {
            let w = match w {
                "men" => "man",
                "women" => "woman",
                "people" => "person",
                "children" => "child",
                "feet" => "foot",
                "teeth" => "tooth",
                "leaves" => "leaf",
                "mice" => "mouse",
                w => w,
            };
            let w = w.strip_suffix("ies").map_or_else(|| w.to_string(), |w| format!("{w}y"));
            w.strip_suffix('s').filter(|w| w.len() > 2).map_or_else(|| w.clone(), str::to_string)
        })
        .collect()
}

fn content(name: &str) -> BTreeSet<String> {
    let all = words(name);
    let fillers = ["a", "an", "the", "of", "with", "and"];
    let some: BTreeSet<String> =
        all.iter().filter(|w| !fillers.contains(&w.as_str())).cloned().collect();
    if some.is_empty() { all.into_iter().collect() } else { some }
}

/// Every training text of a sample.
fn said(sample: &Sample) -> BTreeSet<String> {
    let keywords = sample.keywords.iter();
    sample.captions.iter().chain(keywords).flat_map(|text| words(text)).collect()
}

#[test]
fn sizes() {
    let (clipart, noto) = (embedded::openclipart().unwrap(), embedded::noto().unwrap());
    let sizes = |samples: &[Sample]| {
        [Split::Train, Split::Validation, Split::Test].map(|s| part(samples, s).len())
    };
    let [train, validation, test] = sizes(&clipart);
    assert!(train >= 2500 && validation >= 150 && test == 0, "{train} {validation} {test}");
    let [train, validation, test] = sizes(&noto);
    assert!(train >= 1030 && validation == 141 && test == 353, "{train} {validation} {test}");
    let bytes = embedded::OPENCLIPART.len()
        + embedded::NOTO.len()
        + embedded::MANIFEST.len()
        + embedded::VOCABULARY.len();
    assert!(bytes < 10_000_000, "{bytes} bytes");
}

#[test]
fn every_image_decodes_and_every_caption_is_clean() {
    for samples in [embedded::openclipart().unwrap(), embedded::noto().unwrap()] {
        for sample in &samples {
            assert_eq!(sample.captions.len(), 1, "{}", sample.key);
            for text in sample.captions.iter().chain(&sample.keywords) {
                assert_eq!(&clean(text, MAX_IMAGE_WORDS), text);
                assert!(!text.is_empty());
            }
            assert!(sample.concept.is_some() && sample.split.is_some() && sample.source.is_some());
        }
        let dataset = Dataset::new(samples, Decode::AtLoad).unwrap();
        assert_eq!(dataset.texts(Keywords::Never).len(), dataset.len());
        let side = dataset.image(0).unwrap().width();
        for index in 0..dataset.len() {
            let image = dataset.image(index).unwrap();
            assert_eq!((image.width(), image.height()), (side, side));
        }
    }
}

#[test]
fn no_training_text_names_a_held_out_emoji() {
    let (clipart, noto) = (embedded::openclipart().unwrap(), embedded::noto().unwrap());
    let held: Vec<(BTreeSet<String>, &str)> = noto
        .iter()
        .filter(|s| s.split != Some(Split::Train))
        .filter_map(|s| s.concept.as_deref())
        .map(|name| (content(name), name))
        .collect();
    assert_eq!(held.len(), 141 + 353);
    let mut leaks = Vec::new();
    // Openclipart's validation split selects the pretraining: it must not know them either.
    let training = clipart.iter().chain(part(&noto, Split::Train));
    for sample in training {
        let said = said(sample);
        for (name, text) in &held {
            if name.is_subset(&said) {
                leaks.push(format!("{:?} {:?} names {text}", sample.captions, sample.keywords));
            }
        }
    }
    assert!(leaks.is_empty(), "{} leaks: {}", leaks.len(), leaks.join("\n"));
}

#[test]
fn no_openclipart_training_text_names_its_validation() {
    let clipart = embedded::openclipart().unwrap();
    let held: Vec<BTreeSet<String>> = part(&clipart, Split::Validation)
        .iter()
        .filter_map(|s| s.concept.as_deref())
        .map(content)
        .collect();
    for sample in part(&clipart, Split::Train) {
        let said = said(sample);
        for name in &held {
            assert!(
                !name.is_subset(&said),
                "{:?} {:?}: {name:?}",
                sample.captions,
                sample.keywords
            );
        }
    }
}

#[test]
fn splits_share_no_concept_and_no_caption_and_no_image() {
    for samples in [embedded::openclipart().unwrap(), embedded::noto().unwrap()] {
        let mut concepts: HashMap<&str, Split> = HashMap::new();
        let mut captions: HashMap<&str, Split> = HashMap::new();
        let mut images: HashMap<Vec<u8>, Split> = HashMap::new();
        for sample in &samples {
            let split = sample.split.unwrap();
            let concept = sample.concept.as_deref().unwrap();
            assert_eq!(*concepts.entry(concept).or_insert(split), split, "{concept}");
            let caption = sample.captions[0].as_str();
            assert_eq!(*captions.entry(caption).or_insert(split), split, "{caption}");
            let sum = Sha256::digest(&*sample.media.contents()[0].bytes().unwrap()).to_vec();
            assert_eq!(*images.entry(sum).or_insert(split), split, "{caption}");
        }
    }
}

#[test]
fn persons_and_hours_are_on_one_side() {
    let noto = embedded::noto().unwrap();
    let split: HashMap<&str, Split> =
        noto.iter().map(|s| (s.captions[0].as_str(), s.split.unwrap())).collect();
    let mut compared = 0;
    for (name, side) in &split {
        let Some(rest) = name.strip_prefix("man ") else { continue };
        for other in ["woman", "person"] {
            if let Some(found) = split.get(format!("{other} {rest}").as_str()) {
                assert_eq!(found, side, "{name}");
                compared += 1;
            }
        }
    }
    assert!(compared > 60, "{compared}");
    let hours: HashSet<Split> = split
        .iter()
        .filter(|(name, _)| name.ends_with("o'clock") || name.ends_with("-thirty"))
        .map(|(_, split)| *split)
        .collect();
    assert_eq!(hours.len(), 1);
}

#[test]
fn the_manifest_covers_every_image() {
    let mut rows: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
    let mut lines = embedded::MANIFEST.lines();
    assert_eq!(lines.next().unwrap(), "shard\tkey\tpackage\tversion\tfile\tlicence\tsha256");
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), 7, "{line}");
        assert!(fields.iter().all(|f| !f.is_empty()), "{line}");
        assert!(rows.insert((fields[0], fields[1]), fields).is_none(), "{line}");
    }
    let packs = [
        ("openclipart.tar.gz", "public domain", embedded::openclipart().unwrap()),
        ("noto.tar.gz", "Apache-2.0", embedded::noto().unwrap()),
    ];
    let mut images = 0;
    for (shard, license, samples) in &packs {
        for sample in samples {
            let row = &rows[&(*shard, sample.key.as_str())];
            let sum = Sha256::digest(&*sample.media.contents()[0].bytes().unwrap());
            let sum: String = sum.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(row[6], sum, "{shard} {}", sample.key);
            assert_eq!(row[5], *license);
            images += 1;
        }
    }
    assert_eq!(rows.len(), images);
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/LICENSES");
    for name in ["Apache-2.0.txt", "Unicode-3.0.txt", "openclipart-copyright.txt", "README.md"] {
        assert!(texts.join(name).metadata().unwrap().len() > 500, "{name}");
    }
}

#[test]
fn the_vocabulary_is_whole() {
    let pieces: Vec<&str> = embedded::VOCABULARY.lines().collect();
    assert_eq!(pieces.len(), 3600);
    assert_eq!(pieces.iter().collect::<HashSet<_>>().len(), 3600);
    assert_eq!(pieces[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    assert_eq!(pieces[3598..], ["[DEC]", "[ENC]"]);
    let tokenizer = embedded::vocabulary().unwrap();
    let special = tokenizer.special();
    assert_eq!((special.pad, special.dec, special.enc), (0, 3598, 3599));
    // Every single character is a piece, so no English word is unknown.
    for sample in embedded::noto().unwrap() {
        let ids = tokenizer.encode(&sample.captions[0], 40).unwrap();
        assert!(!ids.contains(&special.unk), "{:?}", sample.captions);
    }
}
