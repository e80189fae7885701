"""Django's messages as parallel texts in ninety languages, fetched with pip."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.ingest.real_data import DJANGO, PAIR, fetched

Pair = tuple[str, str]
HOLD_OUT_EVERY = 5


def catalogues(scratch: Path) -> Path:
    """The package's folder, in `scratch`."""
    return fetched(scratch, DJANGO) / "django"


def messages(package: Path, language: str) -> dict[str, str]:
    """English to `language`, without the messages that have a plural or no translation."""
    found: dict[str, str] = {}
    for path in sorted(package.rglob(f"locale/{language}/LC_MESSAGES/*.po")):
        for match in PAIR.finditer(path.read_text("utf-8")):
            source, target = (
                "".join(map(ast.literal_eval, part.splitlines())) for part in match.groups()
            )
            if source.strip() and target.strip():
                found.setdefault(source, target)
    return found


def pairs(package: Path, source: str, target: str, longest: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held out): every fifth, in the order of the English texts. `source` may be `en`;
    texts of more than `longest` characters are left out."""
    of_target = messages(package, target)
    of_source = messages(package, source) if source != "en" else {text: text for text in of_target}
    both = [
        (of_source[text].strip(), of_target[text].strip())
        for text in sorted(of_source.keys() & of_target.keys())
        if max(len(of_source[text]), len(of_target[text])) <= longest
    ]
    training = [pair for number, pair in enumerate(both) if number % HOLD_OUT_EVERY]
    # A text that two messages share would be known from the training.
    known = {text for text, _ in training}
    return training, [pair for pair in both[::HOLD_OUT_EVERY] if pair[0] not in known]
