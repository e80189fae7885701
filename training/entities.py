"""Entities in tagged words, and how many of them were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics import Metric

Entity = tuple[str, int, int]
ROLES = {
    "B": "begins", "I": "goes on", "E": "ends", "L": "ends", "S": "alone", "U": "alone",
}  # fmt: skip
"""What a tag says of its word's place in an entity."""


def entities(tags: Sequence[str]) -> set[Entity]:
    """(type, first word, word after the last) of each entity in IOB2 tags.

    As CoNLL-2000's `conlleval` reads them: B- begins an entity, I- goes on with one of its type and
    else begins one. B and I may stand alone where there is one type; of IOBES and BILOU E- or L- is
    an entity's last word, S- or U- its only one. Any other tag (a part of speech) is an entity of
    one word.
    """
    found: set[Entity] = set()
    begun: tuple[str, int] | None = None
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        role = ROLES.get(prefix) if kind or tag in ("B", "I") else None
        if begun is not None and not (role in ("goes on", "ends") and kind == begun[0]):
            found.add((*begun, place))
            begun = None
        if role is None:
            if tag != "O":
                found.add((tag, place, place + 1))
            continue
        begun = begun or (kind, place)
        if role in ("ends", "alone"):
            found.add((*begun, place + 1))
            begun = None
    return found


class EntityScores(Metric):
    """Precision, recall and F1 over all entities; one counts if type and both ends are right.

    Where there is nothing to count, a score is 0.
    """

    full_state_update = False
    found: torch.Tensor
    predicted: torch.Tensor
    true: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("found", "predicted", "true"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[str], true: Sequence[str]) -> None:
        """Take in the tags of one text."""
        ours, theirs = entities(predicted), entities(true)
        self.found += len(ours & theirs)
        self.predicted += len(ours)
        self.true += len(theirs)

    def compute(self) -> dict[str, Any]:
        found, predicted, true = (int(n) for n in (self.found, self.predicted, self.true))
        return {
            "precision": torch.tensor(found / predicted if predicted else 0.0),
            "recall": torch.tensor(found / true if true else 0.0),
            "f1": torch.tensor(2 * found / (predicted + true) if predicted + true else 0.0),
        }
