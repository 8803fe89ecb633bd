"""Cloned texts: the same words about one visit after another."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.visits.checks.entry import Context, Entry, Suspicion
from app.visits.vocabulary import CheckKind
from app.words import say


def cloned_text(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    """The same note, spaces, punctuation and numbers apart. Short ones like 精神很好 are everybody's."""
    same: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        text = bare(entry.note or "")
        if entry.written and len(text) >= context.limits.text_length:
            same[text].append(entry)
    for text, group in same.items():
        if len(group) >= context.limits.same_text:
            elders = len({entry.elder_id for entry in group})
            key = f"{context.group}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
            figures = {"entries": len(group), "elders": elders, "visit_ids": [str(entry.id) for entry in group[:50]]}
            because = say("check.cloned_text", entries=len(group), elders=elders)
            yield Suspicion(CheckKind.CLONED_TEXT, key, because, figures, group[-1], other=group[0])


def bare(text: str) -> str:
    """Letters only, in one form."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if unicodedata.category(c)[0] == "L")
