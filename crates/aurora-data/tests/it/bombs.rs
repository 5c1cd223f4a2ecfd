//! Decompression bombs: small files that ask for much memory. A separate test, since it measures
//! the memory of its process.

use std::io::Write;

use aurora_data::{Image, shard};

/// Peak memory of this process in bytes; `None` where the system does not report it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(name);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes()[..], name, data, &crc.sum().to_be_bytes()].concat()
}

/// PNG of 8-bit grayscale.
fn png(width: u32, height: u32, before: &[u8], pixels: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let parts = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), before.to_vec()];
    [parts.concat(), chunk(b"IDAT", pixels), chunk(b"IEND", b"")].concat()
}

/// Deflated zeros.
fn zeros(megabytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..megabytes {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut frame = vec![0xff, 0xd8, 0xff, 0xc0, 0, 11, 8];
    frame.extend(height.to_be_bytes());
    frame.extend(width.to_be_bytes());
    frame.extend([1, 1, 0x11, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0xff, 0xd9]);
    frame
}

fn gif(width: u16, height: u16) -> Vec<u8> {
    let side = |n: u16| n.to_le_bytes();
    let screen = [side(width), side(height)].concat();
    [b"GIF89a", &screen[..], &[0, 0, 0, b',', 0, 0, 0, 0], &screen, b"\0\x02\x02\x44\x01\0;"]
        .concat()
}

/// Lossless WebP header: 14 bits for each side minus one.
fn webp(width: u32, height: u32) -> Vec<u8> {
    let bits = (width - 1) | (height - 1) << 14;
    let body = [b"WEBPVP8L\x0a\0\0\0\x2f", &bits.to_le_bytes()[..], &[0; 5]].concat();
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

#[test]
fn small_files_that_ask_for_much_are_refused_in_little_memory() {
    let bomb = zeros(512);
    let profile = [b"name\0\0", &bomb[..]].concat();
    let before = peak();
    let refused = [
        (png(50_000, 50_000, b"", &zeros(1)), "50000 x 50000"),
        (jpeg(50_000, 50_000), "50000 x 50000"),
        (gif(50_000, 50_000), "50000 x 50000"),
        (webp(16_383, 16_383), "16383 x 16383"),
        (png(1, 100_000, b"", &zeros(1)), "1 x 100000"),
        (png(u32::MAX >> 1, 1, b"", &zeros(1)), "2147483647 x 1"),
        // Below the pixel limit, but more than so few bytes can encode.
        (jpeg(13_000, 13_000), "cannot hold"),
        (gif(13_000, 13_000), "cannot hold"),
        (png(13_000, 13_000, b"", &[0x78, 0x9c]), "cannot hold"),
    ];
    for (data, words) in refused {
        let message = Image::decode(&data).unwrap_err().to_string();
        println!("{message}");
        assert!(message.contains(words), "{message}");
    }
    // Half a gigabyte instead of a hundred bytes, and the same in a color profile and a text chunk.
    let rows = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[0; 110]).unwrap();
        encoder.finish().unwrap()
    };
    for data in [
        png(10, 10, b"", &bomb),
        png(10, 10, &chunk(b"iCCP", &profile), &rows),
        png(10, 10, &chunk(b"zTXt", &profile), &rows),
    ] {
        match Image::decode(&data) {
            Ok(image) => assert_eq!(image.rgb(), [0; 300]),
            Err(message) => println!("{message}"),
        }
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..512 {
        gzip.write_all(&[0; 1 << 20]).unwrap();
    }
    let grown = peak();
    let message = shard::parse("bomb.tar.gz", &gzip.finish().unwrap()).unwrap_err().to_string();
    println!("{message}");
    assert!(message.contains("bomb.tar.gz") && message.contains("unpack to more"), "{message}");
    if let (Some(grown), Some(after)) = (grown, peak()) {
        // A growing vector doubles.
        assert!(after - grown < 320 << 20, "{grown} bytes became {after}");
    }
    if let (Some(before), Some(after)) = (before, grown) {
        println!("{} KiB more than before the first of them", (after - before) >> 10);
        assert!(after - before < 32 << 20, "{before} bytes became {after}");
    }
}
