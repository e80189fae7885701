"""What tasks on text share: tokenizer and head, encoded rows, padded batches."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from core.errors import BadData, InvalidRequest
from training import pretrained, token_cache
from training.sequences import IGNORED, Encoded, Sequences, bad_rows, read_chunks
from training.tasks.base import Batch, Loss, Task

UNBOUNDED = 1_000_000
"""A tokenizer that knows no limit says a number beyond this."""


class TextTask(Task[Sequences]):
    """A task whose rows are texts, encoded once by the model's tokenizer."""

    pads_left: bool = False

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    takes_segments: bool

    @abstractmethod
    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        """These rows as tokens. Raises BadData."""

    def configure(self, config: PreTrainedConfig) -> bool:
        """Set what the task wants of the config; whether a head loaded with it may stay."""
        return True

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        config = pretrained.load_config(folder)
        self.tokenizer = pretrained.load_tokenizer(folder)
        head_fits = self.configure(config)
        scratch = self.from_scratch(exact=exact)
        if scratch:
            pretrained.require_room(config, self.tokenizer)
        model, self.drawn = pretrained.load_model(
            self.model_class, folder, config, seed=self.spec.seed, exact=exact, scratch=scratch
        )
        if not head_fits and pretrained.renew_head(
            self.model_class, model, self.drawn, self.spec.seed
        ):
            self.log("The model's head was trained for other labels: a new one takes its place.")
        self.max_length = _longest(self.spec.max_length, model, self.tokenizer)
        self._require_room()
        # As plain transformers does: segments where the tokenizer gives and the model takes them.
        self.takes_segments = (
            "token_type_ids" in self.tokenizer.model_input_names
            and "token_type_ids" in inspect.signature(model.forward).parameters
        )
        return model

    def _require_room(self) -> None:
        """A tokenizer that has no room beside its own tokens cuts nothing off. Raises
        InvalidRequest."""
        own = self.tokenizer.num_special_tokens_to_add(pair=True)
        if self.max_length is not None and self.max_length <= own:
            raise InvalidRequest(
                f"`max_length` of {self.max_length} leaves no room for texts: the model's "
                f"tokenizer puts up to {own} tokens of its own around them.",
                hint="Choose a larger one.",
                param="max_length",
            )

    def day_written(self) -> str | None:
        """The day that encoded texts tell of, if they do."""
        return None

    def pack(self, reference: Any) -> Any:
        """A row's reference as JSON has it."""
        return reference

    def unpack(self, packed: Any) -> Any:
        """What `pack` was given, but for tuples, which have become lists."""
        return packed

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Sequences:
        def encode() -> Sequences:
            return self._encoded(path, param, between_chunks)

        settings = {
            "task": [self.spec.task, self.spec.shape, self.spec.labels, self.spec.preference_loss],
            "cut": [self.max_length, self.takes_segments],
            "day": self.day_written(),
        }
        key = token_cache.key(path, self.tokenizer, settings) if self.cache is not None else None
        if self.cache is None or key is None:
            examples = encode()
        else:
            examples = token_cache.kept(
                self.cache, key, encode, pack=self.pack, unpack=self.unpack, log=self.log
            )
        self._tell_of_cuts(examples, param)
        self.require_targets(examples, param)
        return examples

    def learnable(self, examples: Sequences) -> npt.NDArray[np.bool_] | None:
        """Which tokens a loss can be taken of; None where every row gives something by nature."""
        labels = examples.tokens.get("labels")
        return None if labels is None else labels != IGNORED

    def require_targets(self, examples: Sequences, param: str) -> None:
        """Tell how many rows have nothing to be told. Raises BadData if none has anything."""
        tokens = self.learnable(examples)
        if tokens is None:
            return
        counts = np.add.reduceat(examples.counted(tokens), examples.first[:-1])
        silent = examples.ids[counts == 0]
        if len(silent) == len(examples.ids):
            raise BadData(
                f"None of the {len(silent)} rows of {param} has anything to be told: the model's "
                "tokenizer makes nothing of them that it could be.",
                param=param,
                hint="Correct the file, or choose a model for texts like these.",
            )
        if len(silent):
            self.log(
                f"{len(silent)} of the {len(examples.ids)} rows of {param} have nothing to be "
                f"told, the first of them row {silent[0]}. They change nothing."
            )

    def _encoded(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Sequences:
        # A chunk's lists of numbers take ten times the room of its arrays.
        examples = Sequences.behind(
            [
                Sequences.joined(ids, [self.encode(table, ids, param)])
                for ids, table in read_chunks(path, param, between_chunks)
            ]
        )
        if not examples.read_lengths.all():
            empty = examples.ids[examples.read_lengths == 0]
            raise bad_rows(empty, "hold no text that the model can read", param)
        return examples

    def _tell_of_cuts(self, examples: Sequences, param: str) -> None:
        if self.max_length is None or np.any(np.diff(examples.first) > 1):
            return
        if full := int((examples.read_lengths >= self.max_length).sum()):
            self.log(
                f"{full} of the {len(examples.ids)} rows of {param} fill all {self.max_length} "
                "tokens that a row may have. What is longer is cut off."
            )

    def collate(
        self, examples: Sequences, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """All sequences of these rows. Targets are the rows' own, or the tokens' `labels`."""
        fills = dict.fromkeys(examples.tokens, 0)
        fills["input_ids"] = self.tokenizer.pad_token_id
        if "labels" in fills:
            fills["labels"] = IGNORED
        inputs = examples.padded(examples.of_rows(rows), fills, left=self.pads_left)
        targets = inputs.pop("labels", None)
        if targets is None:
            assert examples.targets is not None
            targets = torch.from_numpy(examples.targets[rows])
        tokens = int(inputs["attention_mask"].sum())
        references = [examples.references[row] for row in rows] if examples.references else []
        return Batch(inputs, targets, tokens, references)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        model.save_pretrained(folder)
        pretrained.save_tokenizer(self.tokenizer, folder)


def token_loss(logits: torch.Tensor, targets: torch.Tensor, accuracy: str) -> Loss:
    """Cross-entropy in fp32 of logits (rows, tokens, vocabulary), summed over the targets
    (rows, tokens) that are not ignored. `outputs` is what `metrics.TokenScores` takes.

    Only the supervised positions are turned into fp32: most of a chat's are not.
    """
    known = targets != IGNORED
    wanted, chosen = targets[known], logits[known].float()
    summed = functional.cross_entropy(chosen, wanted, reduction="sum")
    right = (chosen.detach().argmax(dim=-1) == wanted).float().sum()
    count = len(wanted)
    sums = torch.stack([summed.detach().double(), right.double(), right.new_tensor(count).double()])
    return Loss(summed, count, sums, {accuracy: right})


def _longest(
    chosen: int | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> int | None:
    """The most tokens a row may have: what was chosen or what the model can take, the smaller."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < UNBOUNDED else []
    if positions := getattr(model.config, "max_position_embeddings", None):
        # RoBERTa and its kin count positions from behind the padding index.
        table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        limits.append(positions if padding is None else positions - padding - 1)
    return min([*limits, *([chosen] if chosen else [])], default=None)
