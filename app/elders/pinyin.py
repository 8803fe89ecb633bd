"""How a name is found by its sound: 王桂英 by wgy or wangguiying. Names with several readings are found by each."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from itertools import islice, product

# A name is no phrase: its signs are read one by one, with every reading each of them has. Without the dictionary of
# phrases the process starts a quarter of a second sooner.
os.environ.setdefault("PYPINYIN_NO_PHRASES", "true")

from pypinyin import Style, pinyin

_MOST = 24  # readings of one name that are kept
_TYPED = re.compile(r"[A-Za-z][A-Za-z' ]{0,59}")


@lru_cache(4096)  # many people share a name, and a list of them comes at once
def search_keys(name: str) -> str:
    """Initials and full readings, each after a space: ` wgy wangguiying`. Empty for a name without any letter."""
    syllables = [
        [letters for reading in readings if (letters := re.sub(r"[^a-z]", "", reading.lower()))]
        for readings in pinyin(name, style=Style.NORMAL, heteronym=True)
    ]
    combinations = list(islice(product(*(readings for readings in syllables if readings)), _MOST))
    initials = dict.fromkeys("".join(syllable[0] for syllable in one) for one in combinations)
    whole = dict.fromkeys("".join(one) for one in combinations)
    return "".join(f" {key}" for key in (*initials, *whole) if key)


def as_typed(text: str) -> str | None:
    """The key that somebody typed, or None when it is not letters alone."""
    if not _TYPED.fullmatch(text):
        return None
    return re.sub(r"[^a-z]", "", text.lower().replace("ü", "v"))
