"""Makes the videos beside this file, and their frames by ffmpeg and Pillow.

    python3 make.py

Needs ffmpeg and ffprobe on PATH and Pillow. For each video NAME.EXT there is NAME.png, its frames one
below the other, each in the upper left corner of its cell, and NAME.json with their sizes and times.
"""

import json
import re
import subprocess
from pathlib import Path

from PIL import Image, ImageDraw, ImageSequence

HERE = Path(__file__).parent


def run(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True).stdout


def ffmpeg(*arguments):
    return run("ffmpeg", "-v", "error", "-nostdin", "-y", "-fflags", "+bitexact", *map(str, arguments))


def expect(name, frames, times):
    """Writes the expected frames of a video and their timestamps."""
    width = max(frame.width for frame in frames)
    height = max(frame.height for frame in frames)
    strip = Image.new("RGB", (width, height * len(frames)))
    for index, frame in enumerate(frames):
        strip.paste(frame.convert("RGB"), (0, index * height))
    strip.save(HERE / f"{name}.png", optimize=True)
    sizes = [list(frame.size) for frame in frames]
    (HERE / f"{name}.json").write_text(json.dumps({"sizes": sizes, "times": times}) + "\n")


def seen_by_ffmpeg(path):
    data = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-")
    frames, at = [], 0
    while at < len(data):
        head = re.compile(rb"P6\n(\d+) (\d+)\n255\n").match(data, at)
        size = int(head[1]), int(head[2])
        end = head.end() + size[0] * size[1] * 3
        frames.append(Image.frombytes("RGB", size, data[head.end() : end]))
        at = end
    return frames


def expect_ffmpeg(video):
    path = HERE / video
    frames = seen_by_ffmpeg(path)
    listed = run(
        "ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries",
        "frame=best_effort_timestamp_time", "-of", "csv=p=0", path,
    ).decode().split()
    times = [float(line.strip(",")) for line in listed]
    expect(path.stem, frames, [round(time - times[0], 6) for time in times])


def source(size, rate=12):
    return "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}"


def x264(*options):
    return "-c:v", "libx264", "-crf", "20", "-bitexact", "-map_metadata", "-1", *options


def videos():
    # Two groups of pictures with B-frames: the presentation order differs from the coding order.
    ffmpeg(*source("64x48"), "-t", 2, *x264("-pix_fmt", "yuv420p", "-g", 12, "-bf", 3), HERE / "reordered.mp4")
    # As phones record: no reordering, and a display matrix that rotates. The size is no multiple of 16.
    ffmpeg(*source("70x50"), "-t", 0.5, *x264("-profile:v", "baseline", "-pix_fmt", "yuv420p"), HERE / "upright.mp4")
    ffmpeg("-i", HERE / "upright.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", HERE / "turned.mp4")
    (HERE / "upright.mp4").unlink()
    for name, pixels, space in [("bt709", "tv", "bt709"), ("full", "pc", "bt709"), ("full601", "pc", "smpte170m")]:
        ffmpeg(
            *source("64x48"), "-t", 0.5, "-vf", f"scale=out_color_matrix={space}:out_range={pixels}",
            *x264("-pix_fmt", "yuvj420p" if pixels == "pc" else "yuv420p"),
            "-colorspace", space, "-color_range", pixels, HERE / f"{name}.mp4",
        )
    # An edit list omits everything before half a second.
    ffmpeg("-ss", 0.5, "-i", HERE / "reordered.mp4", "-c", "copy", HERE / "trimmed.mp4")
    # Frames of two sizes. ffmpeg scales all to the first's, so each part is decoded separately as well.
    parts, frames = [], []
    for size in ["64x48", "32x80"]:
        part = HERE / f"{size}.h264"
        ffmpeg(*source(size), "-t", 0.5, *x264("-pix_fmt", "yuv420p", "-bf", 0), "-f", "h264", part)
        parts.append(part.read_bytes())
        frames += seen_by_ffmpeg(part)
        part.unlink()
    both = HERE / "both.h264"
    both.write_bytes(b"".join(parts))
    ffmpeg("-framerate", 12, "-f", "h264", "-i", both, "-c", "copy", HERE / "sizes.mp4")
    both.unlink()
    expect("sizes_own", frames, [round(index / 12, 6) for index in range(len(frames))])
    for video in ["reordered", "turned", "bt709", "full", "full601", "trimmed", "sizes"]:
        expect_ffmpeg(f"{video}.mp4")
    # Videos that only ffmpeg reads.
    ffmpeg(*source("32x32"), "-t", 0.5, "-c:v", "mpeg4", "-bitexact", HERE / "mpeg4.mp4")
    ffmpeg("-i", HERE / "bt709.mp4", "-c", "copy", "-bitexact", HERE / "matroska.mkv")
    for video in ["mpeg4.mp4", "matroska.mkv"]:
        expect_ffmpeg(video)


def animations():
    frames = []
    for index in range(5):
        frame = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
        draw = ImageDraw.Draw(frame)
        draw.ellipse((index * 5, 4, index * 5 + 16, 24), fill=(250 - 40 * index, 30, 40 * index, 255))
        draw.rectangle((30, index * 4, 38, index * 4 + 8), fill=(20, 200, 90, 255 if index % 2 else 120))
        frames.append(frame)
    solid = [Image.alpha_composite(Image.new("RGBA", f.size, (240, 240, 200, 255)), f).convert("RGB") for f in frames]
    durations = [100, 50, 200, 100, 40]
    shared = {"save_all": True, "duration": durations, "loop": 0}
    indexed = [f.quantize(32) for f in solid]
    indexed[0].save(HERE / "solid.gif", append_images=indexed[1:], **shared)
    opaque = [Image.composite(f, Image.new("RGBA", f.size, (0, 0, 0, 0)), f.getchannel("A").point(lambda a: 255 * (a > 128))) for f in frames]
    opaque[0].save(HERE / "clear.gif", append_images=opaque[1:], disposal=2, **shared)
    frames[0].save(HERE / "clear.png", format="PNG", append_images=frames[1:], disposal=1, blend=0, **shared)
    (HERE / "clear.png").rename(HERE / "clear.apng")
    solid[0].save(HERE / "over.png", append_images=solid[1:], disposal=0, blend=1, **shared)
    (HERE / "over.png").rename(HERE / "over.apng")
    frames[0].save(HERE / "clear.webp", append_images=frames[1:], lossless=True, exact=True, **shared)
    solid[0].save(HERE / "solid.webp", append_images=solid[1:], lossless=True, **shared)
    for video in ["solid.gif", "clear.gif", "clear.apng", "over.apng", "clear.webp", "solid.webp"]:
        seen, times, time = [], [], 0
        with Image.open(HERE / video) as image:
            for frame in ImageSequence.Iterator(image):
                frame.load()
                white = Image.new("RGBA", frame.size, (255, 255, 255, 255))
                white.alpha_composite(frame.convert("RGBA"))
                seen.append(white.convert("RGB"))
                times.append(time / 1000)
                time += frame.info["duration"]
        expect(video.replace(".", "_"), seen, times)


videos()
animations()
