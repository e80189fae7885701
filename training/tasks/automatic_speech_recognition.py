"""Speech recognition: what is said in a recording is written down.

By the kind of model: CTC tells a character or none for each frame (Graves et al. 2006);
an encoder-decoder such as Whisper writes the text, each token told from those before it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional
from torchmetrics import MetricCollection
from transformers import (
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training import audio, pretrained, spelling
from training.audio import Recordings
from training.sequences import IGNORED, bad_rows
from training.tasks.audio import AudioTask
from training.tasks.base import Batch, Loss
from training.tasks.text import token_loss
from training.transcripts import ErrorRates

WRITERS = frozenset({"whisper"})
"""The encoder-decoders that are known to train here."""
NO_END = 1 << 31
"""Samples that no recording has."""


class SpeechRecognition(AudioTask):
    model_class = AutoModelForCTC
    metric_names = ("wer", "cer")

    tokenizer: PreTrainedTokenizerBase
    writes: bool
    """Whether the model is an encoder-decoder."""
    longest = 1
    """Tokens of the longest transcript."""

    @classmethod
    def model_types(cls) -> set[str]:
        return (super().model_types() & audio.WAVES) | WRITERS

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        self.load_parts(folder)
        self.writes = self.config.model_type in WRITERS
        places = 0
        if self.writes or spelling.has_tokenizer(folder):
            self.tokenizer = pretrained.load_tokenizer(folder)
            places = self.config.vocab_size
        else:
            self.tokenizer = spelling.alphabet(self.train)
        if not self.writes:
            # A trained head may have places that no character needs; of another size it would go.
            self.config.vocab_size = max(len(self.tokenizer), places)
            self.config.pad_token_id = self.tokenizer.pad_token_id
            # A row that cannot be told at all is refused by `read`; zeros are for rounding.
            self.config.ctc_zero_infinity = True
        model, self.drawn = pretrained.load_model(
            AutoModelForSpeechSeq2Seq if self.writes else AutoModelForCTC,
            folder, self.config, seed=self.spec.seed, exact=exact,
            scratch=self.from_scratch(exact=exact),
        )  # fmt: skip
        self.settle(model)
        rate = self.extractor.sampling_rate
        self.room = self.extractor.chunk_length * rate if self.writes else NO_END
        if self.writes:
            self._generate_as_learnt(model)
        return model

    def _generate_as_learnt(self, model: Any) -> None:
        """Let `generate` begin a text as the transcripts do. A Whisper of many languages would put
        the one that it guesses before it, and perhaps a task: neither was learnt or measured."""
        chosen = model.generation_config
        if getattr(chosen, "lang_to_id", None):
            chosen.language = chosen.task = None
            chosen.forced_decoder_ids = [
                [place, token] for place, token in enumerate(self._lead()) if place
            ] or None

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[Any]:
        """(the text as the model can spell it, its tokens) of each row."""
        texts = table["text"].to_pylist()
        if not self.writes:
            texts = [spelling.spelled(text, self.tokenizer) for text in texts]
        tokens: list[list[int]] = self.tokenizer(texts, return_attention_mask=False)["input_ids"]
        seconds = table["seconds"].to_numpy()
        if self.writes:
            tokens = [self._without_start(row) for row in tokens]
            window = self.extractor.chunk_length
            if (long := seconds > window).any():
                raise bad_rows(ids[long], f"are longer than the {window} seconds it hears", param)
            most = self.config.max_target_positions
            if (long := np.array([len(row) > most for row in tokens])).any():
                raise bad_rows(ids[long], f"have more than the {most} tokens it writes", param)
        else:
            self._require_frames(tokens, seconds, ids, param)
        self.longest = max(self.longest, *map(len, tokens))
        return list(zip(texts, tokens, strict=True))

    def _without_start(self, tokens: list[int]) -> list[int]:
        """The model puts the token that a text starts with before its labels by itself. It is not
        always the tokenizer's BOS."""
        start = self.config.decoder_start_token_id
        return tokens[1:] if tokens and tokens[0] == start else tokens

    def _lead(self) -> list[int]:
        """What comes before the words of a text: the decoder's start, and the tokenizer's marks."""
        end = self.tokenizer.eos_token_id
        marks = self._without_start(self.tokenizer("")["input_ids"])
        return [self.config.decoder_start_token_id, *(mark for mark in marks if mark != end)]

    def _require_frames(
        self, tokens: list[list[int]], seconds: Any, ids: npt.NDArray[np.int64], param: str
    ) -> None:
        """CTC needs a frame for each token, and one between two that are equal."""
        needed = [len(row) + sum(a == b for a, b in pairwise(row)) for row in tokens]
        rate = self.extractor.sampling_rate
        short = [
            row
            for row, need, length in zip(ids, needed, seconds, strict=True)
            if self.frames(int(length * rate)) < need
        ]
        if short:
            raise bad_rows(short, "say more than their recording has frames for", param)

    def collate(
        self, examples: Recordings, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Waves or spectra, and tokens (rows, longest transcript). A row's references are its text
        and its samples."""
        heard = self.heard(examples, rows, epoch)
        inputs = self.features(examples, rows, heard, epoch)
        wanted = [examples.targets[row] for row in rows]
        targets = torch.full((len(rows), max(len(ids) for _, ids in wanted)), IGNORED)
        for place, (_, ids) in enumerate(wanted):
            targets[place, : len(ids)] = torch.tensor(ids)
        samples = map(len, heard)
        references = [(text, most) for (text, _), most in zip(wanted, samples, strict=True)]
        return Batch(inputs, targets, int((targets != IGNORED).sum()), references)

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Summed over the transcripts' tokens."""
        if self.writes:
            logits = self.run(model, batch, labels=batch.targets, use_cache=False).logits
            loss = token_loss(logits, batch.targets, "mean_token_accuracy")
            outputs = None if model.training else self._write(model, batch)
            return Loss(loss.sum, loss.count, outputs, loss.train_sums)
        logits = self.run(model, batch).logits
        frames = torch.tensor([self.frames(samples) for _, samples in batch.references])
        frames = frames.clamp(max=logits.shape[1])
        known = batch.targets != IGNORED
        blank = self.config.pad_token_id
        summed = functional.ctc_loss(
            logits.float().log_softmax(dim=-1).transpose(0, 1),
            batch.targets.masked_fill(~known, blank),
            frames.to(logits.device),
            known.sum(dim=1),
            blank=blank,
            reduction="sum",
            zero_infinity=True,
        )
        told = logits.detach().argmax(dim=-1)
        beyond = torch.arange(told.shape[1]) >= frames[:, None]
        told = told.masked_fill(beyond.to(told.device), blank)
        return Loss(summed, int(known.sum()), told, {})

    def _write(self, model: Any, batch: Batch) -> torch.Tensor:
        """The likeliest token after the others, until all rows have ended. What the generation
        config suppresses is not written, as `generate` has it."""
        end = self.tokenizer.eos_token_id
        rows = len(batch.targets)
        chosen = model.generation_config
        never = batch.targets.new_tensor(chosen.suppress_tokens or [])
        not_first = batch.targets.new_tensor(chosen.begin_suppress_tokens or [])
        barred = torch.cat([never, not_first])
        with torch.no_grad():
            heard = model.get_encoder()(batch.inputs["input_features"])
            new = torch.tensor([self._lead()] * rows, device=batch.targets.device)
            written, past = new, None
            ended = torch.zeros(rows, dtype=torch.bool, device=new.device)
            for _ in range(self.longest):
                out = model(
                    encoder_outputs=heard, decoder_input_ids=new, past_key_values=past,
                    use_cache=True,
                )  # fmt: skip
                past = out.past_key_values
                places = torch.arange(out.logits.shape[-1], device=new.device)
                scores = out.logits[:, -1:].masked_fill(torch.isin(places, barred), -torch.inf)
                new = scores.argmax(dim=-1).masked_fill(ended[:, None], end)
                barred = never
                written = torch.cat([written, new], dim=1)
                ended |= new[:, 0] == end
                if ended.all():
                    break
        return written

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"errors": ErrorRates()}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(self.told(loss, batch), [text for text, _ in batch.references])

    def told(self, loss: Loss, batch: Batch) -> list[str]:
        # CTC's blank is a special token: equal characters that it stands between would become one
        # without it. It leaves the text by itself.
        texts: list[str] = self.tokenizer.batch_decode(
            loss.outputs, skip_special_tokens=self.writes
        )
        return texts

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        super().save(model, folder)
        pretrained.save_tokenizer(self.tokenizer, folder)


TASK = SpeechRecognition
