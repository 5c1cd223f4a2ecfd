//! Fuzz target of images. Expected: an error in one line, or an image that can be scaled.

#![no_main]

use aurora_data::{MAX_PIXELS, Image};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Image::decode(bytes) {
        Ok(image) => {
            let (width, height) = (image.width(), image.height());
            assert!(width > 0 && height > 0 && (width * height) as u64 <= MAX_PIXELS);
            assert_eq!(image.rgb().len(), 3 * width * height);
            let small = image.resize(8, None).expect("an image of any size is scaled");
            assert_eq!((small.width(), small.height()), (8, 8));
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
        }
    }
});
