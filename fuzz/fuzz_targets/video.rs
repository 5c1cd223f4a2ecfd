//! Fuzz target of videos, animated or H.264 in MP4. Expected: an error in one line, or a video whose first and last
//! frames are images or are refused alike.

#![no_main]

use aurora_data::DecodeError;
use aurora_data::video::Video;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let fine = |error: &DecodeError| {
        let message = error.to_string();
        !message.is_empty() && !message.contains(char::is_control)
    };
    match Video::open(bytes) {
        Ok(video) => {
            let frames = video.index().times.len();
            assert!(frames > 0);
            let mut wanted = vec![0];
            if (2..64).contains(&frames) {
                wanted.push(frames - 1);
            }
            let mut seen = 0;
            let decoded = video.frames(&wanted, &mut |place, image| {
                assert_eq!(place, seen);
                seen += 1;
                assert_eq!(image.rgb().len(), 3 * image.width() * image.height());
                Ok(())
            });
            match decoded {
                Ok(()) => assert_eq!(seen, wanted.len()),
                Err(error) => assert!(fine(&error), "{error:?}"),
            }
        }
        Err(error) => assert!(fine(&error), "{error:?}"),
    }
});
