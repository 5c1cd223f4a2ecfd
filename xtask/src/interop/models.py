"""Models of transformers with random weights, LoRAs of peft, and their outputs; then a comparison with ours.

    models.py make OUT      writes models, LoRAs, inputs and expected outputs
    models.py compare OUT   reads what the Rust example `interop` wrote, prints a line a check, fails above 1e-4

Run by `cargo xtask interop`. Everything is a function of the seeds.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

ALLOWED = 1e-4
PAD, SEP, DEC, ENC = 0, 102, 30522, 30523
WORDS = 8
KINDS = {"retrieval": BlipForImageTextRetrieval, "vqa": BlipForQuestionAnswering,
         "captioning": BlipForConditionalGeneration}
LORAS = {
    "plain": dict(r=8, lora_alpha=16, target_modules=["qkv", "projection", "query", "value"],
                  modules_to_save=["itm_head"]),
    "rslora": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=r".*\.(qkv|key|fc1|fc2)",
                   lora_dropout=0.1),
    "patterns": dict(r=8, lora_alpha=16, target_modules=["qkv", "projection", "fc1", "fc2", "query", "key", "value"],
                     rank_pattern={"qkv": 4, r"layers\.0\.mlp\.fc2": 2, "crossattention.self.query": 16},
                     alpha_pattern={"query": 40, r"layers\.[0-5]\.self_attn\.qkv": 3, "self.key": 5, "fc": 99},
                     modules_to_save=["itm_head", "vision_proj", "text_proj"]),
}


def randomized(model, seed):
    """Moves every weight off its initialization: norms away from one, biases away from zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(value + 0.1 * noise if value.ndim == 1 else 0.03 * noise)
    return model.eval()


def config():
    """Configuration of BLIP-base as its checkpoints have it: 12 text heads, and the vocabulary with [DEC] and [ENC]."""
    return BlipConfig(text_config=dict(num_attention_heads=12, vocab_size=30524),
                      vision_config=dict(image_size=384, num_attention_heads=12))


def inputs(size, batch, length, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, 30522, (batch, length), generator=generator)
    ids[:, 0] = 101
    mask = torch.ones_like(ids)
    for row in range(1, batch):  # rows of different length
        end = length - 3 * row
        ids[row, end - 1], ids[row, end:], mask[row, end:] = 102, 0, 0
    return {"pixel_values": torch.randn((batch, 3, size, size), generator=generator), "input_ids": ids,
            "attention_mask": mask}


def outputs(model, given):
    """Vision states, cosines, matching logits. Fused texts begin with [ENC], as in the retrieval code of BLIP."""
    with torch.no_grad():
        itc = model(**given, use_itm_head=False, interpolate_pos_encoding=True)
        itm = model(**with_enc(given), use_itm_head=True, interpolate_pos_encoding=True)
    return {"vision": itc.last_hidden_state.contiguous(), "itc": itc.itm_score, "itm": itm.itm_score}


def with_enc(given):
    """Inputs with texts beginning with [ENC], as the original code has them in the fused passes."""
    ids = given["input_ids"].clone()
    ids[:, 0] = ENC
    return {**given, "input_ids": ids}


def written(rows):
    """Generated rows without [DEC], without what follows the end, padded to the same length."""
    clean = torch.full((len(rows), WORDS), PAD)
    for row, ids in zip(clean, rows[:, 1:].tolist()):
        words = ids[:ids.index(SEP)] if SEP in ids else ids
        row[:len(words)] = torch.tensor(words, dtype=row.dtype)
    return clean


def targets(ids, mask):
    return ids.masked_fill(mask == 0, -100)


GREEDY = dict(max_new_tokens=WORDS, do_sample=False, num_beams=1, interpolate_pos_encoding=True)


def make_vqa(out):
    model = randomized(BlipForQuestionAnswering(config()), 2)
    model.save_pretrained(out / "vqa")
    given, answers = inputs(224, 3, 16, 5), inputs(32, 3, 9, 6)
    ids, mask = answers["input_ids"], answers["attention_mask"]
    ids[:, 0] = DEC
    save_file({**given, "decoder_input_ids": ids, "decoder_attention_mask": mask}, out / "vqa.inputs.safetensors")
    with torch.no_grad():
        loss = model(**with_enc(given), decoder_input_ids=ids, decoder_attention_mask=mask, labels=targets(ids, mask),
                     interpolate_pos_encoding=True).loss
        rows = model.generate(**with_enc(given), **GREEDY)
    save_file({"loss": loss.reshape(1), "generated": written(rows)}, out / "vqa.expected.safetensors")


def make_captioning(out):
    model = randomized(BlipForConditionalGeneration(config()), 3)
    model.save_pretrained(out / "captioning")
    given = inputs(224, 3, 12, 8)
    given["input_ids"][:, 0] = DEC
    save_file(given, out / "captioning.inputs.safetensors")
    labels = targets(given["input_ids"], given["attention_mask"])
    with torch.no_grad():
        found = model(**given, labels=labels, interpolate_pos_encoding=True)
        # This method drops the last token of its input.
        prompt = torch.tensor([[DEC, SEP]] * len(labels))
        rows = model.generate(pixel_values=given["pixel_values"], input_ids=prompt, **GREEDY)
    save_file({"logits": found.logits, "loss": found.loss.reshape(1), "generated": written(rows)},
              out / "captioning.expected.safetensors")


def train(model, steps):
    """Trains a few steps on random data, so that no factor is at its initialization."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    model.train()
    for step in range(steps):
        given = inputs(64, 4, 14, 100 + step)
        itc = model(**given, use_itm_head=False, interpolate_pos_encoding=True).itm_score
        itm = model(**given, use_itm_head=True, interpolate_pos_encoding=True).itm_score
        right = torch.arange(len(itc))
        loss = torch.nn.functional.cross_entropy(itc / 0.07, right) + torch.nn.functional.cross_entropy(itm, right % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def make(out):
    model = randomized(BlipForImageTextRetrieval(config()), 1)
    model.save_pretrained(out / "retrieval")
    for size in (384, 224):
        given = inputs(size, 3, 20, size)
        save_file(given, out / f"inputs_{size}.safetensors")
        save_file(outputs(model, given), out / f"retrieval_{size}.expected.safetensors")
    make_vqa(out)
    make_captioning(out)
    given = load_file(out / "inputs_224.safetensors")
    for name, options in LORAS.items():
        torch.manual_seed(7)
        fresh = BlipForImageTextRetrieval.from_pretrained(out / "retrieval")
        tuned = train(get_peft_model(fresh, LoraConfig(**options)), 3)
        tuned.save_pretrained(out / f"lora_{name}")
        save_file(outputs(tuned, given), out / f"lora_{name}.expected.safetensors")


def difference(found, expected):
    """Largest absolute difference; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    return (found - expected).abs().max().item()


class Report:
    def __init__(self):
        self.failed = False

    def line(self, what, largest, allowed, note=""):
        # NaN is no agreement.
        fine = largest <= allowed
        self.failed |= not fine
        print(f"{'ok  ' if fine else 'FAIL'} {what}: largest difference {largest:.1e}, allowed {allowed:g}{note}")

    def outputs(self, what, found, expected, base=None):
        """Prints one line per tensor; with the `base` model's outputs, how far the adapter moves them is said too."""
        for name, tensor in expected.items():
            note = f" (values up to {tensor.abs().max():.2g}"
            note += f", moved by up to {difference(tensor, base[name]):.2g})" if base else ")"
            self.line(f"{what}, {name}", difference(found[name], tensor), ALLOWED, note)


def compare(out):
    report = Report()
    for size in (384, 224):
        found = load_file(out / f"retrieval_{size}.ours.safetensors")
        report.outputs(f"forward at {size} px", found, load_file(out / f"retrieval_{size}.expected.safetensors"))
    for model in ("vqa", "captioning"):
        found, expected = (load_file(out / f"{model}.{side}.safetensors") for side in ("ours", "expected"))
        report.outputs(f"{model} at 224 px", found, expected)
    base = load_file(out / "retrieval_224.expected.safetensors")
    given = load_file(out / "inputs_224.safetensors")
    model = BlipForImageTextRetrieval.from_pretrained(out / "retrieval")
    exported = PeftModel.from_pretrained(model, out / "cp_export").eval()
    ours = load_file(out / "cp_export.ours.safetensors")
    report.outputs("our CP adapter as a LoRA in peft", outputs(exported, given), ours, base)
    for name in LORAS:
        found = load_file(out / f"lora_{name}.ours.safetensors")
        expected = load_file(out / f"lora_{name}.expected.safetensors")
        report.outputs(f"peft's LoRA ({name}) imported", found, expected, base)
    for name, kind in KINDS.items():
        original = kind.from_pretrained(out / name).state_dict()
        back, loading = kind.from_pretrained(out / f"written_{name}", output_loading_info=True)
        odd = {key: sorted(map(str, value)) for key, value in loading.items() if value}
        report.line(f"our checkpoint ({name}) in transformers, keys missing or unexpected", sum(map(len, odd.values())),
                    0, f" {json.dumps(odd)}" if odd else "")
        back = back.state_dict()
        report.line(f"our checkpoint ({name}) in transformers, {len(original)} tensors",
                    max(difference(back[key], value) for key, value in original.items()), 0)
    sys.exit(report.failed)


if __name__ == "__main__":
    torch.set_grad_enabled(True)
    {"make": make, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
