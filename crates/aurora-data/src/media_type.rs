//! Media type detection by magic bytes: image or video.

use crate::image::sniff;

/// Bytes needed for detection. The chunk that makes a PNG an APNG comes after the color profile, if
/// there is one.
pub(crate) const SNIFF_BYTES: usize = 1 << 14;

/// Media type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// One image.
    Image,
    /// Several frames: GIF, APNG, animated WebP or a video.
    Video,
}

/// Media type of a file that begins with `head`, if its format is known.
pub(crate) fn media_type(head: &[u8]) -> Option<MediaType> {
    let animated = is_animated_png(head) || is_animated_webp(head);
    let video = head.starts_with(b"GIF87a")
        || head.starts_with(b"GIF89a")
        || head.get(4..8) == Some(b"ftyp") // MP4, QuickTime
        || head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) // Matroska, WebM
        || (head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI "));
    if animated || video { Some(MediaType::Video) } else { sniff(head).map(|_| MediaType::Image) }
}

/// True if the flags of an extended WebP (`VP8X`) mark an animation.
pub(crate) fn is_animated_webp(head: &[u8]) -> bool {
    head.starts_with(b"RIFF")
        && head.get(8..16) == Some(b"WEBPVP8X")
        && head.get(20).is_some_and(|flags| flags & 2 != 0)
}

/// True if an `acTL` chunk comes before the pixel data.
pub(crate) fn is_animated_png(head: &[u8]) -> bool {
    let mut rest = match head.strip_prefix(b"\x89PNG\r\n\x1a\n") {
        Some(rest) => rest,
        None => return false,
    };
    while let (Some(&length), Some(name)) = (rest.first_chunk::<4>(), rest.get(4..8)) {
        match name {
            b"acTL" => return true,
            b"IDAT" => return false,
            _ => {}
        }
        let next = (u32::from_be_bytes(length) as usize).saturating_add(12);
        rest = rest.get(next..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn videos_are_told_from_images() {
        let chunk = |name: &[u8; 4], data: &[u8]| {
            [&(data.len() as u32).to_be_bytes()[..], name, data, &[0; 4]].concat()
        };
        let png = |chunks: &[Vec<u8>]| [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat();
        let (ihdr, idat) = (chunk(b"IHDR", &[0; 13]), chunk(b"IDAT", b"acTL"));
        assert_eq!(media_type(&png(&[ihdr.clone(), idat.clone()])), Some(MediaType::Image));
        let moving = png(&[ihdr.clone(), chunk(b"gAMA", &[0; 4]), chunk(b"acTL", &[0; 8]), idat]);
        assert_eq!(media_type(&moving), Some(MediaType::Video));
        let endless = png(&[ihdr, u32::MAX.to_be_bytes().to_vec(), b"iCCP".to_vec()]);
        assert_eq!(media_type(&endless), Some(MediaType::Image));
        let webp = |flags: u8| [b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0", &[flags][..]].concat();
        assert_eq!(media_type(&webp(0x10)), Some(MediaType::Image));
        assert_eq!(media_type(&webp(0x12)), Some(MediaType::Video));
        assert_eq!(media_type(b"GIF89a"), Some(MediaType::Video));
        assert_eq!(media_type(b"\0\0\0\x20ftypisom"), Some(MediaType::Video));
        assert_eq!(media_type(b"RIFF\0\0\0\0WAVE"), None);
        assert_eq!(media_type(b""), None);
    }
}
