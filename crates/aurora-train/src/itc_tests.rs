//! ITC against its formula in f64, and its gradients against finite differences.

use super::*;
use aurora_kernels::random::Stream;
use candle_core::Device;
use proptest::prelude::*;

type Rows = Vec<Vec<f64>>;

fn unit_rows(seed: u64, what: &str, rows: usize, dim: usize) -> Rows {
    let mut stream = Stream::new(seed, what, 0, 0);
    let mut row = || {
        let row: Vec<f64> = (0..dim).map(|_| stream.normal()).collect();
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.into_iter().map(|x| x / norm).collect()
    };
    (0..rows).map(|_| row()).collect()
}

fn tensor(rows: &Rows, dim: usize) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), dim), &Device::Cpu).unwrap()
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
    row.iter().map(|x| x - log_sum).collect()
}

/// One direction of the loss, in plain loops.
fn reference(
    online: &Rows,
    momentum: &Rows,
    keys: &Rows,
    ids: &[i64],
    key_ids: &[i64],
    alpha: f64,
    temperature: f64,
) -> f64 {
    let scores = |row: &Vec<f64>| -> Vec<f64> {
        keys.iter()
            .map(|key| row.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / temperature)
            .collect()
    };
    let mut loss = 0.0;
    for ((online, momentum), id) in online.iter().zip(momentum).zip(ids) {
        let log_p = log_softmax(&scores(online));
        let soft = log_softmax(&scores(momentum));
        let equal = key_ids.iter().filter(|k| *k == id).count() as f64;
        for ((log_p, soft), key_id) in log_p.iter().zip(soft).zip(key_ids) {
            let hard = if key_id == id { 1.0 / equal } else { 0.0 };
            loss -= (alpha * soft.exp() + (1.0 - alpha) * hard) * log_p;
        }
    }
    loss / ids.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn same_as_loops(
        seed in any::<u64>(), batch in 1usize..6, queued in 0usize..7, dim in 1usize..9,
        kinds in 1i64..6, alpha in 0.0f64..1.0, temperature in 0.05f64..0.5,
    ) {
        let [image, text, image_m, text_m] =
            ["image", "text", "image_m", "text_m"].map(|w| unit_rows(seed, w, batch, dim));
        let [image_q, text_q] = ["image_q", "text_q"].map(|w| unit_rows(seed, w, queued, dim));
        let ids: Vec<i64> = (0..batch as i64).map(|i| i % kinds).collect();
        let queue_ids: Vec<i64> = (0..queued as i64).map(|i| i % (kinds + 2)).collect();
        let key_ids = [ids.clone(), queue_ids.clone()].concat();
        let all_text = [text_m.clone(), text_q.clone()].concat();
        let all_image = [image_m.clone(), image_q.clone()].concat();
        let expected = 0.5
            * (reference(&image, &image_m, &all_text, &ids, &key_ids, alpha, temperature)
                + reference(&text, &text_m, &all_image, &ids, &key_ids, alpha, temperature));

        let view = QueueView {
            image: Tensor::from_vec(image_q.concat(), (queued, dim), &Device::Cpu).unwrap(),
            text: Tensor::from_vec(text_q.concat(), (queued, dim), &Device::Cpu).unwrap(),
            ids: queue_ids,
        };
        let temperature = Tensor::new(temperature, &Device::Cpu).unwrap();
        let output = itc_loss(&ItcInput {
            image: &tensor(&image, dim),
            text: &tensor(&text, dim),
            momentum: Some([&tensor(&image_m, dim), &tensor(&text_m, dim)]),
            queue: (seed % 2 == 0 || queued > 0).then_some(&view),
            ids: &ids,
            alpha,
            temperature: &temperature,
        }).unwrap();
        let found = output.loss.to_scalar::<f64>().unwrap();
        prop_assert!((found - expected).abs() < 1e-10, "{found} {expected}");
        prop_assert_eq!(output.similarity.dims(), [batch, batch]);
    }
}

/// ITC of a fixed small batch, by its online features and temperature.
fn small(image: &Tensor, text: &Tensor, temperature: &Tensor, momentum: bool) -> ItcOutput {
    let [image_m, text_m] = ["im", "tm"].map(|w| tensor(&unit_rows(5, w, 3, 4), 4));
    let queue = QueueView {
        image: tensor(&unit_rows(5, "iq", 2, 4), 4),
        text: tensor(&unit_rows(5, "tq", 2, 4), 4),
        ids: vec![1, 9],
    };
    itc_loss(&ItcInput {
        image,
        text,
        momentum: momentum.then_some([&image_m, &text_m]),
        queue: momentum.then_some(&queue),
        ids: &[0, 1, 1],
        alpha: if momentum { 0.4 } else { 0.0 },
        temperature,
    })
    .unwrap()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let rows = [unit_rows(5, "i", 3, 4), unit_rows(5, "t", 3, 4)];
    for momentum in [true, false] {
        let [image, text] = [0, 1].map(|i| Var::from_tensor(&tensor(&rows[i], 4)).unwrap());
        let temperature = Var::new(0.11f64, &Device::Cpu).unwrap();
        let output = small(&image, &text, &temperature, momentum);
        let grads = output.loss.backward().unwrap();
        let loss = |rows: &[Rows; 2], t: f64| {
            let t = Tensor::new(t, &Device::Cpu).unwrap();
            let loss = small(&tensor(&rows[0], 4), &tensor(&rows[1], 4), &t, momentum).loss;
            loss.to_scalar::<f64>().unwrap()
        };
        let h = 1e-5;
        for (side, var) in [&image, &text].into_iter().enumerate() {
            let gradient = grads.get(var).unwrap().to_vec2::<f64>().unwrap();
            for (i, row) in gradient.iter().enumerate() {
                for (j, found) in row.iter().enumerate() {
                    let at = |d: f64| {
                        let mut rows = rows.clone();
                        rows[side][i][j] += d;
                        loss(&rows, 0.11)
                    };
                    let expected = (at(h) - at(-h)) / (2.0 * h);
                    assert!((found - expected).abs() < 1e-6, "{side} {i} {j} {found} {expected}");
                }
            }
        }
        if !momentum {
            let found = grads.get(&temperature).unwrap().to_scalar::<f64>().unwrap();
            let expected = (loss(&rows, 0.11 + h) - loss(&rows, 0.11 - h)) / (2.0 * h);
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}

#[test]
fn temperature_is_clamped_and_still_learns() {
    let temperature = Var::new(0.7f64, &Device::Cpu).unwrap();
    let used = clamped_temperature(&temperature).unwrap();
    assert!((used.to_scalar::<f64>().unwrap() - 0.5).abs() < 1e-12);
    let grads = used.backward().unwrap();
    assert_eq!(grads.get(&temperature).unwrap().to_scalar::<f64>().unwrap(), 1.0);
    clamp_temperature(&temperature).unwrap();
    assert_eq!(temperature.to_scalar::<f64>().unwrap(), 0.5);
    // Within the range the value is unchanged, bit for bit.
    let inside = Tensor::new(0.07f32, &Device::Cpu).unwrap();
    assert_eq!(clamped_temperature(&inside).unwrap().to_scalar::<f32>().unwrap(), 0.07);
}

#[test]
fn shapes_are_named() {
    let (a, b) = (tensor(&unit_rows(1, "a", 2, 4), 4), tensor(&unit_rows(1, "b", 2, 3), 3));
    let temperature = Tensor::new(0.1f64, &Device::Cpu).unwrap();
    let input = ItcInput {
        image: &a,
        text: &b,
        momentum: None,
        queue: None,
        ids: &[1, 2],
        alpha: 0.0,
        temperature: &temperature,
    };
    let e = itc_loss(&input).unwrap_err().to_string();
    assert!(e.contains("text has shape [2, 3]") && e.contains("[2, 4]"), "{e}");
    let e = itc_loss(&ItcInput { text: &a, ids: &[1], ..input }).unwrap_err().to_string();
    assert!(e.contains("image") && e.contains("1 ids"), "{e}");
}
