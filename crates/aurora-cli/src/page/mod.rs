//! Self-contained HTML pages: report of a run, search results and dataset check.
//!
//! A page is one file that can be mailed or opened years later: the style sheet, the charts
//! (drawn here as SVG) and the images (data URIs) are all inside it, there is no script, and a
//! content security policy tells the browser to fetch nothing. The input types are plain data, so
//! pages are made and tested without a model.

mod answers;
mod axis;
mod chart;
mod check;
mod html;
mod report;
mod search;

pub use answers::{AccuracyByType, AnswerRow};
pub use chart::{Chart, Highlight, ReferenceLine, Series};
pub use check::{CheckPage, CheckSample};
pub use html::{Attributes, EmbeddedImage, Html};
pub use report::{CaptionRow, Fact, Gain, Hit, RecallAtK, ReportPage};
pub use search::{SearchHit, SearchPage};

/// Wraps a page's body in the document shared by all pages.
fn document(title: &str, body: &Html) -> String {
    let mut html = Html::new();
    html.markup("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
        .markup("<meta name=\"color-scheme\" content=\"light dark\">\n")
        .markup("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; ")
        .markup("img-src data:; style-src 'unsafe-inline'\">\n<title>")
        .text(title)
        .markup("</title>\n<style>\n")
        .markup(include_str!("style.css"))
        .markup("</style>\n</head>\n<body>\n<main>\n")
        .append(body)
        .markup("</main>\n</body>\n</html>\n");
    html.into_string()
}
