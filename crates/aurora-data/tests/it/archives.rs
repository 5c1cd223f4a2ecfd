//! Archives with names or links that lead out of them.

use std::fs;

use crate::common::{encoded_image, tar};
use aurora_data::{Error, shard};
use image::ImageFormat::Png;

/// Names and links by which an archive could reach out of its folder.
#[test]
fn archives_that_reach_out_are_refused() {
    let png = encoded_image(2, 2, [0; 3], Png);
    let folder = tempfile::tempdir().unwrap();
    let with_name = |name: &str| {
        // The builder refuses such names, so the header is written by hand.
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(png.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend(&png);
        out.resize(out.len().next_multiple_of(512) + 1024, 0);
        out
    };
    for (name, says) in [
        ("/etc/7.png", "is absolute"),
        ("../7.png", "leads out of its folder"),
        ("a/../../7.png", "leads out of its folder"),
        ("..\\7.png", "leads out of its folder"),
        ("C:\\7.png", "is absolute"),
    ] {
        let error = shard::parse("s.tar", &with_name(name)).unwrap_err();
        assert!(matches!(error, Error::Record { .. }), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("s.tar"), "{text}");
        let path = folder.path().join("s.tar");
        fs::write(&path, with_name(name)).unwrap();
        assert!(shard::read(&path).is_err());
    }
    // A long name stored as its own entry is checked as well.
    let long = format!("{}../7.png", "a/".repeat(80));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(long.len() as u64);
    header.as_old_mut().name[..3].copy_from_slice(b"./L");
    header.set_cksum();
    let mut data = header.as_bytes().to_vec();
    data.extend(long.as_bytes());
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend(with_name("7.png"));
    assert!(matches!(shard::parse("s.tar", &data), Err(Error::Record { .. })));
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
        let mut builder = tar::Builder::new(tar(&[("7.txt", b"x")])[..1024].to_vec());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, "7.png", "/etc/passwd").unwrap();
        let error = shard::parse("s.tar", &builder.into_inner().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("7.png") && text.contains("it is a link"), "{text}");
    }
    // Harmless names that look similar, and those that `tar cf x.tar .` gives.
    let fine = tar(&[("a..b/7.png", &png), ("a..b/7.txt", b"x")]);
    assert_eq!(shard::parse("s.tar", &fine).unwrap()[0].key, "a..b/7");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
