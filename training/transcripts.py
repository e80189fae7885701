"""Error rates of transcripts, from counts alone: nothing is kept that grows with the rows."""

from __future__ import annotations

import jiwer
import torch
from torchmetrics import Metric


class ErrorRates(Metric):
    """Word and character error rate: edits / length of what was said, over all rows together."""

    full_state_update = False
    counts: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, written: list[str], said: list[str]) -> None:
        found = (jiwer.process_words(said, written), jiwer.process_characters(said, written))
        counts = []
        for measured in found:
            wrong = measured.substitutions + measured.deletions
            counts += [wrong + measured.insertions, wrong + measured.hits]
        self.counts += torch.tensor(counts, dtype=torch.float64, device=self.counts.device)

    def compute(self) -> dict[str, torch.Tensor]:
        word_edits, words, character_edits, characters = self.counts
        return {"wer": word_edits / words, "cer": character_edits / characters}
