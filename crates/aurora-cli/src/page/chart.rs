//! Line charts as inline SVG: axes at round numbers, a legend by color and dash, a title on hover
//! for every point, and the same numbers as a table for those who cannot see the drawing.

use std::fmt::Display;

use super::axis::{Axis, number, px};
use super::html::Html;

/// Size of the drawing and of the margins around the plot, in units of the view box.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 250.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// Maximum points per series; more are averaged in groups, since a line of a thousand noisy losses hides its own trend
/// and doubles the size of the page.
const MAX_POINTS: usize = 120;

/// Maximum rows of the table under the drawing.
const TABLE_ROWS: usize = 12;

/// Curve of a chart.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// `(x, y)` in order of x; points that are not finite are left out of the drawing.
    pub points: Vec<(f64, f64)>,
}

/// Horizontal reference line, such as the random baseline.
#[derive(Debug, Clone)]
pub struct ReferenceLine {
    /// Label of the line.
    pub label: String,
    /// Height in units of the y axis.
    pub value: f64,
}

/// Highlighted point, such as the step whose adapter was kept.
#[derive(Debug, Clone)]
pub struct Highlight {
    /// Label beside the point.
    pub label: String,
    /// Coordinates `(x, y)`.
    pub at: (f64, f64),
}

/// Line chart with up to four series.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Heading above the drawing.
    pub title: String,
    /// One sentence under the heading: what to look for. May be empty.
    pub note: String,
    /// Label of the x axis.
    pub x_label: String,
    /// Label of the y axis, with its unit.
    pub y_label: String,
    /// The curves.
    pub series: Vec<Series>,
    /// Reference line.
    pub reference: Option<ReferenceLine>,
    /// Highlighted point.
    pub highlight: Option<Highlight>,
}

impl Chart {
    /// Writes the chart as a `<figure>`; one without a finite point says so in words.
    pub fn write(&self, html: &mut Html) {
        let series: Vec<Series> = self.series.iter().map(downsampled).collect();
        html.markup("<figure class=\"chart\">\n<figcaption>");
        html.element("h3", &[], &self.title);
        let group = self.series.iter().map(|s| group_size(s.points.len())).max().unwrap_or(1);
        if !self.note.is_empty() || group > 1 {
            html.markup("<p class=\"note\">").text(&self.note);
            if group > 1 {
                html.text(format_args!(" Each point is the mean of up to {group} records."));
            }
            html.markup("</p>");
        }
        if self.series.len() > 1 {
            write_legend(html, &series);
        }
        html.markup("</figcaption>\n");
        match self.area(&series) {
            Some(area) => {
                self.write_drawing(html, &series, &area);
                self.write_table(html, &series);
            }
            None => {
                html.markup("<p class=\"empty\">Nothing was recorded for this chart.</p>");
            }
        }
        html.markup("</figure>\n");
    }

    /// Plot area that holds every point, the reference line and the highlight.
    fn area(&self, series: &[Series]) -> Option<PlotArea> {
        let points = series.iter().flat_map(|s| s.points.iter().copied());
        let points: Vec<(f64, f64)> = points.chain(self.highlight.iter().map(|h| h.at)).collect();
        let reference = self.reference.iter().map(|r| r.value).filter(|v| v.is_finite());
        let x = Axis::around(points.iter().map(|p| p.0), 6)?;
        let y = Axis::around(points.iter().map(|p| p.1).chain(reference), 5)?;
        Some(PlotArea::new(x, y))
    }

    fn write_drawing(&self, html: &mut Html, series: &[Series], area: &PlotArea) {
        let names: Vec<&str> = series.iter().map(|s| s.name.as_str()).collect();
        let label = format!("Line chart. {}: {}.", self.title, names.join(", "));
        let view = format!("0 0 {WIDTH} {HEIGHT}");
        html.open("svg", &[("viewBox", &view), ("role", &"img"), ("aria-label", &label)]);
        html.markup("\n");
        self.write_axes(html, area);
        if let Some(reference) = self.reference.as_ref().filter(|r| r.value.is_finite()) {
            let y = area.y(reference.value);
            line(html, "reference", (area.left, y), (WIDTH - RIGHT, y));
            let at = (WIDTH - RIGHT - 2.0, y - 4.0);
            words(html, "reference-label", "end", at, &reference.label);
        }
        for (index, series) in series.iter().enumerate() {
            write_series(html, series, area, class_of(index));
        }
        if let Some(highlight) = &self.highlight {
            let (x, y) = (area.x(highlight.at.0), area.y(highlight.at.1));
            html.open(
                "circle",
                &[("class", &"highlight"), ("cx", &px(x)), ("cy", &px(y)), ("r", &"5.5")],
            );
            html.markup("</circle>");
            // The words go to the side that has room for them.
            let right = x < WIDTH * 0.6;
            let anchor = if right { "start" } else { "end" };
            let at = (if right { x + 9.0 } else { x - 9.0 }, (y + 18.0).min(HEIGHT - BOTTOM - 6.0));
            words(html, "highlight-label", anchor, at, &highlight.label);
        }
        html.markup("</svg>\n");
    }

    fn write_axes(&self, html: &mut Html, area: &PlotArea) {
        for tick in &area.y.ticks {
            let y = area.y(*tick);
            line(html, "grid", (area.left, y), (WIDTH - RIGHT, y));
            words(html, "tick", "end", (area.left - 6.0, y + 4.0), area.y.name(*tick));
        }
        let floor = HEIGHT - BOTTOM;
        for tick in &area.x.ticks {
            let x = area.x(*tick);
            line(html, "axis", (x, floor), (x, floor + 4.0));
            words(html, "tick", "middle", (x, floor + 17.0), area.x.name(*tick));
        }
        line(html, "axis", (area.left, floor), (WIDTH - RIGHT, floor));
        let middle = (area.left + WIDTH - RIGHT) / 2.0;
        words(html, "axis-label", "middle", (middle, HEIGHT - 5.0), &self.x_label);
        let height = px((TOP + floor) / 2.0);
        let turn = format!("translate(11 {height}) rotate(-90)");
        html.open(
            "text",
            &[("class", &"axis-label"), ("text-anchor", &"middle"), ("transform", &turn)],
        );
        html.text(&self.y_label).markup("</text>\n");
    }

    /// Writes the plotted numbers as a table, thinned to a dozen rows.
    fn write_table(&self, html: &mut Html, series: &[Series]) {
        html.markup("<details><summary>The numbers</summary>\n");
        for series in series {
            let every = series.points.len().div_ceil(TABLE_ROWS).max(1);
            html.markup("<table class=\"numbers\"><caption>").text(&series.name);
            html.markup("</caption><thead><tr>");
            html.element("th", &[("scope", &"col")], &self.x_label);
            html.element("th", &[("scope", &"col")], &self.y_label);
            html.markup("</tr></thead><tbody>\n");
            let last = series.points.len().saturating_sub(1);
            for (index, (x, y)) in series.points.iter().enumerate() {
                if index % every == 0 || index == last {
                    html.markup("<tr><td>").text(number(*x)).markup("</td><td>");
                    html.text(number(*y)).markup("</td></tr>\n");
                }
            }
            html.markup("</tbody></table>\n");
        }
        html.markup("</details>\n");
    }
}

fn write_legend(html: &mut Html, series: &[Series]) {
    html.markup("<ul class=\"legend\">");
    for (index, series) in series.iter().enumerate() {
        html.markup("<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\">");
        line(html, class_of(index), (0.0, 4.0), (28.0, 4.0));
        html.markup("</svg>").text(&series.name).markup("</li>");
    }
    html.markup("</ul>");
}

fn write_series(html: &mut Html, series: &Series, area: &PlotArea, class: &'static str) {
    let points: Vec<String> = series
        .points
        .iter()
        .map(|(x, y)| format!("{},{}", px(area.x(*x)), px(area.y(*y))))
        .collect();
    html.open("polyline", &[("class", &class), ("points", &points.join(" "))]);
    html.markup("</polyline>\n");
    // Few points stand for single measurements and are drawn; many are only there to be pointed at.
    let dot = if series.points.len() <= 24 { "dot" } else { "dot quiet" };
    for (x, y) in &series.points {
        let class = format!("{dot} {class}");
        html.open(
            "circle",
            &[("class", &class), ("cx", &px(area.x(*x))), ("cy", &px(area.y(*y))), ("r", &"3")],
        );
        html.markup("<title>");
        html.text(format_args!("{}: {} at {}", series.name, number(*y), number(*x)));
        html.markup("</title></circle>");
    }
    html.markup("\n");
}

fn class_of(index: usize) -> &'static str {
    const CLASSES: [&str; 4] = ["line s0", "line s1", "line s2", "line s3"];
    CLASSES[index % CLASSES.len()]
}

fn line(html: &mut Html, class: &'static str, from: (f64, f64), to: (f64, f64)) {
    html.open(
        "line",
        &[
            ("class", &class),
            ("x1", &px(from.0)),
            ("y1", &px(from.1)),
            ("x2", &px(to.0)),
            ("y2", &px(to.1)),
        ],
    );
    html.markup("</line>\n");
}

fn words(html: &mut Html, class: &str, anchor: &str, at: (f64, f64), text: impl Display) {
    let (x, y) = (px(at.0), px(at.1));
    let attributes: super::Attributes<'_> =
        &[("class", &class), ("text-anchor", &anchor), ("x", &x), ("y", &y)];
    html.element("text", attributes, text).markup("\n");
}

fn group_size(points: usize) -> usize {
    points.div_ceil(MAX_POINTS).max(1)
}

/// Finite points of a series, averaged in groups where there are too many.
fn downsampled(series: &Series) -> Series {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    let points: Vec<(f64, f64)> = series.points.iter().filter(finite).copied().collect();
    let mean = |group: &[(f64, f64)]| {
        let count = group.len().max(1) as f64;
        let sum = group.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / count, sum.1 / count)
    };
    // Groups as even as can be: a last group of one point would end the line in noise.
    let groups = points.len().div_ceil(group_size(points.len()));
    let bound = |group: usize| group * points.len() / groups.max(1);
    let points = (0..groups).map(|group| mean(&points[bound(group)..bound(group + 1)])).collect();
    Series { name: series.name.clone(), points }
}

/// Plot area: both axes, and the left edge, which leaves room for the tick labels.
struct PlotArea {
    x: Axis,
    y: Axis,
    left: f64,
}

impl PlotArea {
    fn new(x: Axis, y: Axis) -> Self {
        let longest = y.ticks.iter().map(|t| y.name(*t).len()).max().unwrap_or(0);
        Self { x, y, left: 28.0 + 7.5 * longest as f64 }
    }

    fn x(&self, value: f64) -> f64 {
        self.left + self.x.share(value) * (WIDTH - self.left - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.y.share(value)) * (HEIGHT - TOP - BOTTOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(chart: &Chart) -> String {
        let mut html = Html::new();
        chart.write(&mut html);
        html.into_string()
    }

    #[test]
    fn a_chart_without_finite_points_says_so() {
        let series = Series { name: "loss".to_owned(), points: vec![(0.0, f64::NAN)] };
        let empty = drawn(&Chart { series: vec![series], ..Chart::default() });
        assert!(empty.contains("Nothing was recorded"));
        assert!(!empty.contains("<svg"));
    }

    #[test]
    fn values_that_are_not_finite_are_left_out() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 2.0)];
        let chart = Chart {
            series: vec![Series { name: "loss".to_owned(), points }],
            reference: Some(ReferenceLine { label: "chance".to_owned(), value: f64::NAN }),
            ..Chart::default()
        };
        let html = drawn(&chart);
        assert_eq!(html.matches("<circle").count(), 2);
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn long_series_are_averaged_and_the_reader_is_told() {
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thin = downsampled(&Series { name: String::new(), points: points.clone() });
        assert!(thin.points.len() <= MAX_POINTS);
        assert!(thin.points.iter().all(|(_, y)| (0.4..=0.6).contains(y)));
        let series = vec![Series { name: "loss".to_owned(), points }];
        assert!(drawn(&Chart { series, ..Chart::default() }).contains("mean of up to 9 records"));
    }

    #[test]
    fn every_point_lies_inside_the_plot() {
        let area = PlotArea::new(
            Axis::around([3.0, 700.0].into_iter(), 6).unwrap(),
            Axis::around([0.1, 9.7].into_iter(), 5).unwrap(),
        );
        assert!(area.x(3.0) >= area.left && area.x(700.0) <= WIDTH - RIGHT);
        assert!(area.y(9.7) >= TOP && area.y(0.1) <= HEIGHT - BOTTOM);
        assert!(area.y(9.7) < area.y(0.1));
    }
}
