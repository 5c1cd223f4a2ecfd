//! Page of a dataset check: counts, histograms, lists and sample images.

use aurora_data::check::{DuplicateGroup, MIN_SIDE, Report};

use super::html::{EmbeddedImage, Html};
use crate::output::{count, share};

/// Maximum lines of a list; check.json has all.
const MAX_LISTED: usize = 100;

/// Sample image with its texts.
#[derive(Debug, Clone)]
pub struct CheckSample {
    /// The image, under its name.
    pub image: EmbeddedImage,
    /// Captions, or a question with its answers.
    pub words: Vec<String>,
}

/// Content of the page of a dataset check.
#[derive(Debug, Clone)]
pub struct CheckPage {
    /// Report of the check.
    pub report: Report,
    /// Sample images.
    pub shown: Vec<CheckSample>,
}

impl CheckPage {
    /// Renders the complete HTML file.
    pub fn render(&self) -> String {
        let report = &self.report;
        let mut html = Html::new();
        html.markup("<header>\n<p class=\"title\">Data</p>\n<h1>");
        html.foreign(report.paths.join(", ")).markup("</h1>\n<p class=\"lede\">");
        html.text(format_args!(
            "{} images and {} clips with {} captions and {} questions; {} problems that would end \
             a training.",
            count(report.images as u64),
            count(report.clips as u64),
            count(report.captions as u64),
            count(report.questions as u64),
            count(report.problems.len() as u64),
        ));
        html.markup("</p>\n</header>\n");
        self.write_parts(&mut html);
        let problems = report.problems.iter().map(ToString::to_string);
        write_list(&mut html, "Problems", problems);
        let leaks = &report.same_image.leaks;
        write_list(&mut html, "The same image in two splits", leaks.iter().map(members));
        let leaks = &report.same_caption.leaks;
        write_list(&mut html, "The same caption in two splits", leaks.iter().map(words));
        let doubles = &report.same_image.duplicates;
        write_list(&mut html, "Files that are there several times", doubles.iter().map(members));
        let doubles = &report.same_caption.duplicates;
        write_list(&mut html, "Captions of several images", doubles.iter().map(words));
        let tiny = report.tiny.iter().map(|t| format!("{}: {} x {}", t.what, t.width, t.height));
        write_list(&mut html, "Tiny images", tiny);
        self.write_histograms(&mut html);
        self.write_scripts(&mut html);
        html.markup("<h2>Some of the images</h2>\n<ol class=\"found\">\n");
        for shown in &self.shown {
            html.markup("<li>");
            shown.image.write(&mut html, shown.words.join("; "));
            html.markup("<p class=\"name\">").foreign(&shown.image.name).markup("</p>");
            for words in &shown.words {
                html.markup("<p class=\"note\">").foreign(words).markup("</p>");
            }
            html.markup("</li>\n");
        }
        html.markup("</ol>\n");
        super::document(&format!("Data: {}", report.paths.join(", ")), &html)
    }

    fn write_parts(&self, html: &mut Html) {
        let rows = self.report.parts.iter().map(|(name, part)| {
            let numbers = [part.samples, part.captions, part.questions].map(|n| count(n as u64));
            std::iter::once(name.clone()).chain(numbers).collect::<Vec<_>>()
        });
        write_table(html, "What there is", &["split", "samples", "captions", "questions"], rows);
    }

    fn write_histograms(&self, html: &mut Html) {
        let lengths = &self.report.lengths;
        let title = format!(
            "Lengths of texts in tokens; {} of {} are longer than {} and cut",
            count(lengths.cut as u64),
            count(lengths.texts() as u64),
            lengths.limit
        );
        let columns = lengths.histogram.iter().map(|(length, &n)| (length.to_string(), n));
        write_histogram(html, &title, "tokens", columns.collect());
        let columns = self.report.sizes.shorter_side.iter().map(|bin| {
            let name = match bin.to {
                Some(to) => format!("{} to {}", bin.from, to - 1),
                None => format!("{} and more", bin.from),
            };
            (name, bin.count)
        });
        let title =
            format!("Shorter sides of images in pixels; below {MIN_SIDE} little is to be seen");
        write_histogram(html, &title, "pixels", columns.collect());
    }

    fn write_scripts(&self, html: &mut Html) {
        let unknown = &self.report.unknown;
        let title = format!(
            "Words by script; {} of all tokens are outside of the vocabulary",
            share(unknown.unknown as u64, unknown.tokens as u64)
        );
        let rows = unknown.scripts.iter().map(|script| {
            vec![
                script.script.clone(),
                count(script.words as u64),
                count(script.tokens as u64),
                share(script.unknown as u64, script.tokens as u64),
            ]
        });
        write_table(html, &title, &["script", "words", "tokens", "[UNK]"], rows);
    }
}

fn members(group: &DuplicateGroup) -> String {
    group.members.join(" = ")
}

fn words(group: &DuplicateGroup) -> String {
    format!("\u{201c}{}\u{201d}: {}", group.shared, members(group))
}

/// Writes a list under its heading; nothing if it is empty.
fn write_list(html: &mut Html, heading: &str, lines: impl ExactSizeIterator<Item = String>) {
    if lines.len() == 0 {
        return;
    }
    let all = lines.len();
    html.element("h2", &[], format_args!("{heading} ({})", count(all as u64))).markup("\n<ul>\n");
    for line in lines.take(MAX_LISTED) {
        html.markup("<li>").foreign(line).markup("</li>\n");
    }
    html.markup("</ul>\n");
    if all > MAX_LISTED {
        let more = count((all - MAX_LISTED) as u64);
        html.element("p", &[("class", &"note")], format_args!("{more} more are in check.json."));
    }
}

fn write_table(
    html: &mut Html,
    title: &str,
    headings: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) {
    html.element("h2", &[], title).markup("\n<table class=\"numbers\"><thead><tr>");
    for heading in headings {
        html.element("th", &[("scope", &"col")], heading);
    }
    html.markup("</tr></thead><tbody>\n");
    for row in rows {
        html.markup("<tr>");
        for cell in row {
            html.markup("<td>").foreign(cell).markup("</td>");
        }
        html.markup("</tr>\n");
    }
    html.markup("</tbody></table>\n");
}

/// Writes a histogram as a table with a bar in each row.
fn write_histogram(html: &mut Html, title: &str, unit: &str, columns: Vec<(String, usize)>) {
    let most = columns.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    html.element("h2", &[], title).markup("\n<table class=\"numbers\"><thead><tr>");
    html.element("th", &[("scope", &"col")], unit);
    html.markup("<th scope=\"col\">count</th><th></th></tr></thead><tbody>\n");
    for (name, number) in columns {
        html.markup("<tr><td>").text(name).markup("</td><td>").text(count(number as u64));
        html.markup("</td><td><svg viewBox=\"0 0 100 6\" width=\"200\" height=\"12\" ");
        html.markup("aria-hidden=\"true\">");
        let width = format!("{:.1}", 100.0 * number as f64 / most as f64);
        html.open("rect", &[("width", &width), ("height", &"6"), ("fill", &"currentColor")]);
        html.markup("</rect></svg></td></tr>\n");
    }
    html.markup("</tbody></table>\n");
}
