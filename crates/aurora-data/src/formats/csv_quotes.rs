//! Validation of CSV quotes before the fields are parsed.
//!
//! A lenient CSV reader takes a quote that is never closed for a field up to the end of the file,
//! and thus a thousand captions for one.

/// Validates quotes by RFC 4180: around a whole field, doubled inside of it.
///
/// # Errors
/// The line and the fault of the first misplaced quote.
pub(super) fn check(text: &str) -> Result<(), (u64, String)> {
    let mut line = 1u64;
    let mut letters = text.chars().peekable();
    let mut begins = true; // of a field
    while let Some(letter) = letters.next() {
        match letter {
            '"' if begins => {
                let opened = line;
                loop {
                    match letters.next() {
                        None => {
                            let reason = "the quote that opens here is never closed";
                            return Err((opened, reason.to_string()));
                        }
                        Some('\n') => line += 1,
                        Some('"') if letters.peek() == Some(&'"') => {
                            letters.next();
                        }
                        Some('"') => break,
                        Some(_) => {}
                    }
                }
                if !matches!(letters.peek(), None | Some(',' | '\n' | '\r')) {
                    let reason = "after a quoted field comes neither a comma nor the end of the \
                                  line; write a quote inside of a field twice: \"a 5\"\" pipe\"";
                    return Err((line, reason.to_string()));
                }
                begins = false;
            }
            '"' => {
                let reason = "a quote stands in the middle of a field; put the field in quotes and \
                              write the quote twice: \"a 5\"\" pipe\"";
                return Err((line, reason.to_string()));
            }
            ',' => begins = true,
            '\n' => {
                line += 1;
                begins = true;
            }
            _ => begins = false,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_they_should_be() {
        for text in ["", "a,b\n", "\"a\",b\r\n\"x\"\"y\",\"two\nlines\"\n", "\"\"", "a,\"b\""] {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn stray_quotes_are_told_with_their_line() {
        let cases = [
            ("a,b\nx,a 5\" pipe\n", 2, "in the middle of a field"),
            ("a,b\n1,\"open\n2,b\n", 2, "never closed"),
            ("a,b\n\"1\" x,b\n", 2, "after a quoted field"),
            ("\"two\nlines\",\"x\"y\n", 2, "after a quoted field"),
        ];
        for (text, line, says) in cases {
            let (found, reason) = check(text).unwrap_err();
            assert!(found == line && reason.contains(says), "{text:?}: {found} {reason}");
        }
    }
}
