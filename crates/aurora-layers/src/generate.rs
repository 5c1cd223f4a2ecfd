//! Text generation: greedy or beam search with a KV cache, so that each new token costs one token.

use crate::cross_attention::{CrossAttention, EncoderKv, KvCache};
use crate::{Blip, BoundModel, DecoderTokens, Error, Result};
use candle_core::{DType, Device, Tensor};

/// Generation settings of a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerationConfig {
    /// Maximum number of new tokens, the end token included.
    pub max_new_tokens: usize,
    /// Beam width; 1 is greedy search.
    pub num_beams: usize,
    /// Exponent of the length in the score, log-likelihood / tokens^penalty, as in transformers: 0 favors short texts,
    /// more than 1 long ones.
    pub length_penalty: f64,
}

impl GenerationConfig {
    /// Greedy search: the likeliest token at each step.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, num_beams: 1, length_penalty: 1.0 }
    }
}

/// Hypothesis: tokens after the prompt, log-likelihood, and row in the last pass.
#[derive(Debug, Clone)]
struct Draft {
    words: Vec<u32>,
    score: f64,
    row: u32,
}

/// Beam of one image (or question).
#[derive(Debug, Default)]
struct Beam {
    live: Vec<Draft>,
    finished: Vec<(f64, Vec<u32>)>, // score by length, words without the end
}

impl Blip {
    /// Generates a text for each image (or question) of `keys`, which come from [`Blip::encode_decoder_kv`].
    ///
    /// Every text begins with `[DEC]` and the ids of `prompt`; the result is the ids that follow, without the end
    /// token.
    ///
    /// # Errors
    /// A model without decoder; no tokens or beams; a prompt that leaves no room for `max_new_tokens` tokens.
    pub fn generate(
        &self,
        prompt: &[u32],
        keys: &EncoderKv,
        how: &GenerationConfig,
        bound: &BoundModel,
    ) -> Result<Vec<Vec<u32>>> {
        let tokens = self.decoder()?.tokens;
        for (field, value) in [("max_new_tokens", how.max_new_tokens), ("num_beams", how.num_beams)]
        {
            if value == 0 {
                return Err(Error::config(field, value, "must be at least 1"));
            }
        }
        let texts = keys.images();
        let device = self.decoder()?.tower.words().device().clone();
        let opening: Vec<u32> =
            std::iter::once(tokens.start_token_id).chain(prompt.iter().copied()).collect();
        let ids = Tensor::from_vec(opening.repeat(texts), (texts, opening.len()), &device)?;
        let mut cache = KvCache::default();
        let states = self.decode_next(&ids, &CrossAttention::new(keys), &mut cache, bound)?;
        let mut scores = self.last_scores(&states)?;
        let start = |row| Draft { words: Vec::new(), score: 0.0, row };
        let mut beams: Vec<Beam> = (0..texts as u32)
            .map(|row| Beam { live: vec![start(row)], ..Beam::default() })
            .collect();
        for written in 1..=how.max_new_tokens {
            let last = written == how.max_new_tokens;
            beams.iter_mut().for_each(|beam| beam.advance(&scores, &tokens, how, last));
            let (parents, words, rows) = rows(&mut beams);
            if parents.is_empty() {
                break;
            }
            let count = parents.len();
            cache = cache.select(&Tensor::from_vec(parents, count, &device)?)?;
            let ids = Tensor::from_vec(words, (count, 1), &device)?;
            let seen = CrossAttention::new(keys).rows(rows);
            scores = self.last_scores(&self.decode_next(&ids, &seen, &mut cache, bound)?)?;
        }
        let best = |beam: Beam| {
            beam.finished
                .into_iter()
                .reduce(|best, other| if other.0 > best.0 { other } else { best })
                .map_or(Vec::new(), |(_, words)| words)
        };
        Ok(beams.into_iter().map(best).collect())
    }

    /// Log-likelihoods of the next token after the last state of each row, (rows, vocabulary).
    fn last_scores(&self, states: &Tensor) -> Result<Vec<Vec<f32>>> {
        let (_, length, _) = states.dims3()?;
        let logits = self.predict_words(&states.narrow(1, length - 1, 1)?.squeeze(1)?)?;
        let logits = logits.detach().to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let mut rows: Vec<Vec<f32>> = logits.to_vec2()?;
        for row in &mut rows {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|x| (x - top).exp()).sum();
            row.iter_mut().for_each(|x| *x -= top + sum.ln());
        }
        Ok(rows)
    }
}

impl Beam {
    /// Extends every hypothesis by one token: the best `num_beams` continuations stay, those that end are set aside. A
    /// beam that cannot improve any more has no live hypothesis left.
    fn advance(
        &mut self,
        scores: &[Vec<f32>],
        tokens: &DecoderTokens,
        how: &GenerationConfig,
        last: bool,
    ) {
        // Twice the beam width, since a hypothesis has one way to end.
        let mut next: Vec<(f64, usize, u32)> = Vec::new();
        for (index, draft) in self.live.iter().enumerate() {
            let row = &scores[draft.row as usize];
            let words = best_words(row, 2 * how.num_beams);
            next.extend(
                words.iter().map(|&w| (draft.score + f64::from(row[w as usize]), index, w)),
            );
        }
        next.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        next.truncate(2 * how.num_beams);
        let mut live = Vec::new();
        for (rank, (score, index, word)) in next.into_iter().enumerate() {
            let draft = &self.live[index];
            if word == tokens.end_token_id {
                if rank < how.num_beams {
                    self.finish(score, draft.words.len() + 1, draft.words.clone(), how);
                }
            } else if live.len() < how.num_beams {
                let words = draft.words.iter().copied().chain([word]).collect();
                live.push(Draft { words, score, row: draft.row });
            }
        }
        if last {
            for draft in live.drain(..) {
                self.finish(draft.score, draft.words.len(), draft.words, how);
            }
        }
        let full = self.finished.len() >= how.num_beams;
        let worst = self.finished.iter().map(|(score, _)| *score).fold(f64::INFINITY, f64::min);
        let hope = live.first().map(|draft| by_length(draft.score, draft.words.len(), how));
        if full && (how.num_beams == 1 || hope.is_none_or(|hope| worst >= hope)) {
            live.clear();
        }
        self.live = live;
    }

    /// Sets a finished text of `length` tokens aside; only the best `num_beams` are kept.
    fn finish(&mut self, score: f64, length: usize, words: Vec<u32>, how: &GenerationConfig) {
        self.finished.push((by_length(score, length, how), words));
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(how.num_beams);
    }
}

fn by_length(score: f64, words: usize, how: &GenerationConfig) -> f64 {
    score / (words.max(1) as f64).powf(how.length_penalty)
}

/// Top-k tokens: the `count` with the highest scores, best first, ties by id.
fn best_words(scores: &[f32], count: usize) -> Vec<u32> {
    let mut words: Vec<u32> = (0..scores.len() as u32).collect();
    let order =
        |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
    if count < words.len() {
        words.select_nth_unstable_by(count, order);
        words.truncate(count);
    }
    words.sort_unstable_by(order);
    words
}

/// Rows of the next pass: for each live hypothesis its row in the last pass, its newest token, and its image.
fn rows(beams: &mut [Beam]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let (mut parents, mut words, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for (image, beam) in (0u32..).zip(beams) {
        for draft in &mut beam.live {
            parents.push(draft.row);
            words.push(draft.words.last().copied().unwrap_or_default());
            images.push(image);
            draft.row = parents.len() as u32 - 1;
        }
    }
    (parents, words, images)
}
