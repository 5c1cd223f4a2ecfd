//! Target selection, and the errors of targets that select nothing.

use super::*;
use crate::Architecture;
use crate::config::tests::{tiny, tiny_with};
use proptest::prelude::*;

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn layers(texts: &[&str]) -> Vec<LayerRange> {
    texts.iter().map(|text| LayerRange::parse(text).unwrap()).collect()
}

fn chosen(targets: &TargetModules) -> Vec<String> {
    targets.select(&crate::sites(&tiny())).unwrap().selected
}

fn error(targets: &TargetModules) -> String {
    targets.select(&crate::sites(&tiny())).unwrap_err().to_string()
}

#[test]
fn every_list_narrows_the_choice() {
    let all = crate::sites(&tiny());
    assert_eq!(chosen(&TargetModules::default()).len(), all.len());
    let queries = TargetModules { target_modules: strings(&["query"]), ..TargetModules::default() };
    assert_eq!(chosen(&queries).len(), 4, "two layers, self and cross");
    let cross = TargetModules {
        target_modules: strings(&["crossattention.self.query"]),
        ..TargetModules::default()
    };
    assert_eq!(chosen(&cross).len(), 2);
    let vision = TargetModules {
        towers: vec![Tower::Vision],
        layers_to_transform: layers(&["1"]),
        ..TargetModules::default()
    };
    assert_eq!(
        chosen(&vision),
        ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
            .map(|name| format!("visual_encoder.blocks.1.{name}"))
    );
    let pattern = TargetModules { pattern: r".*\.(key|value)".into(), ..TargetModules::default() };
    assert_eq!(chosen(&pattern).len(), 8);
    let excluded = TargetModules { exclude_modules: strings(&["key"]), ..pattern };
    assert_eq!(chosen(&excluded).len(), 4);
    // A whole path is a suffix of itself alone.
    let one = TargetModules {
        target_modules: strings(&["visual_encoder.blocks.0.attn.qkv"]),
        ..TargetModules::default()
    };
    assert_eq!(chosen(&one).len(), 1);
}

#[test]
fn a_decoder_is_a_tower_of_its_own() {
    let targets = TargetModules { towers: vec![Tower::Decoder], ..TargetModules::default() };
    let sites = crate::sites(&tiny_with(Architecture::QuestionAnswering));
    let chosen = targets.select(&sites).unwrap().selected;
    assert_eq!(chosen.len(), 12);
    assert!(chosen.iter().all(|path| path.starts_with("text_decoder.bert.encoder.layer.")));
    assert!(error(&targets).contains("targets.towers = decoder: matches nothing"));
}

#[test]
fn the_dry_run_says_why() {
    let targets = TargetModules {
        target_modules: strings(&["query", "key"]),
        layers_to_transform: layers(&["0-1"]),
        exclude_modules: strings(&["layer.1.attention.self.key"]),
        ..TargetModules::default()
    };
    let report = targets.select(&crate::sites(&tiny())).unwrap();
    assert_eq!((report.selected.len(), report.skipped.len()), (7, 13));
    let text = report.to_string();
    assert!(text.starts_with("7 of 20 are tuned\n+ text_encoder.encoder.layer.0"), "{text}");
    for line in [
        "- visual_encoder.blocks.0.attn.qkv: not among target_modules = query, key",
        "layer.1.attention.self.key: excluded by layer.1.attention.self.key",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn an_entry_that_matches_nothing_is_named_with_what_there_is() {
    let all = TargetModules::default();
    for (targets, parts) in [
        (
            TargetModules { target_modules: strings(&["query", "qvk"]), ..all.clone() },
            ["targets.target_modules = qvk: matches nothing", "visual_encoder.blocks.N.attn.qkv"],
        ),
        // Half a component is no suffix.
        (
            TargetModules { target_modules: strings(&["uery"]), ..all.clone() },
            ["uery: matches nothing", "there are"],
        ),
        (
            TargetModules { layers_to_transform: layers(&["0", "2-9"]), ..all.clone() },
            [
                "targets.layers_to_transform = 2-9: matches nothing",
                "vision layers 0-1, text layers 0-1",
            ],
        ),
        (
            TargetModules { pattern: "qkv".into(), ..all.clone() },
            ["targets.pattern = qkv", "matches nothing"],
        ),
        (
            TargetModules { pattern: "(".into(), ..all.clone() },
            ["targets.pattern = (", "no regular expression"],
        ),
        (
            TargetModules { exclude_modules: strings(&["gate"]), ..all.clone() },
            ["targets.exclude_modules = gate", "nothing"],
        ),
        (
            TargetModules {
                target_modules: strings(&["query"]),
                towers: vec![Tower::Vision],
                ..all.clone()
            },
            ["targets.towers = vision", "only what another of the targets leaves out"],
        ),
        (
            TargetModules {
                target_modules: strings(&["attn.qkv"]),
                exclude_modules: strings(&["qkv"]),
                ..all.clone()
            },
            ["targets.exclude_modules = qkv", "leaves nothing to tune"],
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
    let targets =
        TargetModules { layers_to_transform: layers(&["0-1", "7"]), ..TargetModules::default() };
    let text = serde_json::to_string(&targets).unwrap();
    assert!(text.contains(r#""layers_to_transform":["0-1","7"]"#), "{text}");
    assert_eq!(serde_json::from_str::<TargetModules>(&text).unwrap(), targets);
    assert!(serde_json::from_str::<TargetModules>(r#"{"layers_to_transform":["5-3"]}"#).is_err());
    assert!(serde_json::from_str::<TargetModules>(r#"{"module":["query"]}"#).is_err());
}

proptest! {
    /// Property: for any targets every site is selected or skipped, or there is an error.
    #[test]
    fn nothing_is_lost(
        modules in prop::collection::vec("[a-z.0-9]{0,8}", 0..3),
        pattern in ".{0,12}",
        range in "[0-9-]{0,4}",
        exclude in prop::collection::vec("(query|key|attn|mlp.fc1)", 0..2),
    ) {
        let layers = LayerRange::parse(&range).into_iter().collect();
        let targets = TargetModules { target_modules: modules, pattern, layers_to_transform: layers, towers: Vec::new(), exclude_modules: exclude };
        let sites = crate::sites(&tiny());
        if let Ok(report) = targets.select(&sites) {
            prop_assert_eq!(report.selected.len() + report.skipped.len(), sites.len());
            prop_assert!(!report.selected.is_empty());
        }
    }
}
