//! AdamW and gradient clipping against PyTorch's formulas in f64.

use super::*;
use proptest::prelude::*;

/// PyTorch's single-tensor AdamW in f64, for one value.
fn reference(mut p: f64, gradients: &[f64], lr: f64, wd: f64, options: AdamWOptions) -> f64 {
    let [b1, b2] = options.betas;
    let (mut m, mut v) = (0.0, 0.0);
    for (t, g) in (1..).zip(gradients) {
        p *= 1.0 - lr * wd;
        m = b1 * m + (1.0 - b1) * g;
        v = b2 * v + (1.0 - b2) * g * g;
        let denominator = f64::sqrt(v) / f64::sqrt(1.0 - b2.powi(t)) + options.eps;
        p -= lr / (1.0 - b1.powi(t)) * m / denominator;
    }
    p
}

fn var(values: &[f32]) -> Var {
    Var::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

/// Gradient store in which `var` has exactly `gradient`, from `sum(var * gradient)`.
fn store(pairs: &[(&Var, &Tensor)]) -> GradStore {
    let terms: Vec<Tensor> =
        pairs.iter().map(|(var, gradient)| var.mul(gradient).unwrap().sum_all().unwrap()).collect();
    Tensor::stack(&terms, 0).unwrap().sum_all().unwrap().backward().unwrap()
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

#[test]
fn first_step_by_hand() {
    // lr 0.1, wd 0.5: p = 1 * 0.95; m / (1 - b1) = g and sqrt(v / (1 - b2)) = |g|, so the step is
    // lr * sign(g) but for eps.
    let p = var(&[1.0, -2.0]);
    let parameters = vec![Parameter::new("p", p.clone(), "all")];
    let groups = vec![Group::new("all", 0.1, 0.5)];
    let mut adam = AdamW::new(parameters, groups, AdamWOptions::default()).unwrap();
    adam.step(&store(&[(&p, &tensor(&[3.0, -0.25]))]), 1.0).unwrap();
    let found: Vec<f32> = p.to_vec1().unwrap();
    assert!((found[0] - 0.85).abs() < 1e-6 && (found[1] + 1.8).abs() < 1e-6, "{found:?}");
    assert_eq!(adam.steps(), 1);
    assert_eq!(adam.element_count(), 2);
}

#[test]
fn large_tensors_take_the_parallel_path() {
    let count = 3 * CHUNK + 7;
    let values: Vec<f32> = (0..count).map(|i| (i % 101) as f32 * 0.01 - 0.5).collect();
    let gradients: Vec<f32> = (0..count).map(|i| (i % 37) as f32 * 0.1 - 1.7).collect();
    let (large, small) = (var(&values), var(&values[count - 5..]));
    let parameters =
        vec![Parameter::new("l", large.clone(), "g"), Parameter::new("s", small.clone(), "g")];
    let groups = vec![Group::new("g", 0.01, 0.05)];
    let mut adam = AdamW::new(parameters, groups, AdamWOptions::default()).unwrap();
    for _ in 0..3 {
        let (l, s) = (tensor(&gradients), tensor(&gradients[count - 5..]));
        adam.step(&store(&[(&large, &l), (&small, &s)]), 1.0).unwrap();
    }
    let (large, small): (Vec<f32>, Vec<f32>) = (large.to_vec1().unwrap(), small.to_vec1().unwrap());
    assert_eq!(large[count - 5..], small[..]);
}

#[test]
fn transposed_gradients_are_read_in_order() {
    let p = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let q = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((3, 2)).unwrap();
    let mut grads = store(&[(&p, &p.ones_like().unwrap())]);
    grads.insert(&p, q.t().unwrap());
    let parameters = vec![Parameter::new("p", p.clone(), "g")];
    let options = AdamWOptions { eps: 1.0, ..AdamWOptions::default() };
    let mut adam = AdamW::new(parameters, vec![Group::new("g", 1.0, 0.0)], options).unwrap();
    adam.step(&grads, 1.0).unwrap();
    // Each moves by g / (|g| + 1).
    let found: Vec<Vec<f32>> = p.to_vec2().unwrap();
    let expected = [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0f32]].map(|row| row.map(|g| -g / (g + 1.0)));
    for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((a - b).abs() < 1e-5, "{found:?}");
    }
}

#[test]
fn a_missing_gradient_is_named_and_nothing_moves() {
    let (p, q) = (var(&[1.0]), var(&[2.0]));
    let parameters =
        vec![Parameter::new("used", p.clone(), "g"), Parameter::new("layer.3.gate", q, "g")];
    let mut adam =
        AdamW::new(parameters, vec![Group::new("g", 1.0, 0.0)], AdamWOptions::default()).unwrap();
    let mut grads = store(&[(&p, &tensor(&[1.0]))]);
    let e = adam.step(&grads, 1.0).unwrap_err().to_string();
    assert!(e.contains("1 of 2") && e.contains("layer.3.gate") && !e.contains("used"), "{e}");
    assert_eq!(p.to_vec1::<f32>().unwrap(), [1.0]);
    assert!(clip_gradients(&mut grads, adam.parameters(), 1.0).is_err());
}

#[test]
fn construction_is_checked() {
    let groups = || vec![Group::new("heads", 1.0, 0.0)];
    let options = AdamWOptions::default();
    let p = || Parameter::new("p", var(&[1.0]), "heads");
    let e = AdamW::new(vec![p(), p()], groups(), options).unwrap_err().to_string();
    assert!(e.contains("\"p\" is given twice"), "{e}");
    let other = Parameter::new("q", var(&[1.0]), "factors");
    let e = AdamW::new(vec![other], groups(), options).unwrap_err().to_string();
    assert!(e.contains("\"factors\"") && e.contains("heads"), "{e}");
    let wide = Var::zeros(2, DType::F64, &Device::Cpu).unwrap();
    let e = AdamW::new(vec![Parameter::new("w", wide, "heads")], groups(), options);
    assert!(e.unwrap_err().to_string().contains("w is f64"));
}

#[test]
fn clipping_names_what_diverged() {
    let p = var(&[1.0]);
    let parameters = [Parameter::new("site.modes", p.clone(), "g")];
    let mut grads = store(&[(&p, &tensor(&[f32::NAN]))]);
    let e = clip_gradients(&mut grads, &parameters, 1.0).unwrap_err().to_string();
    assert!(e.contains("site.modes") && e.contains("diverged"), "{e}");
}

#[test]
fn state_is_checked_and_resumes() {
    let gradient = tensor(&[0.3, -0.7]);
    let fresh = || {
        let p = var(&[1.0, 2.0]);
        let parameters = vec![Parameter::new("p", p.clone(), "g")];
        let groups = vec![Group::new("g", 0.1, 0.1)];
        (AdamW::new(parameters, groups, AdamWOptions::default()).unwrap(), p)
    };
    let (mut whole, p) = fresh();
    for _ in 0..2 {
        whole.step(&store(&[(&p, &gradient)]), 1.0).unwrap();
    }
    let (mut resumed, q) = fresh();
    let mut state = whole.state().unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["first.p", "second.p", "step"]);
    resumed.load_state(&state).unwrap();
    q.set(&p).unwrap();
    whole.step(&store(&[(&p, &gradient)]), 0.5).unwrap();
    resumed.step(&store(&[(&q, &gradient)]), 0.5).unwrap();
    assert_eq!(p.to_vec1::<f32>().unwrap(), q.to_vec1::<f32>().unwrap());
    assert_eq!(resumed.steps(), 3);

    let moment = state.remove("second.p").unwrap();
    state.insert("second.q".to_owned(), moment.clone());
    let e = resumed.load_state(&state).unwrap_err().to_string();
    assert!(e.contains("second.p") && e.contains("second.q"), "{e}");
    state.remove("second.q");
    state.insert("second.p".to_owned(), moment.unsqueeze(0).unwrap());
    let e = resumed.load_state(&state).unwrap_err().to_string();
    assert!(e.contains("second.p") && e.contains("[1, 2]"), "{e}");
}

proptest! {
    #[test]
    fn follows_the_formula(
        start in prop::collection::vec(-2.0f32..2.0, 1..40), steps in 1usize..8,
        lr in 1e-4f64..0.1, factor in 0.0f64..1.0, wd in 0.0f64..0.5, beta2 in 0.9f64..0.9999,
        scale in 0.01f32..10.0,
    ) {
        let options = AdamWOptions { betas: [0.9, beta2], eps: 1e-8 };
        let p = var(&start);
        let parameters = vec![Parameter::new("p", p.clone(), "g")];
        let groups = vec![Group::new("g", lr, wd)];
        let mut adam = AdamW::new(parameters, groups, options).unwrap();
        let gradient = |i: usize, t: usize| scale * ((i * 7 + t * 13) % 11) as f32 - 4.0 * scale;
        for t in 0..steps {
            let g: Vec<f32> = (0..start.len()).map(|i| gradient(i, t)).collect();
            adam.step(&store(&[(&p, &tensor(&g))]), factor).unwrap();
        }
        for (i, found) in p.to_vec1::<f32>().unwrap().into_iter().enumerate() {
            let g: Vec<f64> = (0..steps).map(|t| f64::from(gradient(i, t))).collect();
            let expected = reference(f64::from(start[i]), &g, lr * factor, wd, options);
            prop_assert!((f64::from(found) - expected).abs() < 3e-6, "{found} {expected}");
        }
    }

    #[test]
    fn clipped_norm_is_the_limit(
        a in prop::collection::vec(-3.0f32..3.0, 1..20), b in prop::collection::vec(-3.0f32..3.0, 1..20),
        limit in 0.1f64..20.0,
    ) {
        let (p, q) = (var(&a), var(&b));
        let parameters = [Parameter::new("p", p.clone(), "g"), Parameter::new("q", q.clone(), "g")];
        let mut grads = store(&[(&p, &tensor(&a)), (&q, &tensor(&b))]);
        let expected = a.iter().chain(&b).map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let norm = clip_gradients(&mut grads, &parameters, limit).unwrap();
        prop_assert!((norm - expected).abs() < 1e-9 * (1.0 + expected));
        let after = clip_gradients(&mut grads, &parameters, f64::INFINITY).unwrap();
        prop_assert!((after - expected.min(limit)).abs() < 1e-4 * (1.0 + expected), "{after}");
    }
}
