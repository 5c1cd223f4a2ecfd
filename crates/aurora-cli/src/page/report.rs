//! Report page of a run: model, gain, curves and retrieved examples.

use super::answers::{AccuracyByType, AnswerRow, write_answers, write_table};
use super::chart::Chart;
use super::html::{EmbeddedImage, Html};

/// Recall at 1, 5 and 10 in percent, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RecallAtK {
    /// Image-to-text recall: from an image to its captions.
    pub image_to_text: [f64; 3],
    /// Text-to-image recall: from a caption to its images.
    pub text_to_image: [f64; 3],
}

impl RecallAtK {
    /// Mean recall: the mean of the six numbers, by which the best step of a run is selected.
    pub fn mean(&self) -> f64 {
        self.image_to_text.iter().chain(&self.text_to_image).sum::<f64>() / 6.0
    }
}

/// Gain of a run in the metrics of its task.
#[derive(Debug, Clone, PartialEq)]
pub enum Gain {
    /// Retrieval recall.
    Recall {
        /// Backbone before tuning.
        baseline: RecallAtK,
        /// Backbone with the trained adapter.
        tuned: RecallAtK,
        /// Random baseline: expected recall of a random ranking.
        random_baseline: Option<RecallAtK>,
    },
    /// VQA accuracy.
    Accuracy {
        /// Backbone before tuning.
        baseline: AccuracyByType,
        /// Backbone with the trained adapter.
        tuned: AccuracyByType,
    },
}

impl Default for Gain {
    fn default() -> Self {
        Self::Recall {
            baseline: RecallAtK::default(),
            tuned: RecallAtK::default(),
            random_baseline: None,
        }
    }
}

/// One labeled fact about the run.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Label, such as `Trainable parameters`.
    pub label: String,
    /// Value with its unit.
    pub value: String,
    /// Short note that puts the value in proportion; may be empty.
    pub note: String,
}

/// Retrieved image.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The image.
    pub image: EmbeddedImage,
    /// Ranking score.
    pub score: f64,
    /// True if it is an image of the caption's own concept.
    pub right: bool,
}

/// Test caption with the images it retrieved, best first.
#[derive(Debug, Clone)]
pub struct CaptionRow {
    /// The caption.
    pub caption: String,
    /// Top images before tuning.
    pub baseline: Vec<Hit>,
    /// Top images after tuning.
    pub tuned: Vec<Hit>,
    /// Rank (from 1) of the best right image before tuning, if it was ranked.
    pub rank_baseline: Option<usize>,
    /// Rank (from 1) of the best right image after tuning, if it was ranked.
    pub rank_tuned: Option<usize>,
}

/// Content of a report page.
#[derive(Debug, Clone, Default)]
pub struct ReportPage {
    /// Name of the run, in the browser's tab and above the headline.
    pub title: String,
    /// One or two sentences: which model, which adapter, which images.
    pub tuned: String,
    /// Test set, in one sentence. May be empty.
    pub test: String,
    /// Metrics before and after tuning.
    pub gain: Gain,
    /// Sizes, times, the seed.
    pub facts: Vec<Fact>,
    /// Training curves.
    pub charts: Vec<Chart>,
    /// Test captions with what they retrieved.
    pub captions: Vec<CaptionRow>,
    /// Test questions with their answers.
    pub answers: Vec<AnswerRow>,
    /// Resolved configuration (TOML), to repeat the run with. May be empty.
    pub config: String,
}

impl ReportPage {
    /// Renders the complete HTML file.
    pub fn render(&self) -> String {
        let mut html = Html::new();
        self.write_header(&mut html);
        self.write_table(&mut html);
        self.write_facts(&mut html);
        self.write_charts(&mut html);
        self.write_captions(&mut html);
        write_answers(&mut html, &self.answers);
        if !self.config.is_empty() {
            html.markup("<section>\n<h2>Configuration</h2>\n<details><summary>");
            html.markup("As resolved for this run; <code>config.toml</code> holds the same");
            html.markup("</summary>\n<pre tabindex=\"0\">").text(&self.config);
            html.markup("</pre></details>\n</section>\n");
        }
        super::document(&self.title, &html)
    }

    fn write_header(&self, html: &mut Html) {
        let headline = match &self.gain {
            Gain::Recall { baseline, tuned, .. } => {
                headline("Mean recall", baseline.mean(), tuned.mean())
            }
            Gain::Accuracy { baseline, tuned } => match (baseline.all, tuned.all) {
                (Some(baseline), Some(tuned)) => headline("Accuracy", baseline, tuned),
                _ => "No right answers are known to the test questions".to_owned(),
            },
        };
        html.markup("<header>\n");
        html.element("p", &[("class", &"title")], &self.title);
        html.element("h1", &[], headline);
        html.element("p", &[("class", &"lede")], &self.tuned);
        html.markup("</header>\n");
    }

    fn write_table(&self, html: &mut Html) {
        let (baseline, tuned, random_baseline) = match &self.gain {
            Gain::Recall { baseline, tuned, random_baseline } => (baseline, tuned, random_baseline),
            Gain::Accuracy { baseline, tuned } => {
                return write_table(html, baseline, tuned, &self.test);
            }
        };
        html.markup("<section>\n<h2>Recall of baseline and tuned model</h2>\n")
            .markup("<p class=\"note\">The share of test queries, in percent, with a right answer ")
            .markup("among the first 1, 5 or 10. ")
            .text(&self.test)
            .markup("</p>\n")
            .markup("<div class=\"scroll\" tabindex=\"0\" role=\"region\" ")
            .markup("aria-label=\"Recall of baseline and tuned model\">")
            .markup("<table class=\"recall\"><thead>\n<tr><td></td>")
            .markup("<th colspan=\"3\" scope=\"colgroup\">image to text</th>")
            .markup("<th colspan=\"3\" scope=\"colgroup\">text to image</th>")
            .markup("<th rowspan=\"2\" scope=\"col\" class=\"mean\">mean</th></tr>\n<tr><td></td>");
        for _ in 0..2 {
            for k in ["R@1", "R@5", "R@10"] {
                html.element("th", &[("scope", &"col")], k);
            }
        }
        html.markup("</tr></thead><tbody>\n");
        if let Some(random_baseline) = random_baseline {
            write_recall(html, "quiet", "by chance", random_baseline);
        }
        write_recall(html, "plain", "baseline", baseline);
        write_recall(html, "strong", "tuned", tuned);
        html.markup("</tbody></table></div>\n</section>\n");
    }

    fn write_facts(&self, html: &mut Html) {
        if self.facts.is_empty() {
            return;
        }
        html.markup("<section>\n<h2>The run</h2>\n<dl class=\"facts\">\n");
        for fact in &self.facts {
            html.markup("<div>");
            html.element("dt", &[], &fact.label).element("dd", &[], &fact.value);
            if !fact.note.is_empty() {
                html.element("dd", &[("class", &"note")], &fact.note);
            }
            html.markup("</div>\n");
        }
        html.markup("</dl>\n</section>\n");
    }

    fn write_charts(&self, html: &mut Html) {
        if self.charts.is_empty() {
            return;
        }
        html.markup("<section>\n<h2>Curves</h2>\n<div class=\"charts\">\n");
        for chart in &self.charts {
            chart.write(html);
        }
        html.markup("</div>\n</section>\n");
    }

    fn write_captions(&self, html: &mut Html) {
        if self.captions.is_empty() {
            return;
        }
        html.markup("<section>\n<h2>What test captions find</h2>\n")
            .markup("<p class=\"note\">The best images for a caption, best first, with the score ")
            .markup("they were ranked by. A right image has a double frame and a ")
            .markup("<span class=\"badge\">✓</span> mark.</p>\n");
        for row in &self.captions {
            html.markup("<article class=\"caption\">\n<h3>").foreign(&row.caption);
            html.markup("</h3>\n<div class=\"sides\">\n");
            write_hits(html, "baseline", &row.baseline, row.rank_baseline);
            write_hits(html, "tuned", &row.tuned, row.rank_tuned);
            html.markup("</div>\n</article>\n");
        }
        html.markup("</section>\n");
    }
}

/// Gain in a sentence that stays true when there is none.
fn headline(what: &str, baseline: f64, tuned: f64) -> String {
    let change = tuned - baseline;
    if change.abs() < 0.05 {
        return format!("{what} stayed at {tuned:.1}\u{a0}%");
    }
    let verb = if change > 0.0 { "rose" } else { "fell" };
    let mut text = format!("{what} {verb} from {baseline:.1}\u{a0}% to {tuned:.1}\u{a0}%");
    if change > 0.0 && baseline > 0.0 {
        text += &format!(", {:.1} times as much", tuned / baseline);
    }
    text
}

fn write_recall(html: &mut Html, class: &str, name: &str, recall: &RecallAtK) {
    html.open("tr", &[("class", &class)]).element("th", &[("scope", &"row")], name);
    for value in recall.image_to_text.iter().chain(&recall.text_to_image) {
        html.markup("<td>").text(format_args!("{value:.1}")).markup("</td>");
    }
    html.markup("<td class=\"mean\">").text(format_args!("{:.1}", recall.mean()));
    html.markup("</td></tr>\n");
}

fn write_hits(html: &mut Html, side: &'static str, hits: &[Hit], rank: Option<usize>) {
    html.open("div", &[("class", &"side")]).element("h4", &[], side);
    html.markup("<p class=\"note\">");
    match rank {
        Some(rank) => html.markup("right image at rank ").text(rank),
        None => html.markup("right image not among the candidates"),
    };
    html.markup("</p>");
    html.markup("<ol class=\"hits\">\n");
    for (index, hit) in hits.iter().enumerate() {
        let rank = index + 1;
        html.open("li", &[("class", if hit.right { &"right" } else { &"wrong" })]);
        let verdict = if hit.right { "right" } else { "not the right one" };
        hit.image.write(html, format_args!("Rank {rank}: {}, {verdict}", hit.image.name));
        if hit.right {
            html.markup("<span class=\"badge\" aria-hidden=\"true\">✓</span>");
        }
        html.markup("<span class=\"score\">").text(format_args!("{:.3}", hit.score));
        html.markup("</span></li>\n");
    }
    html.markup("</ol></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</title></pre><script>alert(\"1\")</script> ' onerror='x' \u{202e}abc";

    fn recall(base: f64) -> RecallAtK {
        RecallAtK {
            image_to_text: [base, 2.0 * base, 3.0 * base],
            text_to_image: [base, 2.0 * base, 3.0 * base],
        }
    }

    fn hit(right: bool) -> Hit {
        let image = EmbeddedImage::new(HOSTILE, &[0xff, 0xd8, 0xff, 0xe0]).unwrap();
        Hit { image, score: 0.25, right }
    }

    fn hostile_page() -> ReportPage {
        ReportPage {
            title: HOSTILE.to_owned(),
            tuned: HOSTILE.to_owned(),
            test: HOSTILE.to_owned(),
            gain: Gain::Recall {
                baseline: recall(1.0),
                tuned: recall(3.0),
                random_baseline: Some(recall(0.1)),
            },
            facts: vec![Fact {
                label: HOSTILE.to_owned(),
                value: HOSTILE.to_owned(),
                note: HOSTILE.to_owned(),
            }],
            charts: vec![Chart {
                title: HOSTILE.to_owned(),
                note: HOSTILE.to_owned(),
                x_label: HOSTILE.to_owned(),
                y_label: HOSTILE.to_owned(),
                series: vec![super::super::Series {
                    name: HOSTILE.to_owned(),
                    points: vec![(0.0, 1.0), (1.0, 2.0)],
                }],
                reference: Some(super::super::ReferenceLine {
                    label: HOSTILE.to_owned(),
                    value: 1.0,
                }),
                highlight: Some(super::super::Highlight {
                    label: HOSTILE.to_owned(),
                    at: (1.0, 2.0),
                }),
            }],
            captions: vec![CaptionRow {
                caption: HOSTILE.to_owned(),
                baseline: vec![hit(false), hit(true)],
                tuned: vec![hit(true), hit(false)],
                rank_baseline: Some(2),
                rank_tuned: Some(1),
            }],
            answers: Vec::new(),
            config: HOSTILE.to_owned(),
        }
    }

    #[test]
    fn no_foreign_text_becomes_markup() {
        let page = hostile_page().render();
        assert!(!page.contains("<script"));
        assert!(!page.contains("' onerror="));
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)"));
        // One document: the tags that a caption could have closed are closed once.
        assert_eq!(page.matches("</title></head>").count() + page.matches("</head>").count(), 1);
        assert_eq!(page.matches("</pre>").count(), 1);
    }

    #[test]
    fn the_page_fetches_nothing() {
        let page = hostile_page().render();
        for source in ["http://", "https://", "src=\"//", "@import", "url("] {
            assert!(!page.contains(source), "{source}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn right_images_are_told_by_more_than_color() {
        let page = hostile_page().render();
        assert_eq!(page.matches("<li class=\"right\">").count(), 2);
        assert_eq!(page.matches("aria-hidden=\"true\">✓").count(), 2);
        assert_eq!(page.matches(", right\"").count(), 2);
        assert!(page.contains("right image at rank 2"));
    }

    #[test]
    fn the_headline_is_true_whatever_happened() {
        // Non-breaking spaces before the signs.
        let headline =
            |baseline, tuned| headline("Mean recall", baseline, tuned).replace('\u{a0}', " ");
        assert_eq!(headline(4.0, 10.0), "Mean recall rose from 4.0 % to 10.0 %, 2.5 times as much");
        assert_eq!(headline(10.0, 4.0), "Mean recall fell from 10.0 % to 4.0 %");
        assert_eq!(headline(0.0, 4.0), "Mean recall rose from 0.0 % to 4.0 %");
        assert_eq!(headline(4.0, 4.01), "Mean recall stayed at 4.0 %");
    }

    #[test]
    fn a_page_without_captions_or_curves_is_still_a_page() {
        let page = ReportPage { title: "empty".to_owned(), ..ReportPage::default() }.render();
        assert!(page.contains("<h1>Mean recall stayed at 0.0\u{a0}%</h1>"));
        assert!(!page.contains("<h2>Curves</h2>") && !page.contains("Configuration"));
    }
}
