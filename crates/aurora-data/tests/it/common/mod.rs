//! Helpers: encoded images, tar archives, answers.

use std::io::Cursor;

use aurora_data::Sample;
use image::{ImageFormat, RgbImage};

/// Encoded image of one color.
pub fn encoded_image(width: u32, height: u32, color: [u8; 3], format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_pixel(width, height, image::Rgb(color));
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// A tar archive of the files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Answers of a sample's question, with their weights.
pub fn answers(sample: &Sample) -> Vec<(&str, f32)> {
    let question = sample.question.as_ref().unwrap();
    question.answers.iter().map(|(answer, weight)| (answer.as_str(), *weight)).collect()
}
