"""Makes `images.tar.gz`, the fixtures of `tests/it/images.rs`, with Pillow.

    python crates/aurora-data/tests/images/make.py

Every file is beside Pillow's result, `NAME.expected.webp`: rotated by its EXIF orientation, composited on
white where it is transparent, as RGB. The image is composed of two drawings of the embedded pack.
"""

import gzip
import io
import random
import struct
import tarfile
import zlib
from pathlib import Path

from PIL import Image, ImageOps, __version__ as pillow

HERE = Path(__file__).parent
ASSETS = HERE.parent.parent / "assets"
WIDTH, HEIGHT = 61, 43


def drawing():
    with tarfile.open(ASSETS / "openclipart.tar.gz") as archive:
        names = [name for name in archive.getnames() if name.endswith(".webp")]
        picks = random.Random(6).sample(names, 2)
        canvas = Image.new("RGB", (WIDTH, HEIGHT))
        for number, name in enumerate(picks):
            image = Image.open(io.BytesIO(archive.extractfile(name).read())).convert("RGB")
            canvas.paste(image.resize((31, 43), Image.Resampling.BICUBIC), (30 * number, 0))
        return canvas


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, color, rows, interlace=0, extra=b""):
    """PNG of unfiltered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def interlaced(image):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = []
    for left, top, across, down in passes:
        for y in range(top, image.height, down):
            rows.append(b"".join(bytes(image.getpixel((x, y))) for x in range(left, image.width, across)))
    return png(image.width, image.height, 8, 2, rows, interlace=1)


def deep(image):
    """16 bits a channel: the high byte is the image's, the low byte a counter."""
    size = len(image.getbands())
    data = image.tobytes()
    wide = b"".join(bytes([v, (7 * i) % 256]) for i, v in enumerate(data))
    step = image.width * size * 2
    rows = [wide[at:at + step] for at in range(0, len(wide), step)]
    return png(image.width, image.height, 16, 0 if size == 1 else 2, rows)


def images():
    rgb = drawing()
    grey = rgb.convert("L")
    alpha = rgb.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    cmyk = rgb.convert("CMYK")
    for y in range(HEIGHT):  # black as well, which the conversion leaves out
        for x in range(WIDTH):
            c, m, yellow, _ = cmyk.getpixel((x, y))
            cmyk.putpixel((x, y), (c, m, yellow, 3 * x))
    for name, sampling in [("444", 0), ("422", 1), ("420", 2)]:
        yield f"{name}.jpg", saved(rgb, "JPEG", quality=90, subsampling=sampling)
        yield f"progressive-{name}.jpg", saved(rgb, "JPEG", quality=90, subsampling=sampling, progressive=True)
    yield "restart.jpg", saved(rgb, "JPEG", quality=90, restart_marker_blocks=3)
    yield "rgb.jpg", saved(rgb, "JPEG", quality=90, keep_rgb=True)
    yield "grey.jpg", saved(grey, "JPEG", quality=90)
    four = saved(cmyk, "JPEG", quality=95)
    yield "cmyk.jpg", four
    yield "progressive-cmyk.jpg", saved(cmyk, "JPEG", quality=95, progressive=True)
    # Equal numbers, declared as YCCK: the last byte of the Adobe segment.
    adobe = four.index(b"Adobe")
    yield "ycck.jpg", four[:adobe + 11] + b"\2" + four[adobe + 12:]
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation-{orientation}.jpg", saved(rgb, "JPEG", quality=90, subsampling=0, exif=exif)
    exif[0x0112] = 6
    yield "orientation-6.png", saved(rgb, "PNG", exif=exif)
    yield "orientation-6.webp", saved(rgb, "WEBP", lossless=True, exif=exif)
    yield "rgb.png", saved(rgb, "PNG")
    yield "rgba.png", saved(alpha, "PNG")
    yield "grey.png", saved(grey, "PNG")
    yield "grey-alpha.png", saved(alpha.convert("LA"), "PNG")
    yield "one-bit.png", saved(grey.convert("1"), "PNG")
    yield "grey-16.png", deep(grey)
    yield "rgb-16.png", deep(rgb)
    palette = rgb.quantize(32)
    yield "palette.png", saved(palette, "PNG")
    yield "palette-4-bit.png", saved(rgb.quantize(12), "PNG")
    yield "palette-alpha.png", saved(palette, "PNG", transparency=bytes(8 * i for i in range(32)))
    yield "colour-key.png", saved(rgb, "PNG", transparency=rgb.getpixel((0, 0)))
    yield "interlaced.png", interlaced(rgb)
    yield "lossy.webp", saved(rgb, "WEBP", quality=85)
    yield "lossless.webp", saved(rgb, "WEBP", lossless=True)
    yield "lossy-alpha.webp", saved(alpha, "WEBP", quality=85)
    yield "lossless-alpha.webp", saved(alpha, "WEBP", lossless=True)
    frames = [rgb, rgb.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    yield "animated.webp", saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    yield "one.gif", saved(palette, "GIF")
    yield "transparent.gif", saved(palette, "GIF", transparency=palette.getpixel((3, 3)))
    yield "interlaced.gif", saved(palette, "GIF", interlace=1)
    yield "animated.gif", saved(palette, "GIF", save_all=True, append_images=[rgb.rotate(90).quantize(16)])


def expected(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I;16":
        # `convert` of 16-bit gray differs between versions; take the high byte.
        image = image.point(lambda v: v / 256).convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")


if __name__ == "__main__":
    print("pillow", pillow)
    with (gzip.GzipFile(HERE / "images.tar.gz", "wb", mtime=0) as packed,
          tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive):
        for name, data in images():
            result = saved(expected(data), "WEBP", lossless=True, quality=100, method=6, exact=True)
            for name, data in [(name, data), (f"{name}.expected.webp", result)]:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
