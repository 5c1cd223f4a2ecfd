//! VQA section of a report: accuracy before and after tuning, and sample answers.

use super::html::{EmbeddedImage, Html};

/// VQA accuracy of a model in percent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccuracyByType {
    /// Over all questions; `None` if no right answer is known.
    pub all: Option<f64>,
    /// By kind of question, in an order shared by all models; `None` for a kind without questions.
    pub by_type: Vec<(String, Option<f64>)>,
    /// Upper bound: accuracy of always choosing the best candidate, if right answers are known.
    pub reachable: Option<f64>,
}

/// Test question with its answers.
#[derive(Debug, Clone)]
pub struct AnswerRow {
    /// The image, or the first frame of the clip.
    pub image: EmbeddedImage,
    /// The question.
    pub question: String,
    /// Right answers; may be empty if unknown.
    pub right: String,
    /// Answer before tuning, and its score if known.
    pub baseline: (String, Option<f64>),
    /// Answer after tuning, and its score if known.
    pub tuned: (String, Option<f64>),
}

/// Writes the table of accuracy.
pub(super) fn write_table(
    html: &mut Html,
    baseline: &AccuracyByType,
    tuned: &AccuracyByType,
    test: &str,
) {
    html.markup("<section>\n<h2>Accuracy of baseline and tuned model</h2>\n")
        .markup("<p class=\"note\">The mean score of the answers to test questions, in percent. ")
        .markup("Reachable is what the best of the answers to choose from would score. ")
        .text(test)
        .markup("</p>\n")
        .markup("<div class=\"scroll\" tabindex=\"0\" role=\"region\" ")
        .markup("aria-label=\"Accuracy of baseline and tuned model\">")
        .markup("<table class=\"recall\"><thead>\n<tr><td></td>");
    let kinds = tuned.by_type.iter().map(|(kind, _)| kind.as_str());
    for heading in std::iter::once("all").chain(kinds).chain(["reachable"]) {
        html.element("th", &[("scope", &"col")], heading);
    }
    html.markup("</tr></thead><tbody>\n");
    write_accuracy(html, "plain", "baseline", baseline);
    write_accuracy(html, "strong", "tuned", tuned);
    html.markup("</tbody></table></div>\n</section>\n");
}

fn write_accuracy(html: &mut Html, class: &str, name: &str, accuracy: &AccuracyByType) {
    html.open("tr", &[("class", &class)]).element("th", &[("scope", &"row")], name);
    let kinds = accuracy.by_type.iter().map(|(_, value)| *value);
    let values = std::iter::once(accuracy.all).chain(kinds).chain([accuracy.reachable]);
    for value in values {
        html.markup("<td>");
        match value {
            Some(value) => html.text(format_args!("{value:.1}")),
            None => html.text("-"),
        };
        html.markup("</td>");
    }
    html.markup("</tr>\n");
}

/// Writes sample questions with their images and answers.
pub(super) fn write_answers(html: &mut Html, rows: &[AnswerRow]) {
    if rows.is_empty() {
        return;
    }
    html.markup("<section>\n<h2>How test questions are answered</h2>\n")
        .markup("<p class=\"note\">Evenly spaced over the test questions, not chosen by how they ")
        .markup("fared. A right answer has a <span class=\"badge\">✓</span> mark.</p>\n");
    for row in rows {
        html.markup("<article class=\"caption\">\n<h3>").foreign(&row.question);
        html.markup("</h3>\n<ol class=\"hits\">\n<li>");
        row.image.write(html, format_args!("{}", row.image.name));
        html.markup("</li>\n</ol>\n<div class=\"sides\">\n");
        write_answer(html, "baseline", &row.baseline);
        write_answer(html, "tuned", &row.tuned);
        if !row.right.is_empty() {
            html.open("div", &[("class", &"side")]).element("h4", &[], "right");
            html.markup("<p>").foreign(&row.right);
            html.markup("</p></div>\n");
        }
        html.markup("</div>\n</article>\n");
    }
    html.markup("</section>\n");
}

fn write_answer(html: &mut Html, side: &'static str, (answer, score): &(String, Option<f64>)) {
    html.open("div", &[("class", &"side")]).element("h4", &[], side);
    html.markup("<p>").foreign(answer);
    match score {
        Some(score) if *score >= 1.0 => html.markup(" <span class=\"badge\">✓</span>"),
        Some(score) if *score > 0.0 => {
            html.markup(" <span class=\"score\">").text(format_args!("{score:.2}"));
            html.markup("</span>")
        }
        _ => html.markup(""),
    };
    html.markup("</p></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</title></pre><script>alert(\"1\")</script> ' onerror='x'";

    #[test]
    fn no_foreign_text_becomes_markup_and_right_answers_are_marked() {
        let image = EmbeddedImage::new(HOSTILE, &[0xff, 0xd8, 0xff, 0xe0]).unwrap();
        let row = AnswerRow {
            image,
            question: HOSTILE.to_owned(),
            right: HOSTILE.to_owned(),
            baseline: (HOSTILE.to_owned(), Some(0.0)),
            tuned: (HOSTILE.to_owned(), Some(1.0)),
        };
        let accuracy = AccuracyByType {
            all: Some(12.345),
            by_type: vec![(HOSTILE.to_owned(), Some(1.0)), ("number".to_owned(), None)],
            reachable: None,
        };
        let mut html = Html::new();
        write_table(&mut html, &accuracy, &accuracy, HOSTILE);
        write_answers(&mut html, &[row]);
        let page = html.into_string();
        assert!(!page.contains("<script") && !page.contains("' onerror="), "{page}");
        assert_eq!(page.matches("<td>12.3</td>").count(), 2);
        assert_eq!(page.matches("<td>-</td>").count(), 4);
        // Once in the note, once at the right answer.
        assert_eq!(page.matches("class=\"badge\"").count(), 2);
    }
}
