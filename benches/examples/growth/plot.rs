//! Plot of the curves side by side: medians as dots, and the fitted line.

use std::fmt::Write as _;

use super::Curve;

/// Layout in pixels: a panel, the room around it.
const SIDE: f64 = 190.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 34.0;
const PITCH: f64 = SIDE + LEFT + 14.0;

/// SVG on white.
pub fn svg(curves: &[Curve]) -> String {
    let (width, height) = (PITCH * curves.len() as f64, TOP + SIDE + 48.0);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" fill="#222222">
<rect width="{width}" height="{height}" fill="#ffffff"/>"##
    );
    for (index, curve) in curves.iter().enumerate() {
        let left = LEFT + PITCH * index as f64;
        let points = curve.medians();
        let end = |of: fn(&(f64, f64)) -> f64| 1.08 * points.iter().map(of).fold(0.0, f64::max);
        let (far, high) = (end(|point| point.0), end(|point| point.1));
        let (foot, middle) = (TOP + SIDE, left + SIDE / 2.0);
        let place = |at: f64, seconds: f64| (left + SIDE * at / far, foot - SIDE * seconds / high);
        let (start, slope, off) = curve.line();
        let ((x1, y1), (x2, y2)) = (place(0.0, start), place(far, start + slope * far));
        let _ = writeln!(
            out,
            r##"<text x="{middle}" y="16" text-anchor="middle" font-size="13">{}</text>
<path d="M{left} {TOP}V{foot}H{}" fill="none" stroke="#888888"/>
<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#e08a1e" stroke-width="1.5"/>
<text x="{middle}" y="{}" text-anchor="middle">{}</text>
<text x="{}" y="{}" text-anchor="end" fill="#666666">line: at most {:.1} % off</text>"##,
            curve.name,
            left + SIDE,
            foot + 34.0,
            curve.axis,
            left + SIDE,
            foot - 8.0,
            100.0 * off
        );
        for (at, seconds) in points {
            let (x, y) = place(at, seconds);
            let _ = writeln!(
                out,
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="#1f77b4"/><text x="{x:.1}" y="{}" text-anchor="middle" font-size="9">{at}</text><text x="{}" y="{:.1}" text-anchor="end" font-size="9">{seconds:.2} s</text>"##,
                foot + 14.0,
                left - 4.0,
                y + 3.0
            );
        }
    }
    out.push_str("</svg>\n");
    out
}
