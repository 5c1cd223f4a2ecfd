//! SHA-256 in hexadecimal.

use sha2::{Digest as _, Sha256};

/// Hash as hexadecimal digits.
pub(crate) fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a list of texts as hexadecimal digits. It depends on every text, their order and
/// their borders.
pub fn fingerprint(texts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        let text = text.as_ref();
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hexadecimal(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn every_text_and_every_border_counts() {
        let lists: [&[&str]; 6] = [&[], &[""], &["ab"], &["a", "b"], &["b", "a"], &["", "ab"]];
        let found: std::collections::BTreeSet<String> =
            lists.iter().map(|list| fingerprint(*list)).collect();
        assert_eq!(found.len(), lists.len());
        assert!(found.iter().all(|one| one.len() == 64));
    }
}
