//! Plot of the benchmarks: a bar for the time and one for the memory of each case, as multiples of PyTorch's.

use std::fmt::Write as _;

use super::outcome::Outcome;

/// Layout in pixels: labels, the plot beside them, a case, what is above and below the cases.
const LABELS: f64 = 190.0;
const WIDTH: f64 = 480.0;
const CASE: f64 = 34.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 34.0;
const COLORS: [&str; 2] = ["#1f77b4", "#e08a1e"];

/// SVG on white, so that it can be read in dark viewers too.
pub(super) fn svg(outcomes: &[Outcome]) -> String {
    let ratios = |outcome: &Outcome| [outcome.ratio()[0], outcome.memory_ratio()];
    let largest = outcomes.iter().flat_map(ratios).filter(|r| r.is_finite()).fold(1.0, f64::max);
    // A quarter more than the largest, in halves.
    let end = (largest * 1.25 * 2.0).ceil() / 2.0;
    let x = |value: f64| LABELS + WIDTH * value / end;
    let height = TOP + CASE * outcomes.len() as f64 + BOTTOM;
    let (right, foot) = (LABELS + WIDTH + 20.0, height - BOTTOM);

    // Writing to a string cannot fail.
    let mut out = String::new();
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {height}" font-family="sans-serif" font-size="11">
<rect width="{right}" height="{height}" fill="#ffffff"/>
<text x="{LABELS}" y="18" fill="#222222" font-size="13">ours / PyTorch (less is better)</text>"##
    );
    for (index, (name, color)) in ["time", "peak memory"].iter().zip(COLORS).enumerate() {
        let left = LABELS + 90.0 * index as f64;
        let _ = writeln!(
            out,
            r##"<rect x="{left}" y="26" width="10" height="10" fill="{color}"/><text x="{}" y="35" fill="#222222">{name}</text>"##,
            left + 15.0
        );
    }
    let _ = writeln!(
        out,
        r##"<line x1="{0}" x2="{0}" y1="26" y2="37" stroke="#111111" stroke-width="2.5"/><text x="{1}" y="35" fill="#222222">target</text>"##,
        LABELS + 200.0,
        LABELS + 208.0
    );
    let mut tick = 0.0;
    while tick <= end {
        let at = x(tick);
        let (color, width) = if tick == 1.0 { ("#c02020", 2) } else { ("#dddddd", 1) };
        let _ = writeln!(
            out,
            r##"<line x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{foot}" stroke="{color}" stroke-width="{width}"/><text x="{at:.1}" y="{}" fill="#222222" text-anchor="middle">{tick}</text>"##,
            foot + 16.0
        );
        tick += 0.5;
    }
    for (index, outcome) in outcomes.iter().enumerate() {
        let top = TOP + CASE * index as f64;
        let _ = writeln!(
            out,
            r##"<text x="{}" y="{}" fill="#222222" text-anchor="end">{}</text>"##,
            LABELS - 8.0,
            top + 21.0,
            outcome.case
        );
        for (bar, (ratio, color)) in ratios(outcome).into_iter().zip(COLORS).enumerate() {
            let y = top + 5.0 + 12.0 * bar as f64;
            let _ = writeln!(
                out,
                r##"<rect x="{LABELS}" y="{y}" width="{:.1}" height="11" fill="{color}"/><text x="{:.1}" y="{}" fill="#222222">{ratio:.2}</text>"##,
                x(ratio) - LABELS,
                x(ratio) + 4.0,
                y + 9.5
            );
            if let Some(target) = outcome.case.targets()[bar] {
                let at = x(target);
                let _ = writeln!(
                    out,
                    r##"<line class="target" x1="{at:.1}" x2="{at:.1}" y1="{}" y2="{}" stroke="#111111" stroke-width="2.5"/>"##,
                    y - 0.5,
                    y + 11.5
                );
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Benchmark;
    use super::super::outcome::tests::outcome;
    use super::*;

    #[test]
    fn every_case_has_two_bars_on_white_and_there_is_a_line_at_one() {
        let text = svg(&[outcome(Benchmark::A), outcome(Benchmark::DText)]);
        let document = roxmltree::Document::parse(&text).unwrap();
        let named =
            |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
        let of = |color: &str| named("rect").filter(|r| r.attribute("fill") == Some(color)).count();
        // A legend, and a bar for each.
        assert_eq!(COLORS.map(of), [3, 3]);
        assert_eq!(of("#ffffff"), 1);
        let one = named("line").filter(|line| line.attribute("stroke") == Some("#c02020"));
        let at: Vec<&str> = one.filter_map(|line| line.attribute("x1")).collect();
        // The axis ends at 1.5.
        assert_eq!(at, ["510.0"]);
        assert!(named("text").any(|text| text.text() == Some("d_text 224 px x 4 f32")));
        // Row a has one for its time, 0.85 of the 320 pixels to 1; d has none at this size.
        let targets = named("line").filter(|line| line.attribute("class") == Some("target"));
        let at: Vec<&str> = targets.filter_map(|line| line.attribute("x1")).collect();
        assert_eq!(at, ["462.0"]);
    }
}
