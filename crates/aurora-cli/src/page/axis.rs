//! Chart axes: round ticks and number formats.

/// Linear axis whose ends and ticks are round numbers.
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
    /// Round values to mark.
    pub(super) ticks: Vec<f64>,
}

impl Axis {
    /// Axis of about `count` ticks around `values`; it starts at zero when zero is near enough for that to cost little
    /// room. `None` when no value is finite.
    pub(super) fn around(values: impl Iterator<Item = f64>, count: usize) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            return None;
        }
        if low > 0.0 && low < 0.5 * high {
            low = 0.0;
        }
        if high - low <= f64::EPSILON * high.abs().max(low.abs()) {
            // One value only: give it room on both sides.
            let room = if high == 0.0 { 1.0 } else { 0.5 * high.abs() };
            (low, high) = (low - room, high + room);
        }
        let step = round_step((high - low) / count as f64);
        // The small shift tolerates ends that are round but for the last bit.
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        // At most a few ticks more than asked for; the cap keeps extreme ranges harmless.
        let ticks: Vec<f64> = (0..=20)
            .map(|i| first + f64::from(i))
            .take_while(|i| *i <= last)
            .map(|i| i * step)
            .collect();
        Some(Self { low: first * step, high: last * step, step, ticks })
    }

    /// Normalized position of `value` between the two ends, from 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Tick label, with as many decimals as the step needs.
    pub(super) fn name(&self, tick: f64) -> String {
        if self.high.abs().max(self.low.abs()) >= 1e6 || self.step < 1e-4 {
            if tick == 0.0 {
                return "0".to_owned();
            }
            return format!("{tick:.1e}").replace(".0e", "e");
        }
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        // `+ 0.0` turns a negative zero into a plain one.
        format!("{:.decimals$}", (tick / self.step).round() * self.step + 0.0)
    }
}

/// The next of 1, 2, 5 times a power of ten at or above `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Formats a coordinate to a tenth of a unit; finer would only lengthen the file.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Formats a number to four significant digits, without trailing zeros.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { "-".to_owned() };
    }
    let exponent = value.abs().log10().floor() as i32;
    if !(-4..6).contains(&exponent) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.*}", (3 - exponent).max(0) as usize);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(values: &[f64]) -> Vec<String> {
        let axis = Axis::around(values.iter().copied(), 5).unwrap();
        axis.ticks.iter().map(|t| axis.name(*t)).collect()
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        assert_eq!(names(&[0.0, 600.0]), ["0", "200", "400", "600"]);
        assert_eq!(names(&[0.8, 4.1]), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(names(&[12.1, 14.9]), ["12", "13", "14", "15"]);
        assert_eq!(names(&[0.0, 0.002]), ["0.0000", "0.0005", "0.0010", "0.0015", "0.0020"]);
        assert_eq!(names(&[-0.3, 0.3]), ["-0.4", "-0.2", "0.0", "0.2", "0.4"]);
    }

    #[test]
    fn tiny_and_huge_values_use_powers_of_ten() {
        assert_eq!(names(&[0.0, 2e-5]), ["0", "5e-6", "1e-5", "1.5e-5", "2e-5"]);
        assert_eq!(names(&[0.0, 4e9]), ["0", "1e9", "2e9", "3e9", "4e9"]);
    }

    #[test]
    fn one_value_alone_still_has_an_axis() {
        for value in [0.0, 5.0, -3.0, 1e-30, 1e300] {
            let axis = Axis::around([value].into_iter(), 5).unwrap();
            assert!((0.2..=0.8).contains(&axis.share(value)), "{value}");
            assert!(axis.ticks.len() >= 2, "{value}");
        }
        assert!(Axis::around([f64::NAN].into_iter(), 5).is_none());
    }

    #[test]
    fn numbers_have_four_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (3.0, "3"),
            (7.654_32, "7.654"),
            (12_345.678, "12346"),
            (0.001_234_56, "0.001235"),
            (2.5e-7, "2.50e-7"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
