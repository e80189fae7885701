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

from training import compiled, decoding, languages, written_text
from training.cross_entropy import inner_model
from training.metrics import TokenScores
from training.sequences import IGNORED, Encoded, Sequences, read_chunks
from training.tasks.base import Batch, Loss
from training.tasks.text import TextTask

ACCURACY = "mean_token_accuracy"
Tokens = tuple[list[list[int]], list[list[int]]]
"""Of what is read and of what is written, row by row."""


class Seq2Seq(TextTask):
    """The loss is the cross-entropy of the written text, each token told from those before it. In
    an evaluation the text is written out as well, greedily, for the metrics on texts."""

    model_class = AutoModelForSeq2SeqLM
    longest_target = 1
    plain_head: bool
    """Whether the logits are one matrix's work, so that the loss can be taken in chunks."""
    multilingual: bool
    """Whether the tokenizer is told the languages of its texts."""
    pairs: set[languages.Pair]
    """The languages of all rows that were read."""
    given: int
    """How many tokens of a written text tell its language alone, at its beginning."""

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        self.pairs = set()
        self.multilingual = bool(languages.codes(self.tokenizer))
        self.plain_head = written_text.has_plain_head(model)
        return model

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Sequences:
        if self.multilingual:
            for ids, table in read_chunks(path, param, between_chunks):
                self.pairs.update(languages.places(table, ids, self.tokenizer, param))
            languages.tell(self.tokenizer, min(self.pairs))
            self.given = languages.given(self.tokenizer)
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
        if self.multilingual:
            sources, targets = self._by_languages(table, ids, param)
        else:
            sources, targets = self._tokens(table)
        references = list(zip(table["target"].to_pylist(), targets, strict=True))
        written = [len(target) for target in targets]
        return Encoded({"input_ids": sources}, references=references, written=written)

    def _by_languages(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Tokens:
        sources: list[list[int]] = [[]] * len(table)
        targets: list[list[int]] = [[]] * len(table)
        for pair, places in languages.places(table, ids, self.tokenizer, param).items():
            languages.tell(self.tokenizer, pair)
            of_pair = self._tokens(table.take(list(places)))
            for place, source, target in zip(places, *of_pair, strict=True):
                sources[place], targets[place] = source, target
        languages.tell(self.tokenizer, min(self.pairs))
        return sources, targets

    def _tokens(self, table: pa.Table) -> Tokens:
        cut = {"truncation": self.max_length is not None, "max_length": self.max_length}
        alone = {"return_attention_mask": False, "return_token_type_ids": False}
        sources = self.tokenizer(table["source"].to_pylist(), **cut, **alone)
        targets = self.tokenizer(text_target=table["target"].to_pylist(), **cut, **alone)
        return sources["input_ids"], targets["input_ids"]

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
            if self.multilingual:
                begun = self._begun(model, batch.targets)
                return decoding.write(model, batch.inputs, begun, self.longest_target)
            written: torch.Tensor = model.generate(  # type: ignore[operator]
                **batch.inputs, max_new_tokens=self.longest_target, num_beams=1, do_sample=False
            )
        return written

    def _begun(self, model: PreTrainedModel, targets: torch.Tensor) -> torch.Tensor:
        """What each text to be written begins with, so that its language is known."""
        starts = decoding.starts(inner_model(model), targets)
        return starts[:, : 1 + self.given]

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """A model that learnt to write in one language begins with it by itself; one that learnt
        several no longer with what its maker chose."""
        targets = {target for _, target in self.pairs}
        if targets:
            settings: Any = model.generation_config
            for name in languages.own(self.tokenizer, settings):
                setattr(settings, name, None)
            if len(targets) == 1:
                begun = decoding.beginning(inner_model(model), self.tokenizer)[0].tolist()
                settings.decoder_start_token_id = begun[0]
                if len(begun) == 2:
                    settings.forced_bos_token_id = begun[1]
        super().save(model, folder)

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
