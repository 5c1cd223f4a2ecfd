//! Configuration errors, and agreement of defaults, schema and types.

use super::*;
use aurora_layers::{AdapterKind, ParamGroup};
use proptest::prelude::*;
use toml::{Table, Value};

fn error(file: &str, overrides: &[&str]) -> String {
    Config::resolve_text(Some(("run.toml", file)), overrides).unwrap_err().to_string()
}

fn paths(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                paths(value, &if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, out);
            }
        }
        _ => out.push(at.to_owned()),
    }
}

/// Schema, defaults and types have the same keys, and every default has a doc line.
fn agrees<C: RunConfig>(file: &str, bare: impl Fn(&mut C), filled: &[&str]) {
    let mut config = C::defaults().unwrap();
    bare(&mut config);
    let mut typed = Vec::new();
    paths(&Value::try_from(&config).unwrap(), "", &mut typed);
    let mut written = Vec::new();
    paths(&Value::Table(C::DEFAULTS.parse().unwrap()), "", &mut written);
    let fields = C::fields().into_iter().filter(|f| !filled.contains(&f.key));
    let mut table: Vec<String> = fields.map(|f| f.key.to_owned()).collect();
    for keys in [&mut typed, &mut written, &mut table] {
        keys.sort();
    }
    assert_eq!(typed, table);
    assert_eq!(written, table);
    assert!(C::fields().iter().all(|f| f.doc.ends_with('.')));
    // The committed file is what the program writes, less the keys that are filled in. To update it:
    // UPDATE_DEFAULTS=1 cargo test -p aurora-train --lib config
    let text = config.to_toml().unwrap();
    if std::env::var_os("UPDATE_DEFAULTS").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(file);
        std::fs::write(path, &text).unwrap();
    } else {
        assert_eq!(text, C::DEFAULTS, "run again with UPDATE_DEFAULTS=1 to rewrite {file}");
    }
}

#[test]
fn defaults_table_and_types_agree() {
    let rates: Vec<&str> = LearningRates::FIELDS.iter().map(|field| field.key).collect();
    let bare = |config: &mut Config| config.optimizer.lr = LearningRates::default();
    agrees("quickstart.toml", bare, &rates);
    agrees("pretrain.toml", |_: &mut PretrainConfig| (), &[]);
    assert!(describe::<Config>().contains("adapter.rank: a whole number, 1 to 4096"));
}

#[test]
fn every_allowed_word_is_understood() {
    for field in Config::fields() {
        if let ValueType::Choice(words) = field.value_type {
            for word in words {
                let set = format!("{}={word}", field.key);
                let config = Config::resolve(None, &[&set]).unwrap();
                assert!(config.to_toml().unwrap().contains(&format!("= \"{word}\"")), "{set}");
            }
        }
    }
}

#[test]
fn layers_go_over_each_other() {
    let file = "seed = 5\n[adapter]\nrank = 8\n[optimizer.lr]\nheads = 1\n";
    let set = [
        "adapter.rank=16",
        "data.train=[\"a.tar\", \"b.tar\"]",
        "evaluation.similarity_weight=[0, 1.5]",
    ];
    let config = Config::resolve_text(Some(("run.toml", file)), &set).unwrap();
    let defaults = Config::defaults().unwrap();
    assert_eq!((config.seed, config.adapter.rank), (5, 16));
    assert_eq!(config.optimizer.lr.heads, Some(1.0));
    assert_eq!(config.optimizer.lr.factors, defaults.optimizer.lr.factors);
    assert_eq!(config.data.train.as_slice(), ["a.tar", "b.tar"]);
    assert_eq!(config.evaluation.similarity_weight.as_slice(), [0.0, 1.5]);
    assert_eq!(config.data.batch_size, defaults.data.batch_size);
}

#[test]
fn overrides_need_no_quotes() {
    let set =
        ["adapter.kind=heads", "data.test=2024", "model.backbone = /data/blip base", "seed=7"];
    let config = Config::resolve(None, &set).unwrap();
    assert_eq!(config.adapter.kind, AdapterKind::Heads);
    assert_eq!(config.data.test.as_slice(), ["2024"]);
    assert_eq!(config.model.backbone, "/data/blip base");
    // A whole section at once.
    let config = Config::resolve(None, &["adapter={rank=3, gated_query=false}"]).unwrap();
    assert_eq!((config.adapter.rank, config.adapter.gated_query), (3, false));
}

#[test]
fn unknown_keys_are_named_with_what_is_allowed() {
    let e = error("[adapter]\nrnak = 8\n", &[]);
    assert!(
        e.contains("run.toml: unknown key `adapter.rnak`, did you mean `adapter.rank`?"),
        "{e}"
    );
    assert!(e.contains("allowed in [adapter]: kind, variant, rank, alpha"), "{e}");
    let e = error("rank = 8\n", &[]);
    assert!(e.contains("`rank`, did you mean `adapter.rank`?"), "{e}");
    assert!(
        e.contains(
            "allowed at the top: seed, task, device, gradient_checkpointing, precision, [model], [adapter]"
        ),
        "{e}"
    );
    let e = error("", &["optimizer.lr.head=1"]);
    assert!(e.contains("--set optimizer.lr.head=1") && e.contains("`optimizer.lr.heads`"));
    let e = error("[frobnicate]\nx = 1\n", &[]);
    assert!(e.contains("unknown key `frobnicate`;"), "{e}");
}

#[test]
fn wrong_types_say_what_was_expected_and_found() {
    let cases = [
        (
            "[adapter]\nrank = \"eight\"",
            "`adapter.rank` must be a whole number, 1 to 4096, found the text \"eight\"",
        ),
        ("[adapter]\nrank = 8.5", "found the number 8.5"),
        (
            "[adapter]\ngated_query = 1",
            "`adapter.gated_query` must be true or false, found the whole number 1",
        ),
        ("adapter = 3", "`adapter` must be a section with kind, variant"),
        (
            "[adapter.rank]\nx = 1",
            "`adapter.rank` must be a whole number, 1 to 4096, found a section",
        ),
        ("[optimizer]\nbetas = 0.9", "`optimizer.betas` must be two numbers, each 0 to below 1"),
        ("[data]\ntrain = 3", "`data.train` must be a text or a list of texts"),
        ("[adapter]\nkind = true", "\"biases\", \"heads\", \"full\", found the switch true"),
    ];
    for (file, part) in cases {
        let e = error(file, &[]);
        assert!(e.starts_with("run.toml: ") && e.contains(part), "{e}");
    }
}

#[test]
fn values_out_of_range_say_what_is_allowed() {
    let cases = [
        ("adapter.rank=0", "`adapter.rank` is 0, allowed: a whole number, 1 to 4096"),
        ("data.batch_size=1", "`data.batch_size` is 1, allowed: a whole number, 2 to"),
        (
            "optimizer.lr.factors=0",
            "`optimizer.lr.factors` is 0, allowed: a number, finite and above 0",
        ),
        ("optimizer.lr.heads=nan", "finite and above 0"),
        ("optimizer.lr.backbone=inf", "finite and above 0"),
        ("retrieval.alpha=1.5", "0 to 1"),
        ("retrieval.temperature=0.9", "0.001 to 0.5"),
        ("optimizer.betas=[0.9, 1.0]", "`optimizer.betas` is 1.0"),
        (
            "adapter.kind=lorra",
            "`adapter.kind` is \"lorra\", allowed: one of \"cp\", \"tucker\", \"tensor_train\", \"lora\"",
        ),
        (
            "evaluation.similarity_weight=[]",
            "`evaluation.similarity_weight` is [], allowed: a number or a list of numbers",
        ),
        ("seed=-1", "at least 0"),
        ("schedule.warmup_steps=1000000", "`schedule.warmup_steps` is 1000000, more than the"),
    ];
    for (set, part) in cases {
        let e = error("", &[set]);
        assert!(e.contains(part), "{e}");
    }
}

#[test]
fn what_is_no_configuration_at_all() {
    let e = error("seed = = 3\n", &[]);
    assert!(e.contains("run.toml is not valid TOML") && e.contains("line 1"), "{e}");
    for set in ["adapter.rank", "=3", "adapter..rank=3", "adapter.rank="] {
        let e = error("", &[set]);
        assert!(e.contains(set) && e.contains("expected section.key=value"), "{e}");
    }
    let missing = std::path::Path::new("/nowhere/run.toml");
    let e = Config::resolve(Some(missing), &[] as &[&str]).unwrap_err().to_string();
    assert!(e.contains("cannot read the configuration /nowhere/run.toml"), "{e}");
    let e = PretrainConfig::resolve(None, &["model.vision_heads=5"]).unwrap_err().to_string();
    assert!(e.contains("model.vision_hidden_size") && e.contains("model.vision_heads"), "{e}");
}

#[test]
fn a_written_configuration_repeats_the_run() {
    let set = [
        "seed=9",
        "optimizer.eps=1e-9",
        "data.train=[\"a\", \"b\"]",
        "evaluation.similarity_weight=2",
    ];
    let config = Config::resolve(None, &set).unwrap();
    let text = config.to_toml().unwrap();
    let again = Config::resolve_text(Some(("config.toml", &text)), &[] as &[&str]).unwrap();
    assert_eq!(config, again);
}

#[test]
fn the_adapter_decides_what_is_trained() {
    let rates = LearningRates::default();
    let names = |kind| rates.groups(kind, 0.05).into_iter().map(|g| g.name).collect::<Vec<_>>();
    assert_eq!(names(AdapterKind::Cp), ["factors", "gates", "heads", "temperature", "backbone"]);
    assert_eq!(names(AdapterKind::Heads), ["heads", "temperature", "backbone"]);
    assert_eq!(names(AdapterKind::Full), ["heads", "temperature", "backbone"]);
    let decays = rates.groups(AdapterKind::Cp, 0.05);
    assert_eq!(
        decays.iter().map(|g| g.weight_decay).collect::<Vec<_>>(),
        [0.0, 0.0, 0.05, 0.0, 0.05]
    );
    for kind in [AdapterKind::Norms, AdapterKind::Biases] {
        let groups = rates.groups(kind, 0.05);
        assert!(groups.iter().any(|g| g.name == "backbone" && g.weight_decay == 0.0), "{kind:?}");
    }
    assert_eq!(LearningRates::group(ParamGroup::Buffer), None);
    let heads = Config::resolve(None, &["adapter.kind=heads"]).unwrap().adapter.adapter_config();
    assert!(!heads.gated_query && heads.context_slots == 0);
    let off =
        Config::resolve(None, &["adapter.gated_query=false", "adapter.context_slots=0"]).unwrap();
    assert!(
        !off.adapter.adapter_config().gated_query
            && off.adapter.adapter_config().context_slots == 0
    );
}

/// Learning rates of every kind: factors, gates, heads, backbone.
#[test]
fn every_kind_has_its_own_learning_rates() {
    let adapter = |factors, heads| [Some(factors), Some(1e-3), Some(heads), None];
    let towers = |backbone| [None, None, Some(1e-3), Some(backbone)];
    let table = [
        ("cp", adapter(0.01, 0.003)),
        ("tucker", adapter(0.003, 0.001)),
        ("tensor_train", adapter(0.003, 0.001)),
        ("lora", adapter(0.003, 0.001)),
        ("dora", adapter(0.003, 0.001)),
        ("vera", adapter(0.003, 0.001)),
        ("ia3", adapter(0.01, 0.001)),
        ("bottleneck", adapter(0.001, 0.001)),
        ("norms", towers(0.001)),
        ("biases", towers(0.001)),
        ("heads", [None, None, Some(0.001), None]),
        ("full", towers(3e-4)),
    ];
    assert_eq!(table.map(|row| row.0), AdapterKind::NAMES);
    for (kind, expected) in table {
        let config = Config::resolve(None, &[format!("adapter.kind={kind}")]).unwrap();
        let LearningRates { factors, gates, heads, backbone } = config.optimizer.lr;
        assert_eq!([factors, gates, heads, backbone], expected, "{kind}");
        // The written file has exactly the rows of the kind, and they are what the optimizer gets.
        let text = config.to_toml().unwrap();
        let written = text.split("[optimizer.lr]").nth(1).unwrap().split("\n[").next().unwrap();
        let groups = config.optimizer.lr.groups(config.adapter.kind, 0.05);
        for (name, rate) in ["factors", "gates", "heads", "backbone"].into_iter().zip(expected) {
            assert_eq!(written.contains(&format!("\n{name} = ")), rate.is_some(), "{kind}: {name}");
            let used = groups.iter().find(|group| group.name == name);
            let used = used.map(|group| group.learning_rate);
            assert_eq!(used, if name == "backbone" { rate.or(heads) } else { rate }, "{kind}");
        }
        let again = Config::resolve_text(Some(("config.toml", &text)), &[] as &[&str]).unwrap();
        assert_eq!(config, again);
    }
}

#[test]
fn a_learning_rate_that_the_kind_does_not_have_is_refused() {
    let e = error("[optimizer.lr]\nbackbone = 1e-4\n", &["adapter.kind=lora"]);
    for part in ["`optimizer.lr.backbone`", "\"lora\"", "are: factors, gates, heads"] {
        assert!(e.contains(part), "{e}");
    }
    let e = error("", &["adapter.kind=heads", "optimizer.lr.gates=1"]);
    assert!(e.contains("`optimizer.lr.gates`") && e.ends_with("are: heads"), "{e}");
    let e = PretrainConfig::resolve(None, &["optimizer.lr.heads=1"]).unwrap_err().to_string();
    assert!(e.contains("unknown key"), "{e}");
    let one = Config::resolve(None, &["adapter.kind=full", "optimizer.lr.backbone=1"]).unwrap();
    let LearningRates { heads, backbone, .. } = one.optimizer.lr;
    assert_eq!((heads, backbone), (Some(1e-3), Some(1.0)));
}

#[test]
fn targets_come_from_the_file_and_from_the_command_line() {
    let set = [
        "adapter.kind=lora",
        "adapter.init=pissa",
        "adapter.targets.target_modules=[\"query\", \"attn.qkv\"]",
        "adapter.targets.layers_to_transform=0-1",
        "adapter.targets.exclude_modules=crossattention.self.query",
        "adapter.modules_to_save=visual_encoder.norm",
    ];
    let file = "[adapter.targets]\ntowers = [\"text\"]\npattern = '.*\\.query'\n";
    let config = Config::resolve_text(Some(("run.toml", file)), &set).unwrap();
    let adapter_config = config.adapter.adapter_config();
    assert_eq!(adapter_config.init, aurora_layers::LoraInit::Pissa);
    assert_eq!(adapter_config.targets.target_modules, ["query", "attn.qkv"]);
    assert_eq!(adapter_config.targets.layers_to_transform[0].to_string(), "0-1");
    assert_eq!(adapter_config.targets.towers, [aurora_layers::Tower::Text]);
    assert_eq!(adapter_config.targets.pattern, r".*\.query");
    assert_eq!(adapter_config.targets.exclude_modules, ["crossattention.self.query"]);
    assert!(adapter_config.modules_to_save.ends_with(&["visual_encoder.norm".to_owned()]));
    let text = config.to_toml().unwrap();
    let again = Config::resolve_text(Some(("config.toml", &text)), &[] as &[&str]).unwrap();
    assert_eq!(config, again);
    for (set, part) in [
        (
            "adapter.targets.layers_to_transform=5-3",
            "`adapter.targets.layers_to_transform` is \"5-3\", allowed: a list of layers",
        ),
        ("adapter.targets.towers=audio", "allowed: a list of \"vision\", \"text\", \"decoder\""),
        (
            "adapter.targets.pattern=(",
            "`adapter.targets.pattern` is \"(\", allowed: a regular expression",
        ),
        (
            "adapter.targets.target_modules=[3]",
            "must be a list of ends of paths, found the whole number 3",
        ),
        ("adapter.targets.target_module=query", "did you mean `adapter.targets.target_modules`?"),
    ] {
        let e = error("", &[set]);
        assert!(e.contains(part), "{e}");
    }
}

proptest! {
    /// Any text gives a configuration or an error, never a panic.
    #[test]
    fn any_text_is_a_configuration_or_an_error(text in "[a-z=\\[\\]\".0-9\n _-]{0,60}", set in ".{0,30}") {
        let _ = Config::resolve_text(Some(("x", &text)), &[set]);
    }

    #[test]
    fn any_value_for_any_key(
        index in any::<prop::sample::Index>(),
        value in prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            "[a-z]{0,8}".prop_map(Value::from),
        ],
    ) {
        let fields = Config::fields();
        let field = fields[index.index(fields.len())];
        let result = Config::resolve(None, &[format!("{}={value}", field.key)]);
        match result {
            Ok(config) => {
                let text = config.to_toml().unwrap();
                prop_assert!(text.parse::<Table>().is_ok());
            }
            Err(e) => prop_assert!(e.to_string().contains(field.key.rsplit('.').next().unwrap())),
        }
    }
}

#[test]
fn auto_cuts_the_graph_down_where_memory_is_short() {
    use aurora_layers::GradientCheckpointing::{Block, None as Keep};
    let cases = [
        (GradientCheckpointing::Auto, 600, Some(1000), Keep),
        (GradientCheckpointing::Auto, 601, Some(1000), Block),
        (GradientCheckpointing::Auto, u64::MAX, None, Keep),
        (GradientCheckpointing::Block, 0, Some(1000), Block),
        (GradientCheckpointing::None, u64::MAX, Some(0), Keep),
    ];
    for (choice, graph, left, wanted) in cases {
        assert_eq!(choice.resolve(graph, left), wanted, "{choice:?} {graph} {left:?}");
    }
    let config = Config::resolve(None, &["gradient_checkpointing=block"]).unwrap();
    assert_eq!(config.gradient_checkpointing, GradientCheckpointing::Block);
    let error = Config::resolve(None, &["gradient_checkpointing=some"]).unwrap_err().to_string();
    assert!(error.contains("checkpoint") && error.contains("\"block\""), "{error}");
}

#[test]
fn precision_is_f32_or_bf16() {
    use aurora_kernels::Precision;
    assert_eq!(Config::resolve(None, &[] as &[&str]).unwrap().precision, MatmulPrecision::F32);
    let config = Config::resolve(None, &["precision=bf16"]).unwrap();
    assert_eq!(Precision::from(config.precision), Precision::Bf16);
    assert!(config.to_toml().unwrap().contains("precision = \"bf16\""));
    let error = Config::resolve(None, &["precision=f16"]).unwrap_err().to_string();
    assert!(error.contains("`precision`") && error.contains("\"bf16\""), "{error}");
}
