//! Search page: the query and the images found.

use super::html::{EmbeddedImage, Html};

/// Image found by a search.
#[derive(Debug, Clone)]
pub struct SearchHit {
    /// The image, under its own name.
    pub image: EmbeddedImage,
    /// Its caption if the images have captions, else empty.
    pub caption: String,
    /// Scores by name, the ranking score first.
    pub scores: Vec<(String, f64)>,
}

/// Content of a search page.
#[derive(Debug, Clone, Default)]
pub struct SearchPage {
    /// The query.
    pub query: String,
    /// Model and adapter that ranked the images.
    pub model: String,
    /// Source of the images.
    pub images: String,
    /// Number of images searched.
    pub searched: usize,
    /// Top images, best first.
    pub hits: Vec<SearchHit>,
}

impl SearchPage {
    /// Renders the complete HTML file.
    pub fn render(&self) -> String {
        let mut html = Html::new();
        html.markup("<header>\n<p class=\"title\">Search</p>\n<h1>").foreign(&self.query);
        html.markup("</h1>\n<p class=\"lede\">The best ").text(self.hits.len());
        html.markup(" of ").text(self.searched).markup(" images from ").foreign(&self.images);
        html.markup(", ranked by ").foreign(&self.model).markup(".</p>\n</header>\n");
        if self.hits.is_empty() {
            html.markup("<p class=\"empty\">No image was found.</p>\n");
        }
        html.markup("<ol class=\"found\">\n");
        for (index, hit) in self.hits.iter().enumerate() {
            write_hit(&mut html, index + 1, hit);
        }
        html.markup("</ol>\n");
        super::document(&format!("Search: {}", self.query), &html)
    }
}

fn write_hit(html: &mut Html, rank: usize, hit: &SearchHit) {
    html.markup("<li>");
    let words = if hit.caption.is_empty() { &hit.image.name } else { &hit.caption };
    hit.image.write(html, format_args!("Rank {rank}: {words}"));
    html.element("span", &[("class", &"rank")], rank);
    html.markup("<p class=\"name\">").foreign(&hit.image.name).markup("</p>");
    if !hit.caption.is_empty() && hit.caption != hit.image.name {
        html.markup("<p class=\"note\">").foreign(&hit.caption).markup("</p>");
    }
    html.markup("<p class=\"score\">");
    for (name, score) in &hit.scores {
        html.element("span", &[], format_args!("{name} {score:.3}")).markup(" ");
    }
    html.markup("</p></li>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_names_and_captions_are_escaped() {
        let hostile = "<img src=x onerror=alert(1)>&\"'";
        let page = SearchPage {
            query: hostile.to_owned(),
            model: hostile.to_owned(),
            images: hostile.to_owned(),
            searched: 7,
            hits: vec![SearchHit {
                image: EmbeddedImage::new(hostile, &[0x89, b'P', b'N', b'G']).unwrap(),
                caption: format!("{hostile} too"),
                scores: vec![(hostile.to_owned(), 0.5)],
            }],
        }
        .render();
        assert!(!page.contains("<img src=x"));
        assert_eq!(page.matches("<img ").count(), 1);
        assert!(page.contains("The best 1 of 7 images"));
    }

    #[test]
    fn nothing_found_is_said() {
        assert!(SearchPage::default().render().contains("No image was found."));
    }
}
