"""Makes the datasets beside this file.

    python3 make.py

Needs datasets, pyarrow and Pillow. `images` has the images as files; the rest embeds the same bytes:
`datasets` as Hugging Face's library writes a dataset by default, `pyarrow` with what else its writer can do.
"""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow
from PIL import ImageDraw

HERE = Path(__file__).parent


def encoded_image(number):
    drawn = Pillow.new("RGB", (40, 36), (40 * number, 200, 90))
    ImageDraw.Draw(drawn).ellipse((2 + number, 4, 30, 30), fill=(250, 10 * number, 20))
    out = io.BytesIO()
    drawn.save(out, "PNG", optimize=True)
    return out.getvalue()


images = [encoded_image(number) for number in range(6)]
(HERE / "images").mkdir(exist_ok=True)
for number, data in enumerate(images):
    (HERE / "images" / f"{number}.png").write_bytes(data)

rows = [
    {"image": {"bytes": data, "path": f"{number}.png"}, "text": f"picture number {number}", "label": number}
    for number, data in enumerate(images)
]
features = Features({"image": Image(), "text": Value("string"), "label": Value("int64")})
data = HERE / "datasets" / "data"
data.mkdir(parents=True, exist_ok=True)
for name, part in [
    ("train-00000-of-00002", rows[:2]),
    ("train-00001-of-00002", rows[2:5]),
    ("validation-00000-of-00001", rows[5:]),
]:
    Dataset.from_list(part, features=features).to_parquet(data / f"{name}.parquet")

# Dictionaries of images that repeat, second pages, lists with nulls, questions, a split in a column.
order = [0, 1, 0, 2, None, 1]
table = pa.table(
    {
        "image": pa.array(
            [None if at is None else {"bytes": images[at], "path": None} for at in order],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "captions": pa.array(
            [["one", "uno"], [], ["one again", None], None, ["nothing"], ["two"]], pa.list_(pa.string())
        ),
        "question": ["What?", "Which?", None, "Where?", None, None],
        "answers": pa.array(
            [[{"answer": "a", "answer_id": 1}, {"answer": "b", "answer_id": 2}], [], None, None, [], None],
            pa.list_(pa.struct([("answer", pa.string()), ("answer_id", pa.int64())])),
        ),
        "question_id": [11, 12, 13, 14, 15, 16],
        "image_id": pa.array([0, 1, 0, 2, 3, 1], pa.int32()),
        "split": ["train", "train", "val", "test", "train", "train"],
    }
)
(HERE / "pyarrow").mkdir(exist_ok=True)
pq.write_table(
    table,
    HERE / "pyarrow" / "rows.parquet",
    compression="zstd",
    data_page_version="2.0",
    row_group_size=4,
    write_page_checksum=True,
    write_page_index=True,
)
