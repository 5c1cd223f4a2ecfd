//! Configurations as a run writes them, compared with the files of `snapshots/`.

use aurora_train::config::{Config, PretrainConfig, RunConfig};

fn written<C: RunConfig>(name: &str, settings: &[&str]) {
    let text = C::resolve(None, settings).unwrap().to_toml().unwrap();
    let mut options = insta::Settings::clone_current();
    options.set_prepend_module_to_snapshot(false);
    options.set_omit_expression(true);
    options.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn a_run_writes_every_key_with_its_rates() {
    written::<Config>("config_cp", &[]);
    written::<Config>("config_lora", &["adapter.kind=lora", "adapter.rank=8", "adapter.alpha=16"]);
    written::<Config>(
        "config_heads_vqa",
        &[
            "adapter.kind=heads",
            "adapter.variant=reference",
            "task=vqa",
            "model.decoder=from_encoder",
            "data.train=[\"a.json\", \"b.json\"]",
            "evaluation.similarity_weight=2",
        ],
    );
}

#[test]
fn a_pretraining_writes_every_key() {
    written::<PretrainConfig>("config_pretrain", &["seed=9", "model.patch_size=8"]);
}
