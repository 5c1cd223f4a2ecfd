//! VQA in the reference variant: loss, every gradient, ranking with several k, greedy generation.

use super::support::reference::{Setting, config, split, variables};
use super::support::{assert_close, assert_gradient, folder, integers, part, read};
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Blip, GenerationConfig, Variant,
    reference_checkpoint,
};
use aurora_train::vqa::{
    Answers, Texts, answer_loss, encode_questions, question_states, rank_answers,
};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

const LOSS: f32 = 5e-6;

fn ids(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::U32).unwrap()
}

#[test]
fn vqa() {
    Setting::all().for_each(vqa_in_setting);
}

fn vqa_in_setting(setting: Setting) {
    let (weights, io) = (read("vqa.weights.safetensors"), read("vqa.io.safetensors"));
    let config = config(&weights);
    let rank = weights["CP_C"].dims()[0];
    let adapter_config = AdapterConfig::new(AdapterKind::Tucker, Variant::Reference, rank);
    // The head's weight is tied to the word embeddings, and its bias is stored twice.
    let online = weights
        .iter()
        .filter(|(name, _)| !name.ends_with("position_ids"))
        .filter(|(name, _)| !name.starts_with("text_decoder.cls.predictions.decoder."))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    let (variables, tensors) = variables(&online);
    let (mut backbone, added) = split(&tensors, &adapter_config, &config);
    if setting.frozen {
        backbone.values_mut().for_each(|tensor| *tensor = tensor.detach());
    }
    let blip = Blip::new(&config, &backbone).unwrap();
    let tuned = AdaptedParams::from_tensors(adapter_config, &config, "the fixture", added).unwrap();
    let bound = setting.apply(tuned.bind(&blip, None).unwrap());
    let model = (&blip, &bound);

    let (question_ids, question_mask) = (ids(&io["question_ids"]), &io["question_mask"]);
    let questions = Texts { token_ids: &question_ids, mask: question_mask };
    let keys = encode_questions(&blip, &bound, &io["image"], &questions).unwrap();
    let answers: Vec<u32> = (0u32..)
        .zip(integers(&io["n"]))
        .flat_map(|(question, count)| (0..count).map(move |_| question))
        .collect();
    let answer_ids = ids(&io["answer_ids"]);
    let loss = answer_loss(
        model,
        &keys,
        &Answers {
            texts: Texts { token_ids: &answer_ids, mask: &io["answer_mask"] },
            questions: &answers,
            weights: &io["weights"].to_vec1::<f32>().unwrap(),
        },
    )
    .unwrap();
    assert_close("loss", &loss.reshape(1).unwrap(), &io["loss"].reshape(1).unwrap(), LOSS);
    let grads = loss.backward().unwrap();
    let wanted = reference_checkpoint::translate(&part(&io, "grad.")).unwrap();
    assert_eq!(wanted.len(), variables.len(), "every online parameter is compared");
    let trains = |name: &str| !setting.frozen || tuned.tensors.contains_key(name);
    for (name, wanted) in wanted.iter().filter(|(name, _)| trains(name)) {
        let var = variables.get(name).unwrap_or_else(|| panic!("no variable {name}"));
        let found = grads.get(var).unwrap_or_else(|| panic!("no gradient for {name}"));
        assert_gradient(name, found, wanted);
    }

    let candidate_ids = ids(&io["candidate_ids"]);
    let candidates = Texts { token_ids: &candidate_ids, mask: &io["candidate_mask"] };
    for k in [1, 3, 6] {
        let best = rank_answers(model, &keys, &candidates, k).unwrap();
        let best: Vec<i64> = best.into_iter().map(|answer| answer as i64).collect();
        assert_eq!(best, integers(&io[&format!("rank_k{k}")]), "k = {k}");
    }

    // The reference code does not mask the questions' padding in generation; ten tokens, [DEC] among them.
    let states = question_states(&blip, &bound, &io["image"], &questions).unwrap();
    let keys = blip.encode_decoder_kv(&states, None, &bound).unwrap();
    let written = blip.generate(&[], &keys, &GenerationConfig::greedy(9), &bound).unwrap();
    let text = std::fs::read_to_string(folder().join("vqa.generate.json")).unwrap();
    let wanted: Vec<String> = serde_json::from_str(&text).unwrap();
    let special = |id: &u32| *id < 5 || *id >= config.text.vocab_size as u32 - 2;
    let written: Vec<Vec<u32>> = written
        .into_iter()
        .map(|ids| ids.into_iter().filter(|id| !special(id)).collect())
        .collect();
    assert_eq!(written.len(), wanted.len());
    assert!(readable(&written, &wanted), "{written:?} cannot read {wanted:?}");
}

/// True if one word for each id makes exactly these texts. The fixture has texts and not the vocabulary they were
/// written with, so this finds the words: an id is a word after a space, or a piece that continues one.
fn readable(ids: &[Vec<u32>], texts: &[String]) -> bool {
    fn fits(ids: &[(usize, u32)], rest: &[&str], words: &mut BTreeMap<u32, String>) -> bool {
        let Some((&(text, id), others)) = ids.split_first() else {
            return rest.iter().all(|rest| rest.is_empty());
        };
        if rest[..text].iter().any(|rest| !rest.is_empty()) {
            return false;
        }
        let take = |word: &str, words: &mut BTreeMap<u32, String>| {
            let Some(after) = rest[text].strip_prefix(word) else { return false };
            let mut rest = rest.to_vec();
            rest[text] = after;
            fits(others, &rest, words)
        };
        if let Some(word) = words.get(&id).cloned() {
            return take(&word, words);
        }
        let ends = rest[text].char_indices().map(|(at, c)| at + c.len_utf8());
        for end in ends.take_while(|&end| !rest[text][1..end.max(1)].contains(' ')) {
            let word = rest[text][..end].to_owned();
            words.insert(id, word.clone());
            if take(&word, words) {
                return true;
            }
            words.remove(&id);
        }
        false
    }
    // A space before each text, as before every other word.
    let texts: Vec<String> = texts.iter().map(|text| format!(" {text}")).collect();
    let rest: Vec<&str> = texts.iter().map(String::as_str).collect();
    let ids: Vec<(usize, u32)> = ids
        .iter()
        .enumerate()
        .flat_map(|(text, ids)| ids.iter().map(move |&id| (text, id)))
        .collect();
    fits(&ids, &rest, &mut BTreeMap::new())
}

#[test]
fn the_reader_of_generated_texts_can_say_no() {
    let texts = ["a a ainging".to_owned()];
    assert!(readable(&[vec![5, 5, 5, 28, 28]], &texts));
    assert!(!readable(&[vec![5, 5, 28, 28, 28]], &texts));
    assert!(!readable(&[vec![5, 5, 28, 5]], &texts));
}
