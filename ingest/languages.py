"""Which languages a column's texts are in, told from a sample by py3langid (97 languages).

Short texts are left out: a few words are too little to tell from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

ROWS = 200
"""Texts of a column that are looked at: about a millisecond each."""
LETTERS = 40
"""Fewer leave too much doubt."""
CHARACTERS = 500
MIXED_SHARE = 0.1
"""A second language above this share of a column makes it mixed."""


def languages(texts: Iterable[str]) -> dict[str, int]:
    """How many of the texts are in each language (ISO 639-1), the most frequent first."""
    from py3langid import classify  # here, for its model is read on import

    found: Counter[str] = Counter()
    for text in texts:
        head = text[:CHARACTERS]
        if sum(map(str.isalpha, head)) >= LETTERS:
            found[classify(head)[0]] += 1
    return dict(found.most_common())


def is_mixed(found: dict[str, int]) -> bool:
    counts = sorted(found.values(), reverse=True)
    return len(counts) > 1 and counts[1] > 1 and counts[1] > MIXED_SHARE * sum(counts)
