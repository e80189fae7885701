"""Small real things to train on: a BERT of some thousand weights, and texts of a few words."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from models.spec import ResolvedSpec
from training.control import Control, StopMode
from training.job import Job, read_job
from training.loop import train
from training.records import Records

POSITIVE = ["great", "wonderful", "superb", "lovely", "brilliant", "fine"]
NEGATIVE = ["awful", "terrible", "dull", "boring", "bad", "poor"]
NEUTRAL = [
    "the", "movie", "a", "film", "plot", "actor", "story", "was",
    "scene", "with", "and", "of", "it", "this", "very", "music",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = {w: i for i, w in enumerate([*SPECIAL, *POSITIVE, *NEGATIVE, *NEUTRAL, "[MASK]"])}
LABELS = ["negative", "positive"]

Row = tuple[int, str, str | None, str | None]
Record = dict[str, Any]


def tiny_bert(
    folder: Path, *, dtype: torch.dtype = torch.float32, dropout: float = 0.1, seed: int = 0
) -> Path:
    """A two-layer BERT without a head, with its tokenizer, in Hugging Face format."""
    backend = Tokenizer(models.WordLevel(WORDS, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).to(dtype).save_pretrained(folder)
    return folder


def tiny_t5(folder: Path) -> Path:
    """A small T5 with the words above; an end mark follows each text."""
    backend = Tokenizer(models.WordLevel(WORDS, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", WORDS["[SEP]"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=WORDS["[SEP]"],
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def saved(folder: Path, kind: Any, config: Any, *beside: Any) -> Path:
    """A model of this class, always with the same weights, and its processors, in a folder."""
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    for part in beside:
        part.save_pretrained(folder)
    return folder


def texts(rows: int, *, seed: int = 0) -> list[Row]:
    """Rows of 3 to 30 words; the last word of each decides its label."""
    draw = random.Random(seed)
    made: list[Row] = []
    for row in range(1, rows + 1):
        label = draw.choice(LABELS)
        words = draw.choices(NEUTRAL, k=draw.randint(2, 29))
        words.append(draw.choice(POSITIVE if label == "positive" else NEGATIVE))
        made.append((row, " ".join(words), None, label))
    return made


def write_arrow(path: Path, rows: list[Row]) -> Path:
    """Rows in the schema of text classification."""
    ids, text, pair, label = zip(*rows, strict=True) if rows else ((), (), (), ())
    table = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "text": pa.array(text, pa.string()),
            "text_pair": pa.array(pair, pa.string()),
            "label": pa.array(label, pa.string()),
        }
    )
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def spec(**changes: Any) -> ResolvedSpec:
    """64 rows in batches of 8: 8 steps an epoch, 3 epochs."""
    return ResolvedSpec.model_validate(
        {
            "task": "text-classification",
            "model": "tiny-bert",
            "model_revision": None,
            "tuning": "full",
            "seed": 7,
            "labels": LABELS,
            "train_rows": 64,
            "valid_rows": 24,
            "train_sha256": "0" * 64,
            "valid_sha256": "1" * 64,
            "n_epochs": 3,
            "total_steps": 24,
            "steps_per_epoch": 8,
            "batch_size": 8,
            "micro_batch_size": 4,
            "learning_rate": 1e-3,
            "lr_scheduler": "linear",
            "warmup_steps": 2,
            "weight_decay": 0.01,
            "adam_beta1": 0.9,
            "adam_beta2": 0.999,
            "adam_epsilon": 1e-8,
            "max_grad_norm": 1.0,
            "max_length": None,
            "eval_every": 5,
            "checkpoint_every": 3,
            "early_stopping_patience": None,
            "precision": "auto",
            "metric": "accuracy",
            "greater_is_better": True,
            **changes,
        }
    )


@dataclass
class JobFolder:
    """A job folder as a supervisor prepares it."""

    path: Path
    model: Path

    def write(self, spec: ResolvedSpec, *, resume_from: Path | None = None) -> Path:
        contract = {
            "job_id": "ftjob-test",
            "spec": spec.model_dump(),
            "model_dir": str(self.model),
            "train": "train.arrow",
            "valid": "valid.arrow" if spec.valid_rows else None,
            "resume_from": str(resume_from) if resume_from else None,
            "threads": 1,
            "device": "cpu",
        }
        (self.path / "job.json").write_text(json.dumps(contract))
        return self.path

    def job(self, spec: ResolvedSpec, *, resume_from: Path | None = None) -> Job:
        return read_job(self.write(spec, resume_from=resume_from))

    def newest_checkpoint(self) -> Path:
        """The complete checkpoint of the highest step."""
        return max(
            (p for p in (self.path / "checkpoints").glob("step-*") if p.suffix != ".tmp"),
            key=lambda p: int(p.name.removeprefix("step-")),
        )


def job_folder(
    path: Path, model: Path, train: list[Row] | None = None, valid: list[Row] | None = None
) -> JobFolder:
    path.mkdir(parents=True)
    write_arrow(path / "train.arrow", texts(64) if train is None else train)
    write_arrow(path / "valid.arrow", texts(24, seed=1) if valid is None else valid)
    return JobFolder(path, model)


@contextmanager
def recording(path: Path) -> Iterator[tuple[Records, list[Record]]]:
    """Records that go to a file; the list holds them once the block is left."""
    kept: list[Record] = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield Records(fd), kept
    finally:
        os.close(fd)
        kept += [json.loads(line) for line in path.read_text().splitlines()]


def run(job: Job, control: Control | None = None) -> list[Record]:
    """Train in this process; the records. A failure is raised."""
    with recording(job.folder / "records.jsonl") as (records, kept):
        train(job, records, control or Control())
    return kept


class StopAfter(Control):
    """A supervisor that asks for a stop once it has read of this step's end."""

    def __init__(self, folder: JobFolder, step: int, mode: StopMode = "save") -> None:
        super().__init__()
        self._records, self._step, self._mode = folder.path / "records.jsonl", step, mode

    def check(self) -> None:
        records = [json.loads(line) for line in self._records.read_text().splitlines()]
        if of_type(records, "progress", step=self._step):
            self.stop(self._mode)
        super().check()


def of_type(records: list[Record], type: str, **members: Any) -> list[Record]:
    """The records of one type whose members are as given."""
    wanted = {"type": type, **members}
    return [r for r in records if wanted.items() <= r.items()]


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def weights_of(folder: Path) -> str:
    """The hash of a model folder's weights."""
    return sha256(folder / "model.safetensors")


def fresh_copy(folder: JobFolder, path: Path) -> JobFolder:
    """Another job folder on the same data, nothing trained."""
    path.mkdir(parents=True)
    for name in ("train.arrow", "valid.arrow"):
        shutil.copy(folder.path / name, path / name)
    return JobFolder(path, folder.model)
