"""Makes the fixtures of `tests/it/transforms.rs` with Pillow and torchvision.

    python crates/aurora-data/tests/transform/make.py

Needs pillow, torch and torchvision; writes beside itself: `cases.tar.gz`, `crops.jsonl`, `normalized.json`.
The images are drawings of the two embedded packs, alone or composed to other sizes.
"""

import gzip
import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import torch
import torchvision
from PIL import Image, ImageEnhance, ImageOps, __version__ as pillow
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

HERE = Path(__file__).parent
ASSETS = HERE.parent.parent / "assets"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
GREY = (128, 128, 128)

# Sizes of the composed images.
SIZES = [(480, 360), (431, 287), (287, 431), (520, 96), (96, 400), (600, 150), (225, 224),
         (384, 250), (383, 200), (223, 97), (50, 37), (17, 130), (150, 151)]


def pack(name):
    with tarfile.open(ASSETS / f"{name}.tar.gz") as archive:
        for entry in archive:
            if entry.name.endswith(".webp"):
                yield Image.open(io.BytesIO(archive.extractfile(entry).read())).convert("RGB")


def images():
    draw = random.Random(6)
    drawings = list(pack("openclipart"))
    emoji = list(pack("noto"))
    yield from draw.sample(drawings, 4)
    yield from draw.sample(emoji, 3)
    for width, height in SIZES:
        canvas = Image.new("RGB", (width, height))
        for top in range(0, height, 96):
            for left in range(0, width, 96):
                canvas.paste(draw.choice(drawings), (left, top))
        yield canvas


def sampled(image, step):
    """Every `step`-th pixel, as an image of one row."""
    pixels = list(image.get_flattened_data())[::step]
    row = Image.new("RGB", (len(pixels), 1))
    row.putdata(pixels)
    return row


def affine(image, matrix):
    """Pillow's bilinear affine warp with gray outside. `matrix` maps output to source pixel coordinates."""
    margin = 64
    wide = ImageOps.expand(image, margin, GREY)
    a, b, c, d, e, f = matrix
    # Pillow's coordinates have the center of the first pixel at 1/2, and the margin moves the origin.
    origin = margin + 0.5
    c += origin - a * origin - b * origin
    f += origin - d * origin - e * origin
    moved = wide.transform(wide.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    return moved.crop((margin, margin, margin + image.width, margin + image.height))


def rotate(image, degrees):
    margin = 64
    wide = ImageOps.expand(image, margin, GREY)
    turned = F.rotate(wide, degrees, InterpolationMode.BILINEAR, fill=GREY)
    return turned.crop((margin, margin, margin + image.width, margin + image.height))


def operations(image):
    yield "auto_contrast", F.autocontrast(image)
    yield "equalize", F.equalize(image)
    yield "flip", F.hflip(image)
    for factor in (0.1, 0.55, 1.0, 1.45, 1.9):
        yield f"brightness {factor}", ImageEnhance.Brightness(image).enhance(factor)
        yield f"sharpness {factor}", ImageEnhance.Sharpness(image).enhance(factor)
    for shear in (0.15, -0.15, 0.3):
        yield f"shear_x {shear}", affine(image, (1, -shear, 0, 0, 1, 0))
        yield f"shear_y {shear}", affine(image, (1, 0, 0, -shear, 1, 0))
    for offset in (5, -5, 10):
        yield f"translate_x {offset}", affine(image, (1, 0, offset, 0, 1, 0))
        yield f"translate_y {offset}", affine(image, (1, 0, 0, 0, 1, offset))
    for degrees in (15, -15, 30):
        yield f"rotate {degrees}", rotate(image, degrees)


def cases():
    draw = random.Random(66)
    for number, source in enumerate(images()):
        yield f"{number}/source", source
        scaled = {size: F.resize(source, [size, size], InterpolationMode.BICUBIC) for size in (96, 224, 384)}
        yield f"{number}/resize 96", scaled[96]
        if number in (1, 9):
            yield f"{number}/resize 384", scaled[384]
        else:
            yield f"{number}/resize 224 every 37", sampled(scaled[224], 37)
            yield f"{number}/resize 384 every 61", sampled(scaled[384], 61)
        for size in (96, 384):
            width, height = draw.randint(8, source.width), draw.randint(8, source.height)
            left, top = draw.randint(0, source.width - width), draw.randint(0, source.height - height)
            cut = F.resized_crop(source, top, left, height, width, [size, size], InterpolationMode.BICUBIC)
            yield f"{number}/crop {left} {top} {width} {height} {size} every 61", sampled(cut, 61)
        for name, result in operations(scaled[96]):
            yield f"{number}/{name} every 23", sampled(result, 23)


def write_cases():
    compressed = gzip.GzipFile(HERE / "cases.tar.gz", "wb", mtime=0)
    with compressed, tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, image in cases():
            data = io.BytesIO()
            image.save(data, "WEBP", lossless=True, quality=100, method=6, exact=True)
            entry = tarfile.TarInfo(f"{name}.webp")
            entry.size = data.tell()
            data.seek(0)
            archive.addfile(entry, data)


def write_crops():
    """Boxes of torchvision's random resized crop for given random numbers."""
    draw = random.Random(666)
    record = {}

    def uniform(tensor, low, high):
        number = draw.randrange(1 << 24) / (1 << 24)
        record["uniform"].append(number)
        low, high = torch.tensor([float(low)]), torch.tensor([float(high)])
        return tensor.copy_(number * (high - low) + low)

    def randint(low, high, size):
        assert low == 0 and size == (1,)
        number = draw.randrange(high)
        record["below"].append([high, number])
        return torch.tensor([number])

    torch.Tensor.uniform_, torch.randint = uniform, randint
    sizes = [(640, 480), (480, 640), (1, 1), (2, 3), (500, 1), (1, 500), (3000, 100), (100, 3000), (97, 41),
             (300, 224), (224, 300), (1024, 1023)]
    with open(HERE / "crops.jsonl", "w") as out:
        for width, height in sizes * 12:
            record.update(width=width, height=height, uniform=[], below=[])
            image = torch.empty(3, height, width)
            top, left, tall, wide = RandomResizedCrop.get_params(image, [0.5, 1.0], [3 / 4, 4 / 3])
            record["crop"] = [left, top, wide, tall]
            out.write(json.dumps(record, separators=(",", ":")) + "\n")


def write_normalized():
    """All 256 values of each channel, as torchvision normalizes them."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 256, 1).expand(1, 256, 3).numpy()
    planes = F.normalize(F.to_tensor(values), MEAN, STD).view(3, 256)
    text = ",\n".join(json.dumps([float(f"{v:.9g}") for v in plane.tolist()]) for plane in planes)
    (HERE / "normalized.json").write_text(f"[{text}]\n")


if __name__ == "__main__":
    print("pillow", pillow, "torchvision", torchvision.__version__)
    write_cases()
    write_crops()
    write_normalized()
