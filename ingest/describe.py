"""What a closer look at prepared data tells: languages, lengths in a model's tokens, rows as the
model will see them, and what training on them comes to.

Apart from `prepare`, since it reads other libraries' models and costs seconds, not milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import Unprocessable
from ingest import model_folder, tasks
from ingest.findings import Finding
from ingest.languages import ROWS, is_mixed, languages
from ingest.prepare import Prepared, Role
from ingest.profile import batches_of, sampled
from ingest.seen import seen
from ingest.texts import odd_texts, texts_of
from ingest.tokens import token_lengths
from models.resolve import auto_batch_size, auto_epochs

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCHES = 10
"""Parts of the file that languages are told from."""
_WITH_LINES = ("jsonl", "csv", "tsv", "text", "conll")
"""Formats whose rows are told by their lines."""


def describe(
    prepared: Prepared,
    out: Path,
    role: Role,
    model: Path | None = None,
    max_length: int | None = None,
) -> Prepared:
    """The same with more in its report. `out` is the prepared file, `model` the folder of a model.

    `max_length` is the most tokens of a row, where less than the model takes is wanted. Raises
    Unprocessable for a tokenizer that cannot be read.
    """
    format = tasks.get(prepared.report["task"])
    profile = dict(prepared.report["profile"])
    unit = "line" if prepared.report["format"].split("/")[-1] in _WITH_LINES else "row"
    columns = (*format.inputs, *format.outputs)
    profile["languages"] = {
        name: found for name in columns if (found := languages(_texts(out, name)))
    }
    findings = odd_texts(batches_of(out), columns, unit)
    findings += [
        _mixed(name, found) for name, found in profile["languages"].items() if is_mixed(found)
    ]
    if role == "training":
        profile["estimate"] = _extent(prepared.rows)
    if model is not None:
        known = model_folder.read(model)
        limits = [limit for limit in (known.max_length, max_length) if limit is not None]
        limit = min(limits, default=None)
        tokenizer = _tokenizer(known.tokenizer)
        rows = sampled(out, prepared.rows)
        profile["seen"] = seen(rows, format, known, tokenizer, limit)
        if tokenizer is not None and format.modality == "text":
            told = token_lengths(out, format, tokenizer, limit)
            profile["tokens"] = told
            if told["tokens"] is not None and role == "training":
                per_epoch = round(told["tokens"]["mean"] * prepared.rows)
                profile["estimate"]["tokens_per_epoch"] = per_epoch
            findings += _beyond(told, unit)
    report = prepared.report | {
        "findings": prepared.report["findings"] + [asdict(finding) for finding in findings],
        "profile": profile,
    }
    return replace(prepared, report=report)


def _texts(prepared: Path, name: str) -> Iterator[str]:
    """Texts of a column of texts or messages, from all over the file."""
    with pa.OSFile(str(prepared)) as source:
        reader = pa.ipc.open_file(source)
        chosen = range(0, reader.num_record_batches, math.ceil(reader.num_record_batches / BATCHES))
        for index in chosen:
            found = texts_of(reader.get_batch(index).column(name))
            if found is not None:
                texts = found[0]
                every = max(1, len(texts) * len(chosen) // ROWS)
                places = pa.array(range(0, len(texts), every), pa.int64())
                yield from filter(None, texts.take(places).to_pylist())


def _mixed(column: str, found: dict[str, int]) -> Finding:
    total = sum(found.values())
    shares = ", ".join(f"{name} {count / total:.0%}" for name, count in list(found.items())[:4])
    return Finding(
        "mixed_languages",
        f"the texts in `{column}` are in several languages: {shares}",
        "Fine if it is meant so. The shares are told from a sample.",
        total - max(found.values()),
    )


def _beyond(told: dict[str, Any], unit: str) -> list[Finding]:
    if not told.get("rows_beyond"):
        return []
    return [
        Finding(
            "rows_too_long",
            f"{told['rows_beyond']:,} rows are longer than {told['max_length']:,} tokens, "
            f"by {told['tokens_beyond']:,} tokens in all",
            "What is beyond is cut off. Split these rows, or choose a model that takes more.",
            told["rows_beyond"],
            [{unit: row["id"]} for row in told["longest"]],
        )
    ]


def _extent(rows: int) -> dict[str, Any]:
    """What training comes to with every hyperparameter left to the service."""
    batch_size, n_epochs = auto_batch_size(rows), auto_epochs(rows)
    steps = math.ceil(rows / batch_size)
    return {
        "batch_size": batch_size,
        "n_epochs": n_epochs,
        "steps_per_epoch": steps,
        "steps": steps * n_epochs,
    }


def _tokenizer(path: Path | None) -> Tokenizer | None:
    if path is None:
        return None
    from tokenizers import Tokenizer  # here, so that checking data does not need it

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise Unprocessable(
            f"The model's tokenizer.json cannot be read ({error}).", param="model"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
