"""The PyTorch half of `cargo xtask bench-loader`: a DataLoader over Pillow and torchvision.

    loader.py prepare PACK OUT --count 400     writes images and texts, and a shard of them
    loader.py work OUT ...                     an epoch: a line of JSON when ready, one for each line `run`
    loader.py work OUT ... --check FILE        instead, the first batch, which ours has to agree with
"""

import argparse
import io
import json
import sys
import tarfile
import time
from pathlib import Path

import PIL
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# Image sizes, in turn: what cameras and the web make of 640 pixels.
SIDES = [(640, 480), (480, 640), (640, 427), (640, 480)]
TILE = 96

# Minimum size of the shard in bytes, so that reading it takes a while.
SHARD_BYTES = 1 << 29


def say(**values):
    print(json.dumps(values), flush=True)


def collage(drawings, number):
    """A collage of drawings, other ones for every number."""
    width, height = SIDES[number % len(SIDES)]
    image = Image.new("RGB", (width, height), "white")
    drawing = number * 41
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            image.paste(drawings[drawing % len(drawings)], (left, top))
            drawing += 1
    return image


def prepare(pack, out, count):
    with tarfile.open(pack) as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".webp"))
        drawings = [Image.open(tar.extractfile(name)).convert("RGB") for name in names]
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        encoded = io.BytesIO()
        # Half the resolution for color, as most JPEGs have it.
        collage(drawings, number).save(encoded, "JPEG", quality=90, subsampling="4:2:0")
        words = f"a collage with number {number}".encode()
        files.append((f"{number:05}", encoded.getvalue(), words))
        (folder / f"{number:05}.jpg").write_bytes(encoded.getvalue())
        (folder / f"{number:05}.txt").write_bytes(words)
    with tarfile.open(out / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        copy, size = 0, 0
        while size < SHARD_BYTES:
            for name, image, words in files:
                for extension, data in [("jpg", image), ("txt", words)]:
                    entry = tarfile.TarInfo(f"{copy:03}-{name}.{extension}")
                    entry.size = len(data)
                    shard.addfile(entry, io.BytesIO(data))
                    size += len(data)
            copy += 1


class Images(torch.utils.data.Dataset):
    """The images of a folder in the order of their names, each with its caption."""

    def __init__(self, folder, size):
        self.files = sorted(folder.glob("*.jpg"))
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD, inplace=True),
            ]
        )

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        file = self.files[index]
        image = self.transform(Image.open(file).convert("RGB"))
        return image, file.with_suffix(".txt").read_text()


def work(arguments):
    images = Images(arguments.out / "images", arguments.size)
    # Persistent workers, so that starting them is in no run.
    loader = torch.utils.data.DataLoader(
        images,
        batch_size=arguments.batch,
        num_workers=arguments.threads,
        persistent_workers=arguments.threads > 0,
    )

    def epoch():
        return sum(len(images) for images, _ in loader)

    if arguments.check:
        save_file({"images": next(iter(loader))[0]}, arguments.check)
        return
    epoch()
    versions = f"torch {torch.__version__} torchvision {torchvision.__version__} pillow {PIL.__version__}"
    say(ready=True, versions=versions)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        start = time.perf_counter()
        count = epoch()
        say(seconds=time.perf_counter() - start, count=count)
    say(peak_bytes=0)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare")
    command.add_argument("pack", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--count", type=int, required=True)
    command = commands.add_parser("work")
    command.add_argument("out", type=Path)
    command.add_argument("--size", type=int, required=True)
    command.add_argument("--batch", type=int, required=True)
    command.add_argument("--threads", type=int, required=True)
    command.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.pack, arguments.out, arguments.count)
    else:
        work(arguments)


if __name__ == "__main__":
    main()
