//! Checkpoints as others write them give the same weights, to the bit.

use super::support::{assert_close, folder, read};
use aurora_layers::checkpoint::{Checkpoint, hugging_face_config};
use aurora_layers::cls;
use candle_core::{DType, Device};

/// Every tensor of the fixture's weights, in whatever order the file keeps its numbers.
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
    let mut config = hugging_face_config(&text, &path.join("config.json")).unwrap();
    let fixture = read("hf/itm/io.safetensors");
    let ids = fixture["input_ids"].to_dtype(DType::U32).unwrap();
    let mask = fixture["attention_mask"].to_dtype(DType::F32).unwrap();
    // This forward keeps [CLS] where the retrieval code puts [ENC].
    config.text.enc_token_id = ids.flatten_all().unwrap().to_vec1::<u32>().unwrap()[0];
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (backbone, report) = checkpoint.backbone(&config, &Device::Cpu).unwrap();
    assert!(report.complete() && report.reshaped.is_empty(), "{report}");

    let blip = backbone.model().unwrap();
    let bare = blip.bare().unwrap();
    let vision = blip.encode_image(&fixture["pixel_values"], &bare).unwrap();
    assert_close("vision", &vision, &fixture["vision"], 1e-5);
    let text = blip.encode_text(&ids, &mask, &bare).unwrap();
    let image = bare.image_features(&vision).unwrap();
    let itc = image.matmul(&bare.text_features(&text).unwrap().t().unwrap()).unwrap();
    assert_close("itc_score", &itc, &fixture["itc_score"], 1e-5);
    let keys = blip.cross_keys(&vision, &bare).unwrap();
    let fused = blip.fuse(&ids, &mask, &keys, None, &bare).unwrap();
    let itm = bare.match_logits(&cls(&fused).unwrap()).unwrap();
    assert_close("itm_score", &itm, &fixture["itm_score"], 1e-5);
}
