"""Summarisation: what a document says, in a few sentences."""

from __future__ import annotations

import torch
from torchmetrics import MetricCollection

from training.generated import Rouge
from training.tasks.seq2seq import ACCURACY, Seq2Seq


class Summarization(Seq2Seq):
    metric_names = ("rouge1", "rouge2", "rougeL", "perplexity", ACCURACY)

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"rouge": Rouge(), **self.token_metrics()}).to(device)


TASK = Summarization
