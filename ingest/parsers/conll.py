"""CoNLL: a word a line, its columns apart by blanks or tabs, the tag last, blank lines between.

Rows have `tokens` and `tags` and stand at the line of their first word. `-DOCSTART-` lines are
passed over, and lines that begin with "# " as in CoNLL-U are comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from ingest.limits import Limits
from ingest.lines import decode, read_lines
from ingest.parsers import Batch, Batches
from ingest.problems import Problems

_TAG = re.compile(r"O|[BIESLU]-\S+")


def fits(head: str) -> bool:
    """Whether the first lines end in tags of the IOB kind."""
    lines = [line.split() for line in head.splitlines()[:200]]
    words = [line for line in lines if line and line[0] not in ("-DOCSTART-", "#")]
    return bool(words) and all(len(line) > 1 and _TAG.fullmatch(line[-1]) for line in words[:20])


def read(stream: BinaryIO, limits: Limits, problems: Problems) -> Batches:
    batch, size = Batch(), 0
    for place, tokens, tags in _sentences(stream, limits, problems):
        batch.places.append(place)
        batch.rows.append({"tokens": tokens, "tags": tags})
        size += sum(map(len, tokens))
        if len(batch.rows) == limits.batch_rows or size > limits.batch_bytes:
            yield batch
            batch, size = Batch(), 0
    yield batch


def _sentences(
    stream: BinaryIO, limits: Limits, problems: Problems
) -> Iterator[tuple[int, list[str], list[str]]]:
    """A sentence with a bad line is passed over as a whole."""
    tokens: list[str] = []
    tags: list[str] = []
    start, good = 0, True
    for line in read_lines(stream, limits, problems):
        text = decode(line, problems)
        fields = text.split() if text is not None else []
        if text is not None and (not fields or fields[0] in ("-DOCSTART-", "#")):
            if fields[:1] == ["#"]:
                continue
            if tokens and good:
                yield start, tokens, tags
            start, tokens, tags, good = 0, [], [], True
            continue
        start = start or line[0]
        if len(fields) < 2:
            good = False
            if text is not None:
                problems.add(
                    "ragged_row",
                    "a line with one field",
                    "Each line has a word and, last, its tag; sentences are apart by a blank line.",
                    place=line[0],
                    sample=text,
                )
            continue
        tokens.append(fields[0])
        tags.append(fields[-1])
        if len(tokens) > limits.max_sentence_words:
            raise problems.fatal(
                "line_too_long",
                f"a sentence of more than {limits.max_sentence_words:,} words",
                "Sentences are apart by a blank line.",
                place=start,
            )
    if tokens and good:
        yield start, tokens, tags
