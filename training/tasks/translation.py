"""Translation: a text is written anew in another language."""

from __future__ import annotations

import torch
from torchmetrics import MetricCollection

from training.generated import Bleu, Chrf
from training.tasks.seq2seq import ACCURACY, Seq2Seq


class Translation(Seq2Seq):
    metric_names = ("bleu", "chrf", "perplexity", ACCURACY)

    def metrics(self, device: torch.device) -> MetricCollection:
        """BLEU from 0 to 100; chrF (Popović 2015) from 0 to 1."""
        metrics = {"bleu": Bleu(), "chrf": Chrf(), **self.token_metrics()}
        return MetricCollection(metrics).to(device)


TASK = Translation
