//! YUV to RGB conversion with ffmpeg's defaults: one chroma sample for four pixels (nearest
//! neighbor), BT.601 if the video does not name a matrix, and each product truncated separately,
//! which darkens pixels by up to 3 of 255.

/// YUV coding of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct YuvCoding {
    /// Matrix coefficients by number (ITU-T H.264, table E-5); 2 if unspecified.
    pub matrix: u32,
    /// True for full range, 0 to 255; false for limited range, 16 to 235.
    pub full_range: bool,
}

impl Default for YuvCoding {
    fn default() -> Self {
        Self { matrix: 2, full_range: false }
    }
}

/// Plane of bytes with a row stride of `stride`.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    pub bytes: &'a [u8],
    pub stride: usize,
}

impl<'a> Plane<'a> {
    fn row(self, y: usize, length: usize) -> Option<&'a [u8]> {
        self.bytes.get(y * self.stride..y * self.stride + length)
    }
}

/// Fraction bits of [`Weights`], those of ffmpeg on x86.
const POINT: u32 = 13;

/// Fixed-point conversion factors, times 2^[`POINT`].
struct Weights {
    black: i32,
    luma: i32,
    red: i32,
    green_blue: i32,
    green_red: i32,
    blue: i32,
}

impl YuvCoding {
    fn weights(self) -> Weights {
        // Luma coefficients of red and blue.
        let (red, blue) = match self.matrix {
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 | 10 => (0.2627, 0.0593),
            _ => (0.299, 0.114),
        };
        let green = 1.0 - red - blue;
        let (black, luma, chroma) =
            if self.full_range { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |weight: f64| (weight * f64::from(1u32 << POINT)).round() as i32;
        // A weight is subtracted by adding its negative: truncation is not symmetric.
        Weights {
            black,
            luma: fixed(luma),
            red: fixed(2.0 * (1.0 - red) * chroma),
            green_blue: -fixed(2.0 * (1.0 - blue) * blue / green * chroma),
            green_red: -fixed(2.0 * (1.0 - red) * red / green * chroma),
            blue: fixed(2.0 * (1.0 - blue) * chroma),
        }
    }

    /// RGB bytes of a 4:2:0 image; `None` if a plane is shorter than its size.
    pub(super) fn to_rgb(
        self,
        (width, height): (usize, usize),
        [luma, blue, red]: [Plane<'_>; 3],
    ) -> Option<Vec<u8>> {
        let weights = self.weights();
        let half = width.div_ceil(2);
        let mut rgb = Vec::with_capacity(width.checked_mul(height)?.checked_mul(3)?);
        for y in 0..height {
            let luma = luma.row(y, width)?;
            let (blue, red) = (blue.row(y / 2, half)?, red.row(y / 2, half)?);
            for (pair, (&blue, &red)) in luma.chunks(2).zip(blue.iter().zip(red)) {
                for &luma in pair {
                    rgb.extend(weights.pixel(luma, blue, red));
                }
            }
        }
        Some(rgb)
    }
}

impl Weights {
    fn pixel(&self, luma: u8, blue: u8, red: u8) -> [u8; 3] {
        let times = |part: i32, weight: i32| (part * weight) >> POINT;
        let light = times(i32::from(luma) - self.black, self.luma);
        let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
        [
            light + times(red, self.red),
            light + times(blue, self.green_blue) + times(red, self.green_red),
            light + times(blue, self.blue),
        ]
        .map(|part| part.clamp(0, 255) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(matrix: u32, full_range: bool, [y, u, v]: [u8; 3]) -> [u8; 3] {
        YuvCoding { matrix, full_range }.weights().pixel(y, u, v)
    }

    #[test]
    fn gray_stays_gray_and_the_ends_are_black_and_white() {
        for matrix in 0..12 {
            assert_eq!(pixel(matrix, false, [16, 128, 128]), [0; 3]);
            assert!(pixel(matrix, false, [235, 128, 128])[0] >= 254);
            assert_eq!(pixel(matrix, false, [255, 128, 128]), [255; 3]);
            for y in 0..=255 {
                assert_eq!(pixel(matrix, true, [y, 128, 128]), [y; 3]);
            }
        }
    }

    /// Round trip: forward by the definition, back by the weights, within the error of eight bits
    /// and three truncations.
    #[test]
    fn colors_come_back() {
        for (matrix, red, blue) in [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593)] {
            for rgb in
                [[200.0, 40.0, 90.0], [12.0, 250.0, 3.0], [0.0, 0.0, 255.0], [255.0, 255.0, 0.0]]
            {
                let [r, g, b]: [f64; 3] = rgb;
                let luma = red * r + (1.0 - red - blue) * g + blue * b;
                let coded = [
                    16.0 + luma * 219.0 / 255.0,
                    128.0 + (b - luma) / (2.0 * (1.0 - blue)) * 224.0 / 255.0,
                    128.0 + (r - luma) / (2.0 * (1.0 - red)) * 224.0 / 255.0,
                ];
                let back = pixel(matrix, false, coded.map(|part: f64| part.round() as u8));
                for (back, part) in back.iter().zip(rgb) {
                    assert!((f64::from(*back) - part).abs() <= 4.0, "{matrix} {rgb:?} {back:?}");
                }
            }
        }
    }

    #[test]
    fn planes_that_are_too_short_are_noticed() {
        let plane = |bytes: &'static [u8], stride| Plane { bytes, stride };
        let chroma = plane(&[128; 4], 2);
        let coding = YuvCoding { matrix: 2, full_range: true };
        let planes = [plane(&[7; 9], 3), chroma, chroma];
        assert_eq!(coding.to_rgb((3, 3), planes), Some(vec![7; 27]));
        assert_eq!(coding.to_rgb((3, 4), planes), None);
        assert_eq!(coding.to_rgb((3, 3), [plane(&[7; 9], 3), chroma, plane(&[1; 3], 2)]), None);
    }
}
