"""What translation and summarisation share: a text is read, another is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torchmetrics import MetricCollection
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from training import compiled, written_text
from training.failures import ModelUnavailable
from training.metrics import TokenScores
from training.sequences import IGNORED, Encoded, Sequences
from training.tasks.base import Batch, Loss
from training.tasks.text import TextTask

ACCURACY = "mean_token_accuracy"


class Seq2Seq(TextTask):
    """The loss is the cross-entropy of the written text, each token told from those before it. In
    an evaluation the text is written out as well, greedily, for the metrics on texts."""

    model_class = AutoModelForSeq2SeqLM
    longest_target = 1
    plain_head: bool
    """Whether the logits are one matrix's work, so that the loss can be taken in chunks."""

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        if hasattr(self.tokenizer, "src_lang"):
            raise ModelUnavailable(
                "The model cannot be trained: its tokenizer wants the codes of two languages, "
                "which is not supported yet.",
                param="model",
                hint="Choose a model for one pair of languages, such as Marian's, or a T5.",
            )
        self.plain_head = written_text.has_plain_head(model)
        return model

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Sequences:
        examples = super().read(path, param, between_chunks)
        assert examples.written is not None
        self.longest_target = max(self.longest_target, int(examples.written.max()))
        if self.max_length and (full := int((examples.written >= self.max_length).sum())):
            self.log(
                f"{full} of the {len(examples.ids)} texts to be written of {param} fill all "
                f"{self.max_length} tokens that a text may have. What is longer is cut off."
            )
        return examples

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        wanted = table["target"].to_pylist()
        cut = {"truncation": self.max_length is not None, "max_length": self.max_length}
        sources = self.tokenizer(
            table["source"].to_pylist(), **cut,
            return_attention_mask=False, return_token_type_ids=False,
        )  # fmt: skip
        targets: list[list[int]] = self.tokenizer(
            text_target=wanted, **cut, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        references = list(zip(wanted, targets, strict=True))
        written = [len(target) for target in targets]
        return Encoded({"input_ids": sources["input_ids"]}, references=references, written=written)

    def collate(
        self, examples: Sequences, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Targets have shape (rows, longest target)."""
        fills = {"input_ids": self.tokenizer.pad_token_id}
        inputs = examples.padded(examples.of_rows(rows), fills)
        written = [examples.references[row] for row in rows]
        longest = max(1, *(len(ids) for _, ids in written))
        targets = torch.full((len(rows), longest), IGNORED)
        for place, (_, ids) in enumerate(written):
            targets[place, : len(ids)] = torch.tensor(ids)
        tokens = int(inputs["attention_mask"].sum()) + int((targets != IGNORED).sum())
        return Batch(inputs, targets, tokens, [text for text, _ in written])

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        loss = written_text.loss(model, batch, ACCURACY, plain_head=self.plain_head)
        if model.training:
            return loss
        return Loss(
            loss.sum, loss.count, (loss.outputs, self._write(model, batch)), loss.train_sums
        )

    def _write(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        with torch.no_grad(), compiled.set_aside():
            written: torch.Tensor = model.generate(  # type: ignore[operator]
                **batch.inputs, max_new_tokens=self.longest_target, num_beams=1, do_sample=False
            )
        return written

    def token_metrics(self) -> dict[str, Any]:
        return {"tokens": TokenScores(ACCURACY)}

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        sums, _ = loss.outputs
        texts = self.told(loss, batch)
        for name, metric in metrics.items():
            if name == "tokens":
                metric.update(sums)
            else:
                metric.update(texts, batch.references)

    def told(self, loss: Loss, batch: Batch) -> list[str]:
        _, written = loss.outputs
        texts: list[str] = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return texts
