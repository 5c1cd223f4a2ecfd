"""Rows of `cargo xtask bench-peers` in PyTorch, written as transformers, peft and BLIP's reference code write them.

Each function takes what `Setting` says and gives two functions: `run`, which is timed, and `check`, which gives the
tensors that our side has to agree with.
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, log_softmax, normalize, softmax
from transformers import BlipForImageTextRetrieval

ENC = 30523
TEMPERATURE, ALPHA, MOMENTUM = 0.07, 0.4, 0.995


@dataclass
class Setting:
    """Setting of one row: its files, image size, images in a batch, element type."""

    out: Path
    size: int
    batch: int
    precision: str

    def backbone(self):
        return BlipForImageTextRetrieval.from_pretrained(self.out / f"model_{self.size}").eval()

    def tuned(self, lora):
        """The backbone with a LoRA of peft, its factors (and saved modules) to be trained."""
        return PeftModel.from_pretrained(self.backbone(), self.out / lora, is_trainable=True)

    def read(self, name):
        return load_file(self.out / f"{name}.safetensors")

    def inputs(self):
        return self.read(f"inputs_{self.size}_{self.batch}")

    def cast(self):
        """Context of a forward pass: bf16 is computed under autocast."""
        return torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext()


def gradients(model):
    """Gradients of the trained tensors by their names in a LoRA folder."""
    names = ((name, value.grad) for name, value in model.named_parameters() if value.grad is not None)
    return {f"grad.{name.removeprefix('base_model.model.').replace('.default.', '.')}": grad.contiguous()
            for name, grad in names}


def vision_trained(setting):
    """a: the vision tower with LoRA on every site, forward and backward."""
    model, given = setting.tuned("lora_vision"), setting.inputs()
    tower = model.base_model.model.vision_model

    def run():
        model.zero_grad(set_to_none=True)
        with setting.cast():
            states = tower(given["pixel_values"]).last_hidden_state
        (states.float() * given["direction"]).sum().backward()
        return states

    def check():
        states = run().detach().float()
        return {"states": states.contiguous(), **gradients(model)}

    return run, check


def vision_frozen(setting):
    """b: the frozen vision tower, forward."""
    tower, pixels = setting.backbone().vision_model, setting.inputs()["pixel_values"]

    @torch.inference_mode()
    def run():
        with setting.cast():
            return tower(pixels).last_hidden_state

    return run, lambda: {"states": run().float().contiguous()}


class Retrieval:
    """c: a step of BLIP's retrieval training: a momentum model of its own, queues, fused passes for right and for wrong
    pairs one after the other."""

    def __init__(self, setting):
        self.setting, self.given = setting, setting.inputs()
        self.live = setting.tuned("lora_all")
        self.follower = copy.deepcopy(self.live).requires_grad_(False)
        trained = [value for value in self.live.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05)
        queue = setting.read("queue")
        self.image_queue, self.text_queue, self.ids_queue = (
            queue[name] for name in ("image_queue", "text_queue", "idx_queue"))
        self.pointer = 0
        self.ids = torch.arange(setting.batch).reshape(1, -1)

    def encode(self, model):
        """Both towers: states and features of unit length."""
        model = model.base_model.model
        images = model.vision_model(self.given["pixel_values"]).last_hidden_state
        texts = model.text_encoder(self.given["input_ids"], self.given["attention_mask"]).last_hidden_state
        return (images, normalize(model.vision_proj(images[:, 0]), dim=-1),
                normalize(model.text_proj(texts[:, 0]), dim=-1))

    @torch.no_grad()
    def follow(self):
        """Updates the moving average of every parameter, then computes the momentum features."""
        for average, live in zip(self.follower.parameters(), self.live.parameters()):
            average.data = average.data * MOMENTUM + live.data * (1 - MOMENTUM)
        _, image, text = self.encode(self.follower)
        return image.float(), text.float()

    @torch.no_grad()
    def enqueue(self, image, text):
        """Enqueues over the oldest slots; the queue's size is a multiple of the batch."""
        here = slice(self.pointer, self.pointer + len(image))
        self.image_queue[:, here], self.text_queue[:, here] = image.T, text.T
        self.ids_queue[:, here] = self.ids
        self.pointer = (self.pointer + len(image)) % self.image_queue.shape[1]

    def contrast(self, image, text, followers):
        """ITC with soft targets, both ways."""
        image_m, text_m = followers
        images = torch.cat([image_m.T, self.image_queue.clone()], dim=1)
        texts = torch.cat([text_m.T, self.text_queue.clone()], dim=1)
        with torch.no_grad():
            right = torch.eq(self.ids.T, torch.cat([self.ids, self.ids_queue], dim=1)).float()
            hard = right / right.sum(1, keepdim=True)
            soft = [softmax(own @ other / TEMPERATURE, dim=1) for own, other in ((image_m, texts), (text_m, images))]
            targets = [ALPHA * part + (1 - ALPHA) * hard for part in soft]
        scores = [image @ texts / TEMPERATURE, text @ images / TEMPERATURE]
        losses = [-(log_softmax(score, dim=1) * target).sum(1).mean() for score, target in zip(scores, targets)]
        self.enqueue(image_m, text_m)
        return (losses[0] + losses[1]) / 2

    @torch.no_grad()
    def draw(self, image, text):
        """A hard negative for every image and every text, in proportion to the softmax similarity."""
        similarity, other = image @ text.T / TEMPERATURE, ~torch.eq(self.ids.T, self.ids)
        rows = range(len(self.ids[0]))
        weights_i2t, weights_t2i = (softmax(part, dim=1) * other for part in (similarity, similarity.T))
        return ([torch.multinomial(weights_t2i[row], 1).item() for row in rows],
                [torch.multinomial(weights_i2t[row], 1).item() for row in rows])

    def match(self, images, negatives):
        """ITM: right pairs in one pass, wrong pairs in another."""
        model, (image_rows, text_rows) = self.live.base_model.model, negatives
        ids, mask = self.given["input_ids"].clone(), self.given["attention_mask"]
        ids[:, 0] = ENC
        right = model.text_encoder(ids, mask, encoder_hidden_states=images).last_hidden_state[:, 0]
        wrong = model.text_encoder(
            torch.cat([ids, ids[text_rows]]), torch.cat([mask, mask[text_rows]]),
            encoder_hidden_states=torch.cat([images[image_rows], images])).last_hidden_state[:, 0]
        logits = model.itm_head(torch.cat([right, wrong])).float()
        labels = torch.cat([torch.ones(len(right), dtype=torch.long), torch.zeros(len(wrong), dtype=torch.long)])
        return cross_entropy(logits, labels)

    def losses(self, negatives=None):
        with self.setting.cast():
            images, image, text = self.encode(self.live)
            followers = self.follow()
        itc = self.contrast(image.float(), text.float(), followers)
        negatives = negatives or self.draw(image.float(), text.float())
        with self.setting.cast():
            return itc, self.match(images, negatives)

    def run(self):
        itc, itm = self.losses()
        self.optimizer.zero_grad()
        (itc + itm).backward()
        self.optimizer.step()

    def check(self):
        negatives = tuple(self.given[name].tolist() for name in ("image_for_text", "text_for_image"))
        itc, itm = self.losses(negatives)
        (itc + itm).backward()
        return {"itc": itc.detach().reshape(1), "itm": itm.detach().reshape(1), **gradients(self.live)}


def retrieval(setting):
    """c: `run` and `check`, as for the other rows."""
    step = Retrieval(setting)
    return step.run, step.check


def rerank(setting, one_text):
    """d: matching logits of one text with every candidate image, or the other way round: what there is one of is
    repeated."""
    model, given = setting.backbone(), setting.read(f"candidates_{setting.size}")
    ids, mask, states = given["input_ids"], given["attention_mask"], given["image_states"]
    ids[:, 0] = ENC
    count = len(states)

    @torch.inference_mode()
    def run():
        with setting.cast():
            if one_text:
                seen = model.text_encoder(ids[:1].repeat(count, 1), mask[:1].repeat(count, 1),
                                          encoder_hidden_states=states)
            else:
                seen = model.text_encoder(ids, mask, encoder_hidden_states=states[:1].repeat(count, 1, 1))
            return model.itm_head(seen.last_hidden_state[:, 0])[:, 1]

    return run, lambda: {"logits": run().float().contiguous()}


ROWS = {
    "a": vision_trained,
    "b": vision_frozen,
    "c": retrieval,
    "d_text": lambda setting: rerank(setting, True),
    "d_picture": lambda setting: rerank(setting, False),
}
