"""Models and inputs of both halves of `cargo xtask bench-peers`: a BLIP with random weights, LoRAs of peft, inputs.

Everything is a function of the seeds. What is there already is left as it is.
"""

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import BlipConfig, BlipForImageTextRetrieval

LENGTH = 35
QUEUE = 57_600
CANDIDATES = 128
RANK = 32
CLS, SEP = 101, 102
# Tokens of a caption, [CLS] and [SEP] included, 13 in the mean; the reference code pads all to LENGTH.
LENGTHS = (13, 11, 15, 12, 14, 10, 16, 13)
VISION = ["qkv", "projection", "fc1", "fc2"]
LORAS = {
    "lora_vision": dict(target_modules=VISION),
    "lora_all": dict(target_modules=[*VISION, "query", "key", "value"],
                     modules_to_save=["vision_proj", "text_proj", "itm_head"]),
}


def config(size):
    """BLIP-base as its checkpoints have it: 12 heads in both towers, and the vocabulary with [DEC] and [ENC]."""
    return BlipConfig(text_config=dict(num_attention_heads=12, vocab_size=30524),
                      vision_config=dict(image_size=size, num_attention_heads=12))


def randomize(parameters, generator, deviation):
    """Moves every weight off its initialization: norms away from one, biases and factors away from zero."""
    with torch.no_grad():
        for value in parameters:
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(value + 0.1 * noise if value.ndim == 1 else deviation * noise)


def texts(count, generator):
    """Token ids and mask (count, LENGTH) of captions of the lengths of LENGTHS."""
    ids = torch.randint(1000, 30522, (count, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    ids[:, 0] = CLS
    for row in range(count):
        end = LENGTHS[row % len(LENGTHS)]
        ids[row, end - 1], ids[row, end:], mask[row, end:] = SEP, 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def model(out, size):
    """The folder of the backbone for images of `size` pixels."""
    folder = out / f"model_{size}"
    if not (folder / "config.json").exists():
        fresh = BlipForImageTextRetrieval(config(size))
        randomize(fresh.parameters(), torch.Generator().manual_seed(1), 0.03)
        fresh.save_pretrained(folder)
    return folder


def loras(out, size):
    """Writes two LoRAs with no factor at zero; they fit every image size."""
    for name, options in LORAS.items():
        if (out / name / "adapter_config.json").exists():
            continue
        base = BlipForImageTextRetrieval.from_pretrained(model(out, size))
        tuned = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=RANK, **options))
        factors = [value for key, value in tuned.named_parameters() if "lora_" in key]
        randomize(factors, torch.Generator().manual_seed(2), 0.02)
        tuned.save_pretrained(out / name)


def batch(out, size, count):
    """A batch of images and texts, the direction that row a's loss measures the states in, given negatives."""
    path = out / f"inputs_{size}_{count}.safetensors"
    if path.exists():
        return
    generator = torch.Generator().manual_seed(size + count)
    tokens = (size // 16) ** 2 + 1
    rows = torch.arange(count)
    save_file({
        "pixel_values": torch.randn((count, 3, size, size), generator=generator),
        "direction": torch.randn((count, tokens, 768), generator=generator),
        "image_for_text": (rows + 1) % count,
        "text_for_image": (rows + count - 1) % count,
        **texts(count, generator),
    }, path)


def queue(out):
    """A full queue of features of unit length, in the layout of BLIP's checkpoints."""
    path = out / "queue.safetensors"
    if path.exists():
        return
    generator = torch.Generator().manual_seed(3)
    features = [torch.nn.functional.normalize(torch.randn((256, QUEUE), generator=generator), dim=0) for _ in range(2)]
    save_file({
        "image_queue": features[0], "text_queue": features[1],
        # No id of a batch, which begin at 0, is among them.
        "idx_queue": torch.arange(1_000_000, 1_000_000 + QUEUE).reshape(1, QUEUE),
        "ptr_queue": torch.zeros(1, dtype=torch.int64),
    }, path)


def candidates(out, size):
    """Image states and texts to be re-ranked: the first of one kind against all of the other."""
    path = out / f"candidates_{size}.safetensors"
    if path.exists():
        return
    generator = torch.Generator().manual_seed(4)
    tokens = (size // 16) ** 2 + 1
    save_file({"image_states": torch.randn((CANDIDATES, tokens, 768), generator=generator),
               **texts(CANDIDATES, generator)}, path)


def prepare(out, sizes, batches):
    """Writes every file that is missing for these image sizes and batches."""
    out.mkdir(parents=True, exist_ok=True)
    queue(out)
    for size in sizes:
        model(out, size)
        loras(out, size)
        candidates(out, size)
        for count in batches:
            batch(out, size, count)
