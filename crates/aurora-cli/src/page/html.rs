//! HTML writer that escapes by construction.
//!
//! Markup comes only as `&'static str`, that is, from this program's own source; everything that a
//! user, a file or a number brings goes through [`Html::text`] or an attribute value and is
//! escaped there. A caption such as `</td><script>` therefore ends up as letters on the page,
//! whichever page wrote it.

use std::fmt::Display;

/// An HTML (or inline SVG) fragment under construction.
#[derive(Debug, Default, Clone)]
pub struct Html {
    out: String,
}

/// Attributes of one element: names from this source, values from anywhere.
pub type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Html {
    /// An empty fragment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends markup written in this program's source.
    pub fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Appends text, escaped.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        escape_into(&text.to_string(), &mut self.out);
        self
    }

    /// Appends text that somebody else wrote, escaped and isolated in `<bdi>`, so that letters which switch the
    /// writing direction do not reorder the words around it.
    pub fn foreign(&mut self, text: impl Display) -> &mut Self {
        self.markup("<bdi>").text(text).markup("</bdi>")
    }

    /// Opens an element: `<name key="value" ..>`.
    pub fn open(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            self.out.push(' ');
            self.out.push_str(key);
            self.out.push_str("=\"");
            escape_into(&value.to_string(), &mut self.out);
            self.out.push('"');
        }
        self.out.push('>');
        self
    }

    /// Closes an element: `</name>`.
    pub fn close(&mut self, name: &'static str) -> &mut Self {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
        self
    }

    /// A whole element around escaped text.
    pub fn element(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        text: impl Display,
    ) -> &mut Self {
        self.open(name, attributes).text(text).close(name)
    }

    /// Appends a finished fragment.
    pub fn append(&mut self, other: &Html) -> &mut Self {
        self.out.push_str(&other.out);
        self
    }

    /// The text of the fragment.
    pub fn as_str(&self) -> &str {
        &self.out
    }

    /// The fragment as an owned string.
    pub fn into_string(self) -> String {
        self.out
    }
}

/// Escapes for element content and for double-quoted attribute values alike. Control characters are not allowed in
/// HTML and become U+FFFD, line breaks and tabs excepted.
fn escape_into(text: &str, out: &mut String) {
    out.reserve(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            other if other.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
}

/// Encoded image, embedded in a page.
#[derive(Debug, Clone)]
pub struct EmbeddedImage {
    /// Display name: a file name or the name of an emoji.
    pub name: String,
    /// Data URI, `data:image/..;base64,..`.
    uri: String,
}

impl EmbeddedImage {
    /// Wraps the bytes of a PNG, JPEG or WebP file; the type is read from the bytes themselves. `None` for any other
    /// type, which a browser might not show.
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Option<Self> {
        let kind = match bytes {
            [0x89, b'P', b'N', b'G', ..] => "png",
            [0xff, 0xd8, 0xff, ..] => "jpeg",
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
            _ => return None,
        };
        Some(Self { name: name.into(), uri: format!("data:image/{kind};base64,{}", base64(bytes)) })
    }

    /// Writes the `<img>` with its alternative text.
    pub fn write(&self, html: &mut Html, alternative: impl Display) {
        html.open(
            "img",
            &[
                ("src", &self.uri),
                ("alt", &alternative),
                ("title", &self.name),
                ("decoding", &"async"),
            ],
        );
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group
            .iter()
            .enumerate()
            .fold(0u32, |word, (i, &b)| word | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            // A group of n bytes has n + 1 letters; the rest is padding.
            if i <= group.len() {
                out.push(char::from(LETTERS[(word >> (18 - 6 * i)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn text_and_attributes_are_escaped() {
        let mut html = Html::new();
        html.element("p", &[("title", &"\"><script>")], "a < b & 'c'\u{0}");
        assert_eq!(
            html.as_str(),
            "<p title=\"&quot;&gt;&lt;script&gt;\">a &lt; b &amp; &#39;c&#39;\u{fffd}</p>"
        );
    }

    #[test]
    fn an_image_is_known_by_its_bytes() {
        assert!(EmbeddedImage::new("a", b"<svg onload='x'>").is_none());
        assert!(EmbeddedImage::new("a", b"").is_none());
        assert!(EmbeddedImage::new("a", b"RIFF....WEBPVP8 ").is_some());
        let mut html = Html::new();
        EmbeddedImage::new("\"x", &[0xff, 0xd8, 0xff, 0xe0]).unwrap().write(&mut html, "<alt>");
        assert_eq!(
            html.as_str(),
            "<img src=\"data:image/jpeg;base64,/9j/4A==\" alt=\"&lt;alt&gt;\" \
             title=\"&quot;x\" decoding=\"async\">"
        );
    }
}
