//! Learning-rate schedules: a factor on the base learning rate of every group, by step.
//!
//! Warm-up is linear, `(step + 1) / warmup_steps`, so that the first step already moves. After it the
//! decay runs over the steps that are left. The cosine (Loshchilov & Hutter 2016, arXiv:1608.03983) is
//! `min_lr_ratio + (1 - min_lr_ratio) (1 + cos(pi t)) / 2` for t from 0 to 1, which with a learning rate
//! of `init` and a min_lr_ratio of `min / init` is the usual `(init - min) (1 + cos(pi t)) / 2 + min`.

use serde::{Deserialize, Serialize};

/// Decay of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// No decay.
    Constant,
    /// Half a cosine, updated at every step.
    Cosine,
    /// Half a cosine in one stair per epoch; the first epoch runs at the full rate.
    CosineEpoch,
}

/// A learning-rate schedule.
///
/// ```
/// use aurora_train::schedule::{Decay, Schedule};
///
/// let schedule = Schedule { decay: Decay::Cosine, steps: 100, warmup_steps: 10, min_lr_ratio: 0.0, cosine_epochs: 1 };
/// assert_eq!(schedule.factor(0), 0.1);
/// assert_eq!(schedule.factor(10), 1.0);
/// assert!((schedule.factor(55) - 0.5).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Decay after the warm-up.
    pub decay: Decay,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Steps of linear warm-up at the start.
    pub warmup_steps: u64,
    /// Smallest factor, reached at the end, 0 to 1.
    pub min_lr_ratio: f64,
    /// Number of stairs of [`Decay::CosineEpoch`], at least 1; not used by the others.
    pub cosine_epochs: u64,
}

impl Schedule {
    /// Learning-rate factor, 0 to 1, at `step` (the first is 0).
    ///
    /// Past the last step it stays at `min_lr_ratio` (or at 1 for [`Decay::Constant`]).
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let done = step - self.warmup_steps;
        let total = self.steps.saturating_sub(self.warmup_steps).max(1);
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine => self.cosine(done as f64 / total as f64),
            Decay::CosineEpoch => {
                let cosine_epochs = self.cosine_epochs.max(1);
                let epoch =
                    (u128::from(done) * u128::from(cosine_epochs) / u128::from(total)) as u64;
                self.cosine(epoch as f64 / cosine_epochs as f64)
            }
        }
    }

    /// Half a cosine from 1 at `t` = 0 to `min_lr_ratio` at 1 and after.
    fn cosine(&self, t: f64) -> f64 {
        let t = t.clamp(0.0, 1.0);
        self.min_lr_ratio
            + (1.0 - self.min_lr_ratio) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
    }
}

/// Linear ramp from 0 to `target` over `steps`, then constant; `target` at once if `steps` is 0. The
/// weight of the soft targets follows it.
pub fn ramp(target: f64, step: u64, steps: u64) -> f64 {
    if steps == 0 { target } else { target * (step as f64 / steps as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(
        decay: Decay,
        steps: u64,
        warmup_steps: u64,
        min_lr_ratio: f64,
        cosine_epochs: u64,
    ) -> Schedule {
        Schedule { decay, steps, warmup_steps, min_lr_ratio, cosine_epochs }
    }

    #[test]
    fn cosine_per_epoch_is_the_released_formula() {
        // (init - min) * 0.5 * (1 + cos(pi * epoch / max_epoch)) + min
        let (init, min, cosine_epochs, per_epoch) = (1e-4, 1e-6, 5, 7);
        let s =
            schedule(Decay::CosineEpoch, cosine_epochs * per_epoch, 0, min / init, cosine_epochs);
        for step in 0..cosine_epochs * per_epoch {
            let epoch = (step / per_epoch) as f64;
            let expected = (init - min)
                * 0.5
                * (1.0 + (std::f64::consts::PI * epoch / cosine_epochs as f64).cos())
                + min;
            assert!((init * s.factor(step) - expected).abs() < 1e-18);
        }
    }

    #[test]
    fn constant_stays_after_warmup() {
        let s = schedule(Decay::Constant, 10, 4, 0.0, 1);
        let factors: Vec<f64> = (0..6).map(|step| s.factor(step)).collect();
        assert_eq!(factors, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn ramp_reaches_its_target() {
        assert_eq!(ramp(0.4, 0, 0), 0.4);
        assert_eq!(ramp(0.4, 0, 10), 0.0);
        assert_eq!(ramp(0.4, 5, 10), 0.2);
        assert_eq!(ramp(0.4, 50, 10), 0.4);
    }

    proptest! {
        #[test]
        fn falls_after_warmup_within_bounds(
            steps in 1u64..500, warmup_steps in 0u64..50, min_lr_ratio in 0.0f64..1.0, cosine_epochs in 1u64..20,
            per_epoch in any::<bool>(),
        ) {
            let decay = if per_epoch { Decay::CosineEpoch } else { Decay::Cosine };
            let s = schedule(decay, steps, warmup_steps, min_lr_ratio, cosine_epochs);
            let mut last = 1.0;
            for step in 0..steps + 5 {
                let factor = s.factor(step);
                prop_assert!(factor > 0.0 || min_lr_ratio == 0.0 || step < warmup_steps);
                prop_assert!((0.0..=1.0).contains(&factor));
                if step >= warmup_steps {
                    prop_assert!(factor <= last + 1e-12 && factor >= min_lr_ratio - 1e-12);
                    last = factor;
                }
            }
        }

        #[test]
        fn serde_round_trip(steps in 1u64..500, warmup_steps in 0u64..50, eighths in 0u8..8) {
            let s = schedule(Decay::CosineEpoch, steps, warmup_steps, f64::from(eighths) / 8.0, 3);
            let text = serde_json::to_string(&s).unwrap();
            prop_assert!(text.contains("cosine_epoch"));
            prop_assert_eq!(s, serde_json::from_str(&text).unwrap());
        }
    }
}
