//! Hostile pickles: nothing is executed, nothing grows without bound, and the error says what to do.

use crate::common::{Writer, file, legacy, says};
use aurora_layers::checkpoint::Checkpoint;

/// Error of a legacy file around this description.
fn refused_pickle(described: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "some.pth", &legacy(described, &[0.0; 6]));
    let message = Checkpoint::open(&path).unwrap_err().to_string();
    says(&message, &["some.pth"]);
    assert!(message.len() < 2000, "{}", message.len());
    message
}

#[test]
fn pickles_that_would_run_something() {
    let dict = || Writer::new().op(b"}").text("w");
    for (described, parts) in [
        (dict().global("os\nsystem").op(b"(").text("true").op(b"tRs.").0, "os.system"),
        (
            dict().text("builtins").text("eval").op(b"\x93(").text("1").op(b"tRs.").0,
            "builtins.eval",
        ),
        (dict().global("subprocess\nPopen").op(b")\x81s.").0, "subprocess.Popen"),
        (
            dict().global("torch._utils\n_rebuild_sparse_tensor").op(b")Rs.").0,
            "_rebuild_sparse_tensor",
        ),
    ] {
        says(
            &refused_pickle(&described),
            &[parts, "nothing is executed", "save the state dict alone"],
        );
    }
    for (described, part) in [
        (dict().op(b"(").text("x").op(b"ios\nsystem\ns.").0, "instruction 0x69"),
        (dict().op(b"(cos\nsystem\nos.").0, "instruction 0x6f"),
        (dict().global("os\nsystem").op(b"}bs.").0, "sets the state"),
        (dict().text("x").op(b"Qs.").0, "no storage"),
        (dict().op(b"K\x01)Rs.").0, "no function"),
        (dict().global("os\nsystem").op(b"K\x01Rs.").0, "no tuple"),
        (dict().global("torch._utils\n_rebuild_parameter").op(b"K\x01\x85Rs.").0, "no tensor"),
    ] {
        says(&refused_pickle(&described), &[part]);
    }
}

#[test]
fn pickles_that_ask_for_too_much() {
    let dict = || Writer::new().op(b"}").text("w");
    let storage = |count: i64| ("FloatStorage", "0", count);
    let (huge, text) = (i64::MAX, "x".repeat(100_000));
    let nested = Writer::new().op(&b"]".repeat(200_000)).op(&b"a".repeat(199_999)).op(b".").0;
    // A list that is stored once and recalled again and again costs two bytes each time.
    let recalled = Writer::new().op(b"]q\x00").op(&b"h\x00".repeat(3_000_000)).op(b".").0;
    let rank = vec![1i64; 100];
    for (described, parts) in [
        (dict().op(b"\x8d").op(&u64::MAX.to_le_bytes()).0, &["cut"][..]),
        (dict().op(b"X").op(&u32::MAX.to_le_bytes()).0, &["cut"]),
        (dict().op(b"\x8b").op(&u32::MAX.to_le_bytes()).0, &["cut"]),
        (dict().op(b"Nr").op(&u32::MAX.to_le_bytes()).op(b"0.").0, &["dictionary of tensors"]),
        (
            dict().tensor(storage(6), &[huge, 4], &[4, 1]).op(b"s.").0,
            &["w:", "6 numbers of storage 0"],
        ),
        (dict().tensor(storage(6), &[1 << 40], &[0]).op(b"s.").0, &["w:", "does not lie in"]),
        (dict().tensor(storage(6), &[2], &[huge]).op(b"s.").0, &["w:", "does not lie in"]),
        (dict().tensor(storage(huge), &[2], &[1]).op(b"s.").0, &["w:", "should have"]),
        (dict().tensor(storage(6), &[-1], &[1]).op(b"s.").0, &["sizes or strides"]),
        (dict().tensor(storage(6), &rank, &rank).op(b"s.").0, &["sizes or strides"]),
        (dict().text(&text).text(&text).op(b"\x93.").0, &["no short text"]),
        (dict().op(b"c").op(text.as_bytes()).op(b"\n").0, &["line of more than"]),
        (Writer::new().op(b"}").text(&text).op(b"Ns.").0, &["a name of 100000 bytes"]),
        (nested, &["dictionary of tensors"]),
        (recalled, &["instructions", "save the state dict alone"]),
    ] {
        says(&refused_pickle(&described), parts);
    }
}
