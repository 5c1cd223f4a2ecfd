"""The two frozen teachers in plain JAX and NumPy: both are small enough to write out, and neither
package's own code is executed (the legacy .pth is a pickle; it is read with every global refused
but three)."""

import collections
import pickle
import re
import struct
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image


# ---- EfficientNet-Lite0 ------------------------------------------------------------------

class Legacy(pickle.Unpickler):
    """Reads the torch format before zip files: pickles, then the storages one after another."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return lambda storage, offset, size, stride, *rest: (storage, offset, size, stride)
        if module == "torch" and name in ("FloatStorage", "LongStorage"):
            return {"FloatStorage": "<f4", "LongStorage": "<i8"}[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weight file")

    def persistent_load(self, saved):
        _, kind, key, _, count = saved[:5]
        return (kind, key, count)


def read_legacy(path):
    with open(path, "rb") as file:
        for _ in range(3):  # magic number, protocol version, system information
            Legacy(file).load()
        entries = Legacy(file).load()
        keys = Legacy(file).load()
        kinds = {storage[1]: storage[0] for storage, *_ in entries.values()}
        storages = {}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            kind = np.dtype(kinds[key])
            storages[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    out = {}
    for name, (storage, offset, size, stride) in entries.items():
        flat = storages[storage[1]][offset:]
        strides = [s * flat.itemsize for s in stride]
        out[name] = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, size, strides))
    return out


# repeats, kernel, stride, expansion, channels in, channels out
BLOCKS = [(1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
          (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320)]


def lite0(weights):
    def norm(x, name):
        scale = weights[name + ".weight"] / np.sqrt(weights[name + ".running_var"] + 1e-3)
        return x * scale + (weights[name + ".bias"] - weights[name + ".running_mean"] * scale)

    def pointwise(x, name):
        return x @ weights[name + ".weight"][:, :, 0, 0].T

    def same(x, kernel, stride):
        size = x.shape[1]
        pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return jnp.pad(x, ((0, 0), (pad // 2, pad - pad // 2), (pad // 2, pad - pad // 2), (0, 0)))

    def windows(x, kernel, stride):
        x = same(x, kernel, stride)
        out = (x.shape[1] - kernel) // stride + 1
        for i in range(kernel):
            for j in range(kernel):
                yield i, j, x[:, i:i + stride * (out - 1) + 1:stride,
                              j:j + stride * (out - 1) + 1:stride]

    relu6 = lambda x: jnp.clip(x, 0, 6)

    def forward(x):  # (batch, side, side, 3)
        stem = weights["_conv_stem.weight"]  # (32, 3, 3, 3)
        x = sum(w @ stem[:, :, i, j].T for i, j, w in windows(x, 3, 2))
        x = relu6(norm(x, "_bn0"))
        number = 0
        for repeats, kernel, stride, expand, inside, outside in BLOCKS:
            for repeat in range(repeats):
                name, before = f"_blocks.{number}.", x
                step = stride if repeat == 0 else 1
                if expand != 1:
                    x = relu6(norm(pointwise(x, name + "_expand_conv"), name + "_bn0"))
                depth = weights[name + "_depthwise_conv.weight"]  # (channels, 1, k, k)
                x = sum(w * depth[:, 0, i, j] for i, j, w in windows(x, kernel, step))
                x = relu6(norm(x, name + "_bn1"))
                x = norm(pointwise(x, name + "_project_conv"), name + "_bn2")
                if repeat > 0 or (step == 1 and inside == outside):
                    x = x + before
                number += 1
        return relu6(norm(pointwise(x, "_conv_head"), "_bn1"))  # (batch, side / 32, side / 32, 1280)

    return jax.jit(forward)


def parts(forward, images, batch=32):
    """(N, 6, 6, 1280) of N images (side, side, 3) u8: at 192 pixels the network sees a part of
    each 32, as many as a vision transformer has patches at 96 pixels and 16 a patch."""
    out = []
    for start in range(0, len(images), batch):
        chunk = images[start:start + batch]
        sized = [Image.fromarray(p).resize((192, 192), Image.BICUBIC) for p in chunk]
        x = np.zeros((batch, 192, 192, 3), np.float32)
        x[: len(chunk)] = np.stack([np.asarray(p, np.float32) for p in sized])
        # The network's own scaling in TensorFlow, where the weights come from.
        out.append(np.asarray(forward((x - 127.0) / 128.0))[: len(chunk)])
    return np.concatenate(out)


# ---- MiniLM ------------------------------------------------------------------------------

def tokenizer(pieces):
    index = {piece: i for i, piece in enumerate(pieces)}

    def encode(text):
        text = unicodedata.normalize("NFD", text.lower())
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
        ids = [index["[CLS]"]]
        for word in re.findall(r"\w+|[^\w\s]", text.replace("_", " _ ")):
            found, rest = [], word
            while rest:
                prefix = "##" if found else ""
                for end in range(len(rest), 0, -1):
                    if prefix + rest[:end] in index:
                        found.append(index[prefix + rest[:end]])
                        rest = rest[end:]
                        break
                else:
                    found, rest = [index["[UNK]"]], ""
            ids += found
        return ids[:126] + [index["[SEP]"]]

    return encode


def minilm(weights, layers=6, heads=12):
    weights = {name: jnp.asarray(value) for name, value in weights.items()}

    def linear(x, name):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(x, name):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(var + 1e-12) * weights[name + ".weight"] + weights[name + ".bias"]

    def forward(ids, mask):  # (batch, length)
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        batch, length, width = x.shape
        split = lambda t: t.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)
        for layer in range(layers):
            name = f"encoder.layer.{layer}."
            q, k, v = (split(linear(x, f"{name}attention.self.{n}")) for n in ("query", "key", "value"))
            scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(width // heads)
            scores = jnp.where(mask[:, None, None, :] > 0, scores, -1e9)
            mixed = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(batch, length, width)
            x = norm(x + linear(mixed, name + "attention.output.dense"), name + "attention.output.LayerNorm")
            inner = jax.nn.gelu(linear(x, name + "intermediate.dense"), approximate=False)
            x = norm(x + linear(inner, name + "output.dense"), name + "output.LayerNorm")
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)

    return jax.jit(forward)


def text_features(texts, encode, forward, batch=128):
    encoded = [encode(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    out = np.zeros((len(texts), 384), np.float32)
    for start in range(0, len(order), batch):
        rows = order[start:start + batch]
        # A few lengths only, so that few shapes are compiled.
        length = -(-max(len(encoded[i]) for i in rows) // 8) * 8
        ids = np.zeros((batch, length), np.int32)
        mask = np.zeros((batch, length), np.float32)
        mask[len(rows):, 0] = 1
        for row, i in enumerate(rows):
            ids[row, : len(encoded[i])] = encoded[i]
            mask[row, : len(encoded[i])] = 1
        out[rows] = np.asarray(forward(ids, mask))[: len(rows)]
    return out
