//! Import and export of LoRA folders of Hugging Face's PEFT library.
//!
//! A weight delta that is a product of two factors is a LoRA of the same rank, exactly. Gates and context have no place
//! in a LoRA: an export refuses an adapter whose gates have opened, unless told to drop them.

mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::adapter::{Lora, lora_names};
use crate::checkpoint::{read_tensors, to_hugging_face, to_original};
use crate::io::write_text;
use crate::save_load::{CONFIG, WEIGHTS};
use crate::tensors::{self, Tensors};
use crate::{
    AdaptedParams, AdapterConfig, AdapterKind, Backbone, BlipConfig, Error, ParamGroup, Result,
    Variant, gate, sites,
};

use config::LoraConfig;

const PREFIX: &str = "base_model.model.";

/// Exports an adapter as a PEFT LoRA folder for the Hugging Face model of the same weights. Exact: `lora_alpha` equals
/// the rank, so the scale is 1.
///
/// # Errors
/// A kind without factors; gates that are open, unless `drop_gates`; errors of writing.
pub fn export_lora(
    folder: &Path,
    tuned: &AdaptedParams,
    config: &BlipConfig,
    base: &str,
    drop_gates: bool,
) -> Result<()> {
    let no_lora = || {
        let reason = "is no sum of a weight and two factors, as a LoRA is; merge it, or keep the adapter folder";
        Error::config("adapter.kind", tuned.adapter_config.kind.name(), reason)
    };
    let adapter = tuned.adapter_config.adapter().ok_or_else(no_lora)?;
    if !drop_gates {
        closed(tuned)?;
    }
    let mut stored = Tensors::new();
    let mut targets = Vec::new();
    for site in tuned.adapter_config.sites(config)? {
        let Some(factors) = adapter.low_rank(&site, &tuned.tensors)? else { return Err(no_lora()) };
        let name =
            |factor: &str| format!("{PREFIX}{}.{factor}.weight", to_hugging_face(&site.path));
        stored.insert(name("lora_A"), factors.a().detach().contiguous()?);
        stored.insert(name("lora_B"), factors.b().detach().contiguous()?);
        targets.push(to_hugging_face(&site.path));
    }
    let rank = stored.values().next().map_or(Ok(0), |a| a.dim(0))?;
    let mut saved = BTreeSet::new();
    for (name, tensor) in &tuned.tensors {
        if let ParamGroup::Head | ParamGroup::Backbone = AdaptedParams::param_group(name) {
            let name = to_hugging_face(name);
            let module = name.strip_suffix(".weight").or(name.strip_suffix(".bias"));
            saved.insert(module.unwrap_or(&name).to_owned());
            stored.insert(format!("{PREFIX}{name}"), tensor.detach());
        }
    }
    let config = LoraConfig {
        peft_type: "LORA".to_owned(),
        base_model_name_or_path: Some(base.to_owned()),
        r: rank,
        lora_alpha: rank as f64,
        lora_dropout: 0.0,
        bias: config::none(),
        target_modules: targets.into(),
        modules_to_save: (!saved.is_empty()).then(|| saved.into_iter().collect()),
        use_rslora: false,
        use_dora: false,
        fan_in_fan_out: false,
        alpha_pattern: config::Patterns::default(),
        inference_mode: true,
        task_type: None,
        rest: BTreeMap::new(),
    };
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { action, path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
    tensors::write(&stored, &folder.join(WEIGHTS))?;
    let path = folder.join(CONFIG);
    let text = serde_json::to_string_pretty(&config)
        .map_err(|error| Error::Format { path: path.clone(), reason: error.to_string() })?;
    write_text(&path, &(text + "\n"))
}

/// Checks that gates and context add nothing.
fn closed(tuned: &AdaptedParams) -> Result<()> {
    let opens = |name: &str| match tuned.adapter_config.variant {
        Variant::Paper => gate::is_gate(name) || name == crate::context::GATE,
        Variant::Reference => gate::is_name(name),
    };
    for (name, tensor) in tuned.tensors.iter().filter(|(name, _)| opens(name)) {
        let largest = tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        if largest != 0.0 {
            let reason = "is open, and LoRA has no place for it; drop the gates (the outputs change), or merge instead";
            return Err(Error::config(name, largest, reason));
        }
    }
    if tuned.adapter_config.variant == Variant::Reference && tuned.adapter_config.context_slots > 0
    {
        let reason =
            "adds a batch mean, and LoRA has no place for it; drop the gates (the outputs change)";
        return Err(Error::config("context", tuned.adapter_config.context_slots, reason));
    }
    Ok(())
}

/// Imports a PEFT LoRA folder for a BLIP backbone. Factors of different ranks are padded with zeros and scales are
/// folded into B. Where some sites have no LoRA, the targets are those that have one.
///
/// # Errors
/// Options of PEFT that are not supported (DoRA, trained biases, transposed layers); names of no site; factors of
/// another shape than the site's.
pub fn import_lora(folder: &Path, backbone: &Backbone, device: &Device) -> Result<AdaptedParams> {
    let path = folder.join(CONFIG);
    let config = LoraConfig::read(&path)?;
    let weights = folder.join(WEIGHTS);
    let stored = read_tensors(&weights, DType::F32, device)?;
    let mut factors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in stored {
        let short = name.strip_prefix(PREFIX).unwrap_or(&name);
        // The adapter's name may stand before the last component.
        let short = short.replace(".default.", ".").replace(".modules_to_save.", ".");
        factors.insert(to_original(&short), tensor);
    }
    let rank = factors
        .iter()
        .filter(|(name, _)| name.ends_with(".lora_A.weight"))
        .map(|(_, a)| a.dim(0))
        .try_fold(0, |most, rank| Ok::<_, candle_core::Error>(most.max(rank?)))?;
    if rank == 0 {
        let reason = "has no lora_A".to_owned();
        return Err(Error::Format { path: weights, reason });
    }

    let mut adapter_config = AdapterConfig::new(AdapterKind::Lora, Variant::Paper, rank);
    adapter_config.modules_to_save.retain(|head| factors.contains_key(&format!("{head}.weight")));
    let (all, mut targets) = (sites(&backbone.config), Vec::new());
    let mut tensors = Tensors::new();
    for site in &all {
        let (a_name, b_name) = lora_names(site);
        let (a, b) = match (factors.remove(&a_name), factors.remove(&b_name)) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => continue,
            _ => {
                let reason = format!("has one of {a_name} and {b_name}; a LoRA has both");
                return Err(Error::Format { path: weights, reason });
            }
        };
        targets.push(site.path.clone());
        let own = a.dim(0)?;
        let pad = |tensor: &Tensor, dim: usize| tensor.pad_with_zeros(dim, 0, rank - own);
        let alpha = config.alpha(&to_hugging_face(&site.path));
        let scale = Lora { alpha, use_rslora: config.use_rslora, ..Lora::new(own) }.scale();
        if b.dim(1)? != own {
            let reason = format!("{a_name} is {:?} and {b_name} is {:?}", a.dims(), b.dims());
            return Err(Error::Format { path: weights, reason });
        }
        tensors.insert(a_name, pad(&a, 0)?);
        tensors.insert(b_name, (pad(&b, 1)? * scale)?);
    }
    if targets.len() < all.len() {
        adapter_config.targets.target_modules = targets;
    }
    // Heads, other modules of the backbone, and unknown tensors, which the check reports.
    for (name, tensor) in factors {
        let path = name.strip_suffix(".weight").or(name.strip_suffix(".bias")).unwrap_or(&name);
        let known = backbone.tensors.contains_key(&name)
            && AdaptedParams::param_group(&name) == ParamGroup::Backbone;
        if known && !adapter_config.modules_to_save.iter().any(|saved| saved == path) {
            adapter_config.modules_to_save.push(path.to_owned());
        }
        tensors.insert(name, tensor);
    }
    AdaptedParams::from_tensors(
        adapter_config,
        &backbone.config,
        &weights.display().to_string(),
        tensors,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HEADS;
    use crate::adapter::Init;
    use crate::adapter::tests::delta;
    use crate::config::tests::tiny;
    use crate::io::read_json;

    /// Adapter with random factors and initial gates.
    fn moved(kind: AdapterKind) -> (Backbone, AdaptedParams) {
        moved_to(AdapterConfig::new(kind, Variant::Paper, 4))
    }

    fn moved_to(adapter_config: AdapterConfig) -> (Backbone, AdaptedParams) {
        let backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        let mut tuned = AdaptedParams::init(adapter_config, &backbone, 2, &Device::Cpu).unwrap();
        let adapter = tuned.adapter_config.adapter().unwrap();
        for spec in
            adapter.param_specs(&tuned.adapter_config.sites(&backbone.config).unwrap()).unwrap()
        {
            let random = crate::adapter::ParamSpec { init: Init::Normal(0.3), ..spec };
            tuned.tensors.insert(random.name.clone(), random.init_tensor(9, &Device::Cpu).unwrap());
        }
        (backbone, tuned)
    }

    #[test]
    fn every_delta_survives_the_way_out_and_in() {
        for kind in [
            AdapterKind::Cp,
            AdapterKind::Tucker,
            AdapterKind::TensorTrain,
            AdapterKind::Lora,
            AdapterKind::Vera,
        ] {
            let (backbone, tuned) = moved(kind);
            let folder = tempfile::tempdir().unwrap();
            export_lora(folder.path(), &tuned, &backbone.config, "tiny", false).unwrap();
            let back = import_lora(folder.path(), &backbone, &Device::Cpu).unwrap();
            let (before, after) =
                (tuned.adapter_config.adapter().unwrap(), back.adapter_config.adapter().unwrap());
            for site in sites(&backbone.config) {
                let expected = delta(&*before, &site, &tuned.tensors);
                let found = delta(&*after, &site, &back.tensors);
                let worst = (expected - found).unwrap().abs().unwrap().max_all().unwrap();
                assert_eq!(worst.to_scalar::<f32>().unwrap(), 0.0, "{kind:?} {}", site.path);
            }
            for head in HEADS {
                let name = format!("{head}.weight");
                let same = (&tuned.tensors[&name] - &back.tensors[&name]).unwrap();
                assert_eq!(same.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
            }
        }
    }

    /// Targets, further modules and a PiSSA initialization survive the round trip.
    #[test]
    fn targets_further_modules_and_pissa_survive() {
        let mut adapter_config = AdapterConfig::new(AdapterKind::Lora, Variant::Paper, 2);
        adapter_config.init = crate::LoraInit::Pissa;
        adapter_config.alpha = Some(6.0);
        adapter_config.targets.target_modules = vec!["query".into(), "mlp.fc2".into()];
        adapter_config.modules_to_save = vec!["itm_head".into(), "visual_encoder.norm".into()];
        let (backbone, tuned) = moved_to(adapter_config);
        let folder = tempfile::tempdir().unwrap();
        export_lora(folder.path(), &tuned, &backbone.config, "tiny", false).unwrap();
        let written: LoraConfig = read_json(&folder.path().join(CONFIG), "").unwrap();
        assert_eq!(written.target_modules.as_array().unwrap().len(), 6);
        assert_eq!((written.r, written.lora_alpha), (4, 4.0), "twice the rank");
        let back = import_lora(folder.path(), &backbone, &Device::Cpu).unwrap();
        let (before, after) =
            (tuned.adapter_config.adapter().unwrap(), back.adapter_config.adapter().unwrap());
        let chosen = tuned.adapter_config.sites(&backbone.config).unwrap();
        assert_eq!(back.adapter_config.sites(&backbone.config).unwrap(), chosen);
        for site in &chosen {
            let expected = delta(&*before, site, &tuned.tensors);
            let worst = (expected - delta(&*after, site, &back.tensors)).unwrap().abs().unwrap();
            assert_eq!(worst.max_all().unwrap().to_scalar::<f32>().unwrap(), 0.0, "{}", site.path);
        }
        assert_eq!(back.adapter_config.modules_to_save, ["itm_head", "visual_encoder.norm"]);
    }

    #[test]
    fn what_is_no_lora_is_refused_by_name() {
        for kind in [
            AdapterKind::Dora,
            AdapterKind::Ia3,
            AdapterKind::Bottleneck,
            AdapterKind::Norms,
            AdapterKind::Heads,
        ] {
            let backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
            let adapter_config = AdapterConfig::new(kind, Variant::Paper, 2);
            let tuned = AdaptedParams::init(adapter_config, &backbone, 1, &Device::Cpu).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let refused = export_lora(folder.path(), &tuned, &backbone.config, "tiny", false);
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(kind.name()) && message.contains("no sum"), "{message}");
        }
    }

    #[test]
    fn half_a_lora_is_refused_by_name() {
        let (backbone, tuned) = moved(AdapterKind::Lora);
        let folder = tempfile::tempdir().unwrap();
        export_lora(folder.path(), &tuned, &backbone.config, "tiny", false).unwrap();
        let path = folder.path().join(WEIGHTS);
        let mut stored = read_tensors(&path, DType::F32, &Device::Cpu).unwrap();
        let name = "base_model.model.vision_model.encoder.layers.1.mlp.fc1.lora_B.weight";
        assert!(stored.remove(name).is_some());
        tensors::write(&stored, &path).unwrap();
        let message = import_lora(folder.path(), &backbone, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("visual_encoder.blocks.1.mlp.fc1.lora_B.weight"), "{message}");
    }

    #[test]
    fn open_gates_are_refused_by_name_unless_dropped() {
        let (backbone, mut tuned) = moved(AdapterKind::Cp);
        let name = gate::name("text_encoder.encoder.layer.1", "cross", "gate");
        tuned.tensors.insert(name.clone(), Tensor::new(&[0.5f32], &Device::Cpu).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let refused = export_lora(folder.path(), &tuned, &backbone.config, "tiny", false);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(&name) && message.contains("0.5"), "{message}");
        assert!(!folder.path().join(CONFIG).exists());
        export_lora(folder.path(), &tuned, &backbone.config, "tiny", true).unwrap();
    }

    #[test]
    fn what_is_no_plain_lora_is_refused() {
        let (backbone, tuned) = moved(AdapterKind::Lora);
        let folder = tempfile::tempdir().unwrap();
        export_lora(folder.path(), &tuned, &backbone.config, "tiny", false).unwrap();
        let path = folder.path().join(CONFIG);
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, wanted) in [
            ("\"use_dora\": false", "\"use_dora\": true", "use_dora"),
            ("\"LORA\"", "\"IA3\"", "peft_type"),
            ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias"),
        ] {
            assert!(text.contains(from));
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let message =
                import_lora(folder.path(), &backbone, &Device::Cpu).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }
}
