//! Markdown table of the results.

use std::fmt::Write as _;

use super::outcome::{Checkpointing, Machine, Outcome};

const HEAD: [&str; 15] = [
    "row",
    "px",
    "batch",
    "type",
    "pairs",
    "ours, s",
    "PyTorch, s",
    "time ratio (range)",
    "ours, GiB",
    "PyTorch, GiB",
    "memory ratio",
    "ceiling, GFLOP/s",
    "share of ceiling",
    "time / floor",
    "floor ratio",
];

/// A sentence on what was measured, then a line for each case. A ratio below 1 is in our favor.
pub(super) fn markdown(machine: &Machine, outcomes: &[Outcome]) -> String {
    // Writing to a string cannot fail.
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\nMedians on {}, {} threads each, beside {}; ratios are ours by PyTorch's, pair by pair. The ceiling is the \
         better matrix product of both sides, measured before and after a row's pairs.\n",
        machine.device,
        super::THREADS,
        machine.versions
    );
    let _ = writeln!(text, "| {} |\n|{}", HEAD.join(" | "), "---|".repeat(HEAD.len()));
    for outcome in outcomes {
        let _ = writeln!(text, "| {} |", line(outcome).join(" | "));
    }
    text
}

fn line(outcome: &Outcome) -> [String; HEAD.len()] {
    let ([ours, theirs], [ratio, least, most]) = (outcome.seconds(), outcome.ratio());
    let [own, other] =
        outcome.peaks.map(|bytes| format!("{:.2}", bytes as f64 / f64::from(1 << 30)));
    let floor = outcome.floor();
    [
        match outcome.case.checkpoint {
            Checkpointing::None => outcome.case.row.title().to_owned(),
            Checkpointing::Block => format!("{}, blocks recomputed", outcome.case.row.title()),
        },
        outcome.case.size.to_string(),
        outcome.case.batch.to_string(),
        outcome.case.precision.clone(),
        outcome.pairs.len().to_string(),
        format!("{ours:.3}"),
        format!("{theirs:.3}"),
        format!("{ratio:.2} ({least:.2} to {most:.2})"),
        own,
        other,
        format!("{:.2}", outcome.memory_ratio()),
        format!("{:.0}", outcome.ceiling / 1e9),
        format!("{:.0} %", 100.0 * floor / ours),
        format!("{:.2}", ours / floor),
        format!("{:.2}", outcome.floor_ratio()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Benchmark;
    use super::super::outcome::tests::{machine, outcome};
    use super::*;

    #[test]
    fn a_line_has_medians_ratios_and_the_floor() {
        let text = markdown(&machine(), &[outcome(Benchmark::B)]);
        let found = "| b. vision tower, frozen, forward | 224 | 4 | f32 | 3 | 1.000 | 4.000 | 0.50 (0.25 to 0.75) | 1.00 | \
                     2.00 | 0.50 | 100 | 50 % | 2.00 | 0.50 |\n";
        assert!(text.contains(found), "{text}");
        let bars = |line: &&str| line.starts_with('|');
        let columns: Vec<usize> =
            text.lines().filter(bars).map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, [HEAD.len() + 1; 3]);
    }
}
