"""What is out of the ordinary in the captions that the adapters are trained on."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence

from gill.backbones.language import LanguageModel

_IMG_TEXT = re.compile(r"\[IMG\d*\]")
_ODDITIES = ("cut", "empty", "naming_img", "other_scripts", "unknown_tokens")


def caption_oddities(
    language: LanguageModel, captions: Sequence[str], max_tokens: int
) -> Counter[str]:
    """How many captions are out of the ordinary, by reason; all of them are trained on.

    ``cut``: longer than ``max_tokens``. ``empty``: no text. ``naming_img``: spell out an [IMG]
    token, which is read as text. ``other_scripts``: have letters that are not Latin.
    ``unknown_tokens``: have parts that the tokenizer does not know.
    """
    unknown = language.unknown_id
    found: Counter[str] = Counter(dict.fromkeys(_ODDITIES, 0))
    for text, ids in zip(captions, language.tokenize(list(captions), sys.maxsize), strict=True):
        found["cut"] += len(ids) > max_tokens
        found["empty"] += not text.strip()
        found["naming_img"] += _IMG_TEXT.search(text) is not None
        found["other_scripts"] += not text.isascii() and any(map(_not_latin, text))
        found["unknown_tokens"] += unknown is not None and unknown in ids
    return found


def _not_latin(letter: str) -> bool:
    return letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN")
