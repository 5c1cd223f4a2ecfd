"""Features of two frozen teachers on the openclipart pack: on views of its images, on its captions.

Run by `cargo xtask teachers`, which makes the environment and the arguments.

Writes teachers.safetensors, every real tensor in f16:
  views            (V, 96, 96, 3) u8, see views.py: first the captioned training images, then
                   the images without caption
  view_rows        (V) row of the image in the pack, -1 without caption
  image            (V, 256) EfficientNet-Lite0, pooled 1280 features, PCA, unit length
  patch_distill    (V, 36, 128) EfficientNet-Lite0 before pooling, PCA, row by row
  image_joint      (V, 128) where a ridge map fitted on the training pairs places the view in the
                   joint space, unit length
  joint_mean       (384) mean of text_all over training
  joint_directions (128, 384) principal directions of text_all over training: the joint space
  text             (N, 384) MiniLM sentence embedding of the caption, unit length
  text_all         (N, 384) MiniLM sentence embedding of "caption, keyword, keyword"
  strings          (M, 384) MiniLM sentence embedding of the lines of strings.tsv
  word_embeddings  (W, width) MiniLM's word embeddings of the vocabulary, PCA, mean 0 and the
                   standard deviation that --word-std names over all entries
"""

import argparse
import gzip
import io
import json
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from networks import lite0, minilm, parts, read_legacy, text_features, tokenizer
from views import SIDE, all_views


def components(rows, width):
    """Mean and the `width` directions of largest variance (width, columns)."""
    mean = rows.mean(0)
    _, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean))
    return mean, vectors[:, ::-1][:, :width].T.astype(np.float32)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ridge(x, y, penalty):
    """Ridge regression from x to y, both centered; the penalty counts in mean variances of x."""
    mean = x.mean(0)
    x = x - mean
    variance = x.var()
    solved = np.linalg.solve(
        x.T @ x / (variance * len(x)) + penalty * np.eye(x.shape[1]), x.T @ y / (variance * len(x)))
    return lambda rows: (rows - mean) @ solved


def recall(scores, k):
    rank = (scores > np.diag(scores)[:, None]).sum(1)
    return 100 * (rank < k).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="u8 pixels without captions")
    parser.add_argument("--lite0", type=Path, required=True)
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--strings", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--views", type=int, default=6, help="of each captioned image")
    parser.add_argument("--views-alone", type=int, default=3, help="of each other image")
    parser.add_argument("--penalty", type=float, default=1.0, help="of the ridge map")
    parser.add_argument("--word-width", type=int, default=192)
    parser.add_argument("--word-std", type=float, default=0.04)
    arguments = parser.parse_args()

    start = time.time()
    keys, records, images = [], [], []
    with tarfile.open(fileobj=gzip.open(arguments.assets / "openclipart.tar.gz")) as tar:
        for member in tar:
            key, extension = member.name.split(".")
            data = tar.extractfile(member).read()
            if extension == "json":
                keys.append(key)
                records.append(json.loads(data))
            else:
                images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert len(records) == len(images), (len(records), len(images))
    train = [i for i, record in enumerate(records) if record["split"] == "train"]
    validation = [i for i, record in enumerate(records) if record["split"] == "validation"]
    alone = np.fromfile(arguments.images, np.uint8).reshape(-1, SIDE, SIDE, 3)

    # Directions of the parts, from a third of the images; then every view.
    forward = lite0(read_legacy(arguments.lite0))
    found = parts(forward, [images[i] for i in train[::3]]).reshape(-1, 1280)
    mean, directions = components(found, 128)
    shown = [images[i] for i in train] + list(alone)
    counts = [arguments.views] * len(train) + [arguments.views_alone] * len(alone)
    progress = lambda done, total: print(f"  {done} of {total} views, {time.time() - start:.0f} s", flush=True)
    views, pooled, local = all_views(
        shown, counts, arguments.seed, arguments.lite0, mean, directions, progress)
    rows = np.repeat([*train, *[-1] * len(alone)], counts)
    clean = np.cumsum([0, *counts])[: len(train)]  # view 0 of each captioned image
    held = parts(forward, [images[i] for i in validation]).mean((1, 2))
    mean, directions = components(pooled[clean], 256)
    image = unit((pooled - mean) @ directions.T)

    with safe_open(arguments.minilm / "model.safetensors", "np") as file:
        weights = {name.removeprefix("bert."): file.get_tensor(name).astype(np.float32)
                   for name in file.keys() if "position_ids" not in name}
    pieces = (arguments.minilm / "vocab.txt").read_text().split("\n")
    pieces = pieces[:-1] if pieces[-1] == "" else pieces
    encode, forward = tokenizer(pieces), minilm(weights)
    captions = [record["caption"] for record in records]
    everything = [", ".join([record["caption"], *record["keywords"]]) for record in records]
    lines = arguments.strings.read_text().splitlines()
    strings = [line.split("\t", 1)[1] for line in lines]
    text, text_all, extra = (text_features(t, encode, forward) for t in (captions, everything, strings))
    print(f"{len(captions)} captions and {len(strings)} strings through MiniLM, {time.time() - start:.0f} s")

    # The joint space, and an image's place in it: roots of the features, which are rectified and
    # have long tails, then ridge regression.
    text_mean, text_directions = components(text_all[train], 128)
    place = lambda texts: unit((texts - text_mean) @ text_directions.T)
    to_text = ridge(np.sqrt(pooled[clean]), text_all[train] - text_mean, arguments.penalty)
    image_joint = unit(to_text(np.sqrt(pooled)) @ text_directions.T)
    scores = unit(to_text(np.sqrt(held)) @ text_directions.T) @ place(text_all[validation]).T
    print(f"ridge map, {len(validation)} unseen images (chance R@10 {1000 / len(validation):.1f}): "
          f"image to text R@1 {recall(scores, 1):.1f} R@10 {recall(scores, 10):.1f}, "
          f"text to image R@1 {recall(scores.T, 1):.1f} R@10 {recall(scores.T, 10):.1f}")

    index = {piece: i for i, piece in enumerate(pieces)}
    ours = (arguments.assets / "vocab.txt").read_text().split()
    table = weights["embeddings.word_embeddings.weight"]
    fallback = {"[ENC]": "[CLS]", "[DEC]": "[SEP]"}
    table = table[[index[fallback.get(piece, piece)] for piece in ours]]
    mean, directions = components(table, arguments.word_width)
    words = (table - mean) @ directions.T
    words *= arguments.word_std / words.std()

    tensors = {"views": views, "view_rows": rows.astype(np.int64), "image": image,
               "patch_distill": local, "image_joint": image_joint, "joint_mean": text_mean,
               "joint_directions": text_directions, "text": text, "text_all": text_all,
               "strings": extra, "word_embeddings": words}
    for name, tensor in tensors.items():
        dtype = tensor.dtype if tensor.dtype.kind in "iu" else np.float16
        tensors[name] = np.ascontiguousarray(tensor, dtype)
        print(f"{name:16} {tensor.shape}")
    save_file(tensors, arguments.out, {"keys": json.dumps(keys)})


if __name__ == "__main__":
    main()
