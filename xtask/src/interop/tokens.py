"""Expected token ids: texts and the ids that Hugging Face's BertTokenizer gives them.

    tokens.py VOCABULARY COUNT SEED OUT   COUNT texts through the vocabulary file
    tokens.py characters COUNT SEED OUT   the same through a vocabulary of their characters, written beside OUT

A line of OUT is {"text": .., "max": .., "ids": [..]}; ids are cut to `max`. Run by `cargo xtask interop`; the second form
also made the fixture crates/aurora-data/tests/tokens, with COUNT 300 and SEED 20.
"""

import json
import random
import sys
from pathlib import Path

from text import characters, lines
from transformers import BertTokenizer


def main():
    vocabulary, count, seed, out = sys.argv[1:]
    out = Path(out)
    texts = lines(int(count), int(seed))
    if vocabulary == "characters":
        vocabulary = out.with_suffix(".vocab.txt")
        vocabulary.write_text("\n".join(characters(texts)) + "\n", encoding="utf-8", newline="\n")
    # A folder of its own: from_pretrained reads whatever else lies beside a vocabulary.
    tokenizer = BertTokenizer(str(vocabulary), do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    r = random.Random(int(seed))
    with out.open("w", encoding="ascii") as file:
        for text in texts:
            limit = r.choice([3, 8, 35, 512])
            ids = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
            file.write(json.dumps({"text": text, "max": limit, "ids": ids}) + "\n")


if __name__ == "__main__":
    main()
