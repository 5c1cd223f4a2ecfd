"""Mixed text from a seed: common and rare input of a tokenizer."""

import random
import unicodedata

# First and last code points. Combining marks, vowel signs and unassigned code points are meant to be among them.
SCRIPTS = {
    "latin": (0x61, 0x7A), "latin upper": (0x41, 0x5A), "latin 1": (0xC0, 0xFF), "latin extended": (0x100, 0x24F),
    "vietnamese": (0x1EA0, 0x1EF9), "greek": (0x370, 0x3FF), "greek extended": (0x1F00, 0x1FFF),
    "cyrillic": (0x400, 0x4FF), "armenian": (0x531, 0x58F), "hebrew": (0x591, 0x5F4), "arabic": (0x600, 0x6FF),
    "devanagari": (0x900, 0x97F), "tamil": (0xB80, 0xBFF), "thai": (0xE01, 0xE5B), "tibetan": (0xF00, 0xFFF),
    "georgian": (0x10A0, 0x10FF), "jamo": (0x1100, 0x11FF), "ethiopic": (0x1200, 0x137F), "khmer": (0x1780, 0x17FF),
    "hiragana": (0x3041, 0x309F), "katakana": (0x30A0, 0x30FF), "bopomofo": (0x3105, 0x312F), "hangul": (0xAC00, 0xD7A3),
    "chinese": (0x4E00, 0x9FFF), "chinese a": (0x3400, 0x4DBF), "chinese b": (0x20000, 0x2A6DF),
    "chinese compatibility": (0xF900, 0xFAFF), "chinese supplement": (0x2F800, 0x2FA1F), "chinese g": (0x30000, 0x3134A),
    "full width": (0xFF01, 0xFF9F), "mathematical": (0x1D400, 0x1D7FF), "ligatures": (0xFB00, 0xFB4F),
    "gothic": (0x10330, 0x1034A), "deseret": (0x10400, 0x1044F), "adlam": (0x1E900, 0x1E95F),
}
RANGES = {
    "emoji": (0x1F300, 0x1FAFF), "dingbats": (0x2700, 0x27BF), "flags": (0x1F1E6, 0x1F1FF), "arrows": (0x2190, 0x21FF),
    "punctuation": (0x2010, 0x205E), "chinese punctuation": (0x3000, 0x303F), "money": (0x20A0, 0x20C0),
    "superscripts": (0x2070, 0x209C), "letterlike": (0x2100, 0x214F), "numbers": (0x2150, 0x218B),
    "marks": (0x300, 0x36F), "private": (0xE000, 0xF8FF), "anything": (0, 0x10FFFF), "controls": (0, 0x20),
    "controls 1": (0x7F, 0xA0), "formats": (0x200B, 0x2010), "separators": (0x2028, 0x2030), "tags": (0xE0000, 0xE007F),
}
ENGLISH = ("a an the of and with on in man woman child dog cat horse bicycle umbrella kitchen counter standing walking "
           "photograph black white striped overlooking skateboarder unbelievably antidisestablishmentarianism "
           "snowboarding giraffe's don't they're co-operative mother-in-law U.S.A. e.g. naïve café façade Zürich "
           "São Ångström İstanbul ıssız ΟΔΟΣ ὈΔΥΣΣΕΎΣ straße ﬁnale ŒUVRE ǅungla resume\u0301 1,234.56 3rd 2x4 10% "
           "№5 ½ x² H₂O CO₂ :-) ;) <3 #hashtag @someone $5.00 £3 €20 ¥ rock'n'roll “quoted” ‘single’ — … ¿qué? ¡ay!").split()
SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK] [DEC] [ENC] [sep] [UNK [SEP]] ##ing ## [unused1]".split()
SPACES = [" "] * 12 + ["  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u00ad", "\ufeff", "\x00", "\ufffd",
                       "\x85", "\u2028", "\u180e", "\x1c", "\x0b"]
ZWJ, SELECTOR = "\u200d", "\ufe0f"


def character(r, bounds):
    """A code point between the bounds, no surrogate."""
    while True:
        code = r.randint(*bounds)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def word(r):
    kind = r.random()
    if kind < 0.35:
        found = r.choice(ENGLISH)
    elif kind < 0.65:
        bounds = SCRIPTS[r.choice(list(SCRIPTS))]
        found = "".join(character(r, bounds) for _ in range(r.randint(1, 9)))
    elif kind < 0.75:
        bounds = RANGES[r.choice(list(RANGES))]
        found = "".join(character(r, bounds) for _ in range(r.randint(1, 4)))
    elif kind < 0.80:
        pieces = (character(r, RANGES["emoji"]) + r.choice(["", SELECTOR]) for _ in range(r.randint(1, 4)))
        found = ZWJ.join(pieces)
    elif kind < 0.85:
        marks = (character(r, SCRIPTS["latin"]) + "".join(
            character(r, RANGES["marks"]) for _ in range(r.randint(0, 3))) for _ in range(r.randint(1, 6)))
        found = "".join(marks)
    elif kind < 0.90:
        host = "".join(character(r, SCRIPTS["latin"]) for _ in range(r.randint(2, 8)))
        found = f"{r.choice(['http', 'https', 'ftp'])}://{host}.example/{r.randint(0, 99999)}?q={host[::-1]}&%C3%A9=1#top"
    elif kind < 0.93:
        found = r.choice(SPECIAL)
    elif kind < 0.96:
        # Around the 100 characters beyond which a word has no pieces, of one and of more bytes.
        found = r.choice(["a", "é", "я", "ab", "字", "𝒜"]) * r.choice([49, 50, 51, 99, 100, 101, 120])
    elif kind < 0.98:
        found = "".join(r.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(r.randint(1, 6)))
    else:
        found = str(r.randint(0, 10 ** r.randint(1, 20)))
    change = r.random()
    if change < 0.1:
        return found.upper()
    if change < 0.2:
        return unicodedata.normalize(r.choice(["NFC", "NFD", "NFKC", "NFKD"]), found)
    return found


def lines(count, seed):
    """`count` texts, some empty; the same seed gives the same texts on one version of Python."""
    r = random.Random(seed)
    texts = []
    for _ in range(count):
        length = r.choice([0, 1, 2, 3, 5, 8, 13, 21])
        glue = lambda: "" if r.random() < 0.1 else r.choice(SPACES)
        texts.append("".join(word(r) + glue() for _ in range(length)))
    return texts


def characters(texts):
    """A vocabulary in which every character that survives tokenizing shows: each alone and as a continuation, and a
    few longer pieces."""
    found = set()
    for text in texts:
        for form in ("NFC", "NFD"):
            changed = unicodedata.normalize(form, text)
            found.update(changed, changed.lower())
    found = sorted(c for c in found if not c.isspace())
    longer = ["the", "dog", "##s", "##ing", "photo", "##graph", "un", "##believ", "##ably", "http", "##ab"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *longer, *found, *("##" + c for c in found)]
    return list(dict.fromkeys(pieces))
