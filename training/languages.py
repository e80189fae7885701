"""Tokenizers that are told the languages of a text and of the one that is written of it.

Those of NLLB, mBART, M2M100, PLBart and their kin put a code for the language before or behind a
text, and what such a model writes begins with the code of the language that it is to write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

import langcodes
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from langcodes.tag_parser import LanguageTagError

from training.sequences import bad_rows

CLOSE = 5
"""How far, by CLDR's measure, a code may be from what was said: another region, or a part of the
same language (`arb` for `ar`, `nob` for `no`)."""
SHOWN = 8
"""Codes that a hint names."""
BEGINNINGS = ("decoder_start_token_id", "forced_bos_token_id")
Pair = tuple[str, str]
"""The languages of what is read and of what is written, as the tokenizer calls them."""


def codes(tokenizer: Any) -> list[str]:
    """The languages that the tokenizer knows, sorted; none of one that is told no language."""
    if not hasattr(tokenizer, "src_lang"):
        return []
    known = getattr(tokenizer, "lang_code_to_id", None)
    if known is None:
        named = {getattr(tokenizer, name) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
        known = {str(token) for token in tokenizer.all_special_tokens} - {*map(str, named)}
    return sorted(known)


def places(
    table: pa.Table, ids: npt.NDArray[np.int64], tokenizer: Any, param: str
) -> dict[Pair, Sequence[int]]:
    """The places of the rows in each pair of languages. Rows of a task that asks for none are in
    those that the tokenizer came with. Raises BadData where a row does not tell its languages, or
    tells one that the model lacks."""
    if "source_language" not in table.column_names:
        own = str(tokenizer.src_lang)
        return {(own, str(tokenizer.tgt_lang or own)): range(len(table))}
    known = codes(tokenizer)
    columns = [table[name].to_pylist() for name in ("source_language", "target_language")]
    rows = list(zip(ids, *columns, strict=True))
    if silent := [row for row, *both in rows if None in both]:
        raise bad_rows(
            silent, "do not tell their languages, which this model has to know", param,
            "Give every row a `source_language` and a `target_language`, or both texts by "
            f"language as `translation`. {listed(known)}",
        )  # fmt: skip
    found = {said: code(said, known) for said in {*columns[0], *columns[1]}}
    for said in sorted(said for said in found if found[said] is None):
        of_it = [row for row, *both in rows if said in both]
        near = get_close_matches(said, known)
        raise bad_rows(
            of_it, f"are in the language {said!r}, which this model has not by this name", param,
            f"Did you mean {', '.join(near)}?" if near else listed(known),
        )  # fmt: skip
    by_pair: defaultdict[Pair, list[int]] = defaultdict(list)
    for place, (_, source, target) in enumerate(rows):
        by_pair[str(found[source]), str(found[target])].append(place)
    return dict(by_pair)


def tell(tokenizer: Any, pair: Pair) -> None:
    """From now on texts are read and written in these languages."""
    tokenizer.src_lang, tokenizer.tgt_lang = pair


def given(tokenizer: Any) -> int:
    """How many tokens of a written text tell its language alone, where these come first."""
    empty, letter = tokenizer(text_target=["", "a"])["input_ids"]
    alike = [a == b for a, b in zip(empty, letter, strict=False)]
    return alike.index(False)


def own(tokenizer: Any, settings: Any) -> list[str]:
    """What of a model's generation settings names a language, which it begins with by itself."""
    known = tokenizer.convert_tokens_to_ids(codes(tokenizer))
    return [name for name in BEGINNINGS if getattr(settings, name) in known]


def code(said: str, known: Collection[str]) -> str | None:
    """What the tokenizer calls a language: its own code, with or without what it stands in (`java`
    for `__java__`), or the one that a tag of BCP 47 means (`de`, `en-US`, `zh-TW`)."""
    bare = {code.strip("_"): code for code in known}
    if said.strip("_") in bare:
        return bare[said.strip("_")]
    meant = _parsed(said)
    if meant is None:
        return None
    name, _ = langcodes.closest_match(meant, [*filter(_parsed, bare)], max_distance=CLOSE)
    found = _parsed(name)
    if name not in bare or found is None or found.script != meant.script:
        return None
    return bare[name]


def _parsed(tag: str) -> langcodes.Language | None:
    """The language with its script, where this is a tag of one."""
    try:
        return langcodes.get(tag).maximize()
    except LanguageTagError:
        return None


def listed(known: Collection[str]) -> str:
    """A sentence that names some of them."""
    shown = ", ".join(sorted(known)[:SHOWN])
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"The model knows {shown}{more}."
