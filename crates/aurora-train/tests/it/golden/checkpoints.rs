//! Checkpoints in the formats of others give the same weights, to the bit.

use super::support::{Fixture, assert_close, folder, read};
use aurora_layers::checkpoint::Checkpoint;
use aurora_layers::{Backbone, BlipConfig, CrossAttention, GenerationConfig, cls};
use aurora_train::vqa::{Texts, caption_loss, mean_text_loss, question_states};
use candle_core::{DType, Device};

/// Every tensor of the fixture's weights, in whatever memory order the file keeps it.
fn same_as_safetensors(name: &str) {
    let checkpoint = Checkpoint::open(&folder().join(name)).unwrap();
    let expected = read("retrieval_image.weights.safetensors");
    let found = checkpoint.tensors(&Device::Cpu).unwrap();
    let missing: Vec<_> = expected.keys().filter(|name| !found.contains_key(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (name, tensor) in &expected {
        assert_close(name, &found[name], tensor, 0.0);
    }
}

#[test]
fn pth_zip() {
    same_as_safetensors("retrieval_image.pth");
}

#[test]
fn pth_legacy() {
    same_as_safetensors("retrieval_image.legacy.pth");
}

#[test]
fn hf_itm() {
    let path = folder().join("hf/itm");
    let text = std::fs::read_to_string(path.join("config.json")).unwrap();
    let mut config = BlipConfig::from_json(&text, &path.join("config.json")).unwrap();
    let fixture = read("hf/itm/io.safetensors");
    let ids = fixture["input_ids"].to_dtype(DType::U32).unwrap();
    let mask = fixture["attention_mask"].to_dtype(DType::F32).unwrap();
    // This forward pass keeps [CLS] where the retrieval code puts [ENC].
    config.text.enc_token_id = ids.flatten_all().unwrap().to_vec1::<u32>().unwrap()[0];
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (backbone, report) = checkpoint.backbone(&config, &Device::Cpu).unwrap();
    assert!(report.complete() && report.reshaped.is_empty(), "{report}");

    let blip = backbone.model().unwrap();
    let bare = blip.bind_frozen().unwrap();
    let vision = blip.encode_image(&fixture["pixel_values"], &bare).unwrap();
    assert_close("vision", &vision, &fixture["vision"], 1e-5);
    let text = blip.encode_text(&ids, &mask, &bare).unwrap();
    let image = bare.image_features(&vision).unwrap();
    let itc = image.matmul(&bare.text_features(&text).unwrap().t().unwrap()).unwrap();
    assert_close("itc_score", &itc, &fixture["itc_score"], 1e-5);
    let keys = blip.encode_kv(&vision, &bare).unwrap();
    let fused = blip.fuse(&ids, &mask, &CrossAttention::new(&keys), &bare).unwrap();
    let itm = bare.match_logits(&cls(&fused).unwrap()).unwrap();
    assert_close("itm_score", &itm, &fixture["itm_score"], 1e-5);
}

/// Hugging Face fixture folder: the model and its numbers.
fn hugging_face(folder_name: &str) -> (Backbone, Fixture) {
    let path = folder().join("hf").join(folder_name);
    let text = std::fs::read_to_string(path.join("config.json")).unwrap();
    let config = BlipConfig::from_json(&text, &path.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (backbone, report) = checkpoint.backbone(&config, &Device::Cpu).unwrap();
    assert!(report.complete() && report.ignored.is_empty(), "{report}");
    (backbone, read(&format!("hf/{folder_name}/io.safetensors")))
}

/// Generated rows of the fixture, `[DEC]` first, cut after the end.
fn written(fixture: &Fixture) -> Vec<Vec<u32>> {
    let rows: Vec<Vec<i64>> = fixture["generated"].to_vec2().unwrap();
    let words = |row: Vec<i64>| {
        row.into_iter().skip(1).take_while(|&id| id != 3).map(|id| id as u32).collect()
    };
    rows.into_iter().map(words).collect()
}

#[test]
fn hf_vqa() {
    let (mut backbone, fixture) = hugging_face("vqa");
    let ids = fixture["input_ids"].to_dtype(DType::U32).unwrap();
    let questions = Texts { token_ids: &ids, mask: &fixture["attention_mask"] };
    // This forward pass keeps [CLS] where the original puts [ENC].
    backbone.config.text.enc_token_id = ids.flatten_all().unwrap().to_vec1::<u32>().unwrap()[0];
    let blip = backbone.model().unwrap();
    let bare = blip.bind_frozen().unwrap();
    let states = question_states(&blip, &bare, &fixture["pixel_values"], &questions).unwrap();
    // Nor does it mask the padding of questions in the decoder.
    let keys = blip.encode_decoder_kv(&states, None, &bare).unwrap();
    let answers = fixture["decoder_input_ids"].to_dtype(DType::U32).unwrap();
    let mask = answers.ne(0u32).unwrap();
    let answers = Texts { token_ids: &answers, mask: &mask };
    let loss = mean_text_loss((&blip, &bare), &answers, &CrossAttention::new(&keys), 0.0).unwrap();
    assert_close("loss", &loss.reshape(1).unwrap(), &fixture["loss"], 5e-6);
    let wanted = written(&fixture);
    let longest = fixture["generated"].dims()[1] - 1;
    let found = blip.generate(&[], &keys, &GenerationConfig::greedy(longest), &bare).unwrap();
    assert_eq!(found, wanted);
}

#[test]
fn hf_caption() {
    let (backbone, fixture) = hugging_face("caption");
    let blip = backbone.model().unwrap();
    let bare = blip.bind_frozen().unwrap();
    let ids = fixture["input_ids"].to_dtype(DType::U32).unwrap();
    let captions = Texts { token_ids: &ids, mask: &fixture["attention_mask"] };
    let states = blip.encode_image(&fixture["pixel_values"], &bare).unwrap();
    let keys = blip.encode_decoder_kv(&states, None, &bare).unwrap();
    let decoded = blip.decode(&ids, captions.mask, &CrossAttention::new(&keys), &bare).unwrap();
    let logits = blip.predict_words(&decoded).unwrap();
    assert_close("logits", &logits, &fixture["logits"], 1e-5);
    let loss = caption_loss((&blip, &bare), &fixture["pixel_values"], &captions, 0.0).unwrap();
    assert_close("loss", &loss.reshape(1).unwrap(), &fixture["loss"], 5e-6);
    let longest = fixture["generated"].dims()[1] - 1;
    let found = blip.generate(&[], &keys, &GenerationConfig::greedy(longest), &bare).unwrap();
    assert_eq!(found, written(&fixture));
}
