//! What targets choose, and what they say when they choose nothing.

use super::*;
use crate::Form;
use crate::config::tests::{tiny, tiny_with};
use proptest::prelude::*;

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn layers(texts: &[&str]) -> Vec<LayerRange> {
    texts.iter().map(|text| LayerRange::parse(text).unwrap()).collect()
}

fn chosen(targets: &Targets) -> Vec<String> {
    targets.select(&crate::sites(&tiny())).unwrap().chosen
}

fn error(targets: &Targets) -> String {
    targets.select(&crate::sites(&tiny())).unwrap_err().to_string()
}

#[test]
fn every_list_narrows_the_choice() {
    let all = crate::sites(&tiny());
    assert_eq!(chosen(&Targets::default()).len(), all.len());
    let queries = Targets { modules: strings(&["query"]), ..Targets::default() };
    assert_eq!(chosen(&queries).len(), 4, "two layers, self and cross");
    let cross = Targets { modules: strings(&["crossattention.self.query"]), ..Targets::default() };
    assert_eq!(chosen(&cross).len(), 2);
    let vision =
        Targets { towers: vec![Tower::Vision], layers: layers(&["1"]), ..Targets::default() };
    assert_eq!(
        chosen(&vision),
        ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
            .map(|name| format!("visual_encoder.blocks.1.{name}"))
    );
    let pattern = Targets { pattern: r".*\.(key|value)".into(), ..Targets::default() };
    assert_eq!(chosen(&pattern).len(), 8);
    let excluded = Targets { exclude: strings(&["key"]), ..pattern };
    assert_eq!(chosen(&excluded).len(), 4);
    // A whole path is an end of itself alone.
    let one =
        Targets { modules: strings(&["visual_encoder.blocks.0.attn.qkv"]), ..Targets::default() };
    assert_eq!(chosen(&one).len(), 1);
}

#[test]
fn a_decoder_is_a_tower_of_its_own() {
    let targets = Targets { towers: vec![Tower::Decoder], ..Targets::default() };
    let sites = crate::sites(&tiny_with(Form::QuestionAnswering));
    let chosen = targets.select(&sites).unwrap().chosen;
    assert_eq!(chosen.len(), 12);
    assert!(chosen.iter().all(|path| path.starts_with("text_decoder.bert.encoder.layer.")));
    assert!(error(&targets).contains("targets.towers = decoder: matches nothing"));
}

#[test]
fn the_dry_run_says_why() {
    let targets = Targets {
        modules: strings(&["query", "key"]),
        layers: layers(&["0-1"]),
        exclude: strings(&["layer.1.attention.self.key"]),
        ..Targets::default()
    };
    let selection = targets.select(&crate::sites(&tiny())).unwrap();
    assert_eq!((selection.chosen.len(), selection.left_out.len()), (7, 13));
    let text = selection.to_string();
    assert!(text.starts_with("7 of 20 are tuned\n+ text_encoder.encoder.layer.0"), "{text}");
    for line in [
        "- visual_encoder.blocks.0.attn.qkv: not among modules = query, key",
        "layer.1.attention.self.key: excluded by layer.1.attention.self.key",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn an_entry_that_matches_nothing_is_named_with_what_there_is() {
    let all = Targets::default();
    for (targets, parts) in [
        (
            Targets { modules: strings(&["query", "qvk"]), ..all.clone() },
            ["targets.modules = qvk: matches nothing", "visual_encoder.blocks.N.attn.qkv"],
        ),
        // Half a component is no end.
        (
            Targets { modules: strings(&["uery"]), ..all.clone() },
            ["uery: matches nothing", "there are"],
        ),
        (
            Targets { layers: layers(&["0", "2-9"]), ..all.clone() },
            ["targets.layers = 2-9: matches nothing", "vision layers 0-1, text layers 0-1"],
        ),
        (
            Targets { pattern: "qkv".into(), ..all.clone() },
            ["targets.pattern = qkv", "matches nothing"],
        ),
        (
            Targets { pattern: "(".into(), ..all.clone() },
            ["targets.pattern = (", "no regular expression"],
        ),
        (
            Targets { exclude: strings(&["gate"]), ..all.clone() },
            ["targets.exclude = gate", "nothing"],
        ),
        (
            Targets { modules: strings(&["query"]), towers: vec![Tower::Vision], ..all.clone() },
            ["targets.towers = vision", "only what another of the targets leaves out"],
        ),
        (
            Targets { modules: strings(&["attn.qkv"]), exclude: strings(&["qkv"]), ..all.clone() },
            ["targets.exclude = qkv", "leaves nothing to tune"],
        ),
    ] {
        let message = error(&targets);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn layer_ranges_read_back_as_they_are_written() {
    for (text, wanted) in
        [("3", Some("3")), ("0-11", Some("0-11")), ("4-4", Some("4")), (" 1 - 2", Some("1-2"))]
    {
        assert_eq!(LayerRange::parse(text).map(|range| range.to_string()).as_deref(), wanted);
    }
    for text in ["", "-", "5-3", "a", "1-", "-1", "1-2-3", "99999999999999999999999"] {
        assert_eq!(LayerRange::parse(text), None, "{text}");
    }
    let targets = Targets { layers: layers(&["0-1", "7"]), ..Targets::default() };
    let text = serde_json::to_string(&targets).unwrap();
    assert!(text.contains(r#""layers":["0-1","7"]"#), "{text}");
    assert_eq!(serde_json::from_str::<Targets>(&text).unwrap(), targets);
    assert!(serde_json::from_str::<Targets>(r#"{"layers":["5-3"]}"#).is_err());
    assert!(serde_json::from_str::<Targets>(r#"{"module":["query"]}"#).is_err());
}

proptest! {
    /// Whatever the targets, every site is either chosen or left out, or there is an error.
    #[test]
    fn nothing_is_lost(
        modules in prop::collection::vec("[a-z.0-9]{0,8}", 0..3),
        pattern in ".{0,12}",
        range in "[0-9-]{0,4}",
        exclude in prop::collection::vec("(query|key|attn|mlp.fc1)", 0..2),
    ) {
        let layers = LayerRange::parse(&range).into_iter().collect();
        let targets = Targets { modules, pattern, layers, towers: Vec::new(), exclude };
        let sites = crate::sites(&tiny());
        if let Ok(selection) = targets.select(&sites) {
            prop_assert_eq!(selection.chosen.len() + selection.left_out.len(), sites.len());
            prop_assert!(!selection.chosen.is_empty());
        }
    }
}
