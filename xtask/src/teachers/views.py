"""Views: images rotated, shifted, scaled, colored and blurred at random, and the image teacher's
features of each view. A student trained on the features of each view learns the teacher's
function; one target for all views of an image would teach it less.

Every random number depends on the seed, the image and the number of the view alone."""

import concurrent.futures
import multiprocessing
import os

import numpy as np
from PIL import Image, ImageEnhance

SIDE = 96


def view(pixels, number, seed):
    """View `number` of an image (96, 96, 3) u8; number 0 is the image itself."""
    if number == 0:
        return pixels
    random = np.random.default_rng([seed, number, *pixels.shape, int(pixels.sum())])
    # Mostly the whole drawing, now and then a part of it.
    scale = random.uniform(0.7, 1.4) if random.random() < 0.8 else random.uniform(1.4, 2.2)
    reach = SIDE * 0.12 * max(1.0, scale)
    shift = random.uniform(-reach, reach, 2) / scale
    angle = np.deg2rad(random.uniform(-14, 14))
    mirror = random.choice([-1, 1])
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    matrix = np.array([[mirror * cos, mirror * sin], [-sin, cos]])  # output to source
    center = np.full(2, SIDE / 2)
    offset = center + shift - matrix @ center
    affine = (*matrix[0], offset[0], *matrix[1], offset[1])
    image = Image.fromarray(pixels)
    image = image.transform((SIDE, SIDE), Image.AFFINE, affine, Image.BILINEAR, fillcolor=(255,) * 3)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(random.uniform(0.8, 1.2))
    if random.random() < 0.08:
        image = image.convert("L").convert("RGB")
    if random.random() < 0.5:  # other sets come in fewer pixels
        fewer = int(random.integers(40, 89))
        image = image.resize((fewer, fewer), Image.BILINEAR).resize((SIDE, SIDE), Image.BICUBIC)
    return np.asarray(image)


def work(arguments):
    """One process's share: (views, pooled, local) with the parts projected on `directions`."""
    images, counts, seed, lite0, mean, directions = arguments
    from networks import lite0 as network, parts, read_legacy

    forward = network(read_legacy(lite0))
    seen = [view(p, n, seed) for p, count in zip(images, counts) for n in range(count)]
    pooled, local = [], []
    for start in range(0, len(seen), 256):
        found = parts(forward, seen[start:start + 256])  # (256, 6, 6, 1280)
        pooled.append(found.mean((1, 2)))
        found = found.reshape(len(found), -1, found.shape[-1])
        local.append(((found - mean) @ directions.T).astype(np.float16))
    return np.stack(seen), np.concatenate(pooled), np.concatenate(local)


def all_views(images, counts, seed, lite0, mean, directions, progress):
    """Views of all images in order, `counts[i]` of image i, computed by every core."""
    # Small shares, so that progress shows and memory stays bounded; one thread a process.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    shares = [slice(start, start + 250) for start in range(0, len(images), 250)]
    jobs = [(images[s], counts[s], seed, lite0, mean, directions) for s in shares]
    done = []
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), spawn) as pool:
        for found in pool.map(work, jobs):
            done.append(found)
            progress(sum(len(f[0]) for f in done), sum(counts))
    return [np.concatenate(column) for column in zip(*done)]
