"""One small job of every task: a base model, rows as `ingest` delivers them, and a plan."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForObjectDetection,
    AutoModelForQuestionAnswering,
    AutoModelForSemanticSegmentation,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoModelForTextToSpectrogram,
    AutoModelForTokenClassification,
)

from ingest import tasks as formats
from models.spec import ResolvedSpec
from models.tasks import default_metric
from tests.training.causal import tiny_llama
from tests.training.material import (
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    JobFolder,
    spec,
    tiny_bert,
    tiny_t5,
)
from tests.training.pictures import (
    COLOURS,
    SHAPES,
    bare_convnext,
    masks,
    patches,
    pictures,
    tiny_detr,
    tiny_segformer,
    tiny_vit,
    tiny_yolos,
)
from tests.training.sounds import (
    clips,
    spoken,
    tiny_ast,
    tiny_ctc,
    tiny_speecht5,
    tiny_whisper,
    voices,
)

Rows = list[dict[str, Any]]


def words(draw: random.Random, most: int = 20) -> list[str]:
    return draw.choices([*NEUTRAL, *POSITIVE, *NEGATIVE], k=draw.randint(3, most))


def many_labels(rows: int, seed: int) -> Rows:
    """A label for each kind of word that a text holds; some have none."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        text = words(draw, 8)
        kinds = (("bad", NEGATIVE), ("good", POSITIVE))
        labels = [name for name, kind in kinds if set(kind) & set(text)]
        made.append({"id": row, "text": " ".join(text), "labels": labels})
    return made


def numbers(rows: int, seed: int) -> Rows:
    """The share of words that praise."""
    draw = random.Random(seed)
    texts = [words(draw) for _ in range(rows)]
    return [
        {"id": row, "text": " ".join(text), "target": sum(w in POSITIVE for w in text) / len(text)}
        for row, text in enumerate(texts, start=1)
    ]


def tagged(rows: int, seed: int) -> Rows:
    """Runs of praise and of blame are entities. A third of the rows needs more windows than one."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        tokens = words(draw, 60 if row % 3 == 0 else 12)
        tags: list[str] = []
        before = ""
        for word in tokens:
            kind = "GOOD" if word in POSITIVE else "BAD" if word in NEGATIVE else ""
            tags.append(f"{'I' if kind == before else 'B'}-{kind}" if kind else "O")
            before = kind
        made.append({"id": row, "tokens": tokens, "tags": tags})
    return made


def plain(rows: int, seed: int) -> Rows:
    draw = random.Random(seed)
    return [{"id": row, "text": " ".join(sorted(words(draw)))} for row in range(1, rows + 1)]


def chats(rows: int, seed: int) -> Rows:
    """The answer says the question's last word again; the first of two answers does not count."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        first, second = draw.sample([*POSITIVE, *NEGATIVE], 2)
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": f"say {first}"},
            {"role": "assistant", "content": second, "weight": 0},
            {"role": "user", "content": f"say {second}"},
            {"role": "assistant", "content": second},
        ]
        made.append({"id": row, "messages": turns[2 * (row % 2) :]})
    return made


def completions(rows: int, seed: int) -> Rows:
    draw = random.Random(seed)
    return [
        {"id": row, "prompt": f"say {word}: ", "completion": word}
        for row, word in enumerate(draw.choices(POSITIVE, k=rows), start=1)
    ]


def questions(rows: int, seed: int) -> Rows:
    """Asked for is the only word of praise; every fourth context has none."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        context = draw.choices(NEUTRAL, k=draw.randint(8, 40 if row % 3 == 0 else 12))
        answers = []
        if row % 4:
            place = draw.randrange(len(context))
            context[place] = draw.choice(POSITIVE)
            start = len(" ".join([*context[:place], ""]))
            answers = [{"text": context[place], "start": start}]
        made.append(
            {"id": row, "question": "it was", "context": " ".join(context), "answers": answers}
        )
    return made


def preferred(rows: int, seed: int) -> Rows:
    """Praise is wanted, blame is not; every other row is a plain text, not a chat."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        good, bad = draw.choice(POSITIVE), draw.choice(NEGATIVE)
        made.append(
            {
                "id": row,
                "prompt": [{"role": "user", "content": "say "}],
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": bad}],
                "chat": bool(row % 2),
            }
        )
    return made


def single_answers(rows: int, seed: int) -> Rows:
    """The same, one answer a row."""
    return [
        row | {("rejected" if row["id"] % 3 else "chosen"): None} for row in preferred(rows, seed)
    ]


def echoes(rows: int, seed: int) -> Rows:
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        word = draw.choice(POSITIVE)
        made.append(
            {"id": row, "source": f"the movie was {word}", "target": f"a {word} movie it was"}
        )
    return made


def belonging(rows: int, seed: int) -> Rows:
    """A text belongs to the one that says its last word again. Every other row has a negative,
    and some positives come up more than once."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        own, other = draw.sample([*POSITIVE, *NEGATIVE], 2)
        anchor = [*draw.choices(NEUTRAL, k=draw.randint(1, 12)), own]
        negatives = [f"a {other} film"] if row % 2 else []
        made.append({"id": row, "anchor": " ".join(anchor), "positive": f"a {own} film",
                     "negatives": negatives})  # fmt: skip
    return made


def scored(rows: int, seed: int) -> Rows:
    """The score is 1 for two of a kind, else 0."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        first, second = (draw.choice([POSITIVE, NEGATIVE]) for _ in range(2))
        made.append(
            {"id": row, "anchor": f"the film was {draw.choice(first)}",
             "positive": f"it was {draw.choice(second)}", "negatives": [],
             "score": float(first is second)}
        )  # fmt: skip
    return made


def judged(rows: int, seed: int) -> Rows:
    """What is said of the film is what the first word says."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        label, words = draw.choice([("blames", NEGATIVE), ("praises", POSITIVE)])
        made.append({"id": row, "anchor": f"{draw.choice(words)} film", "positive": "it was",
                     "negatives": [], "label": label})  # fmt: skip
    return made


@dataclass(frozen=True)
class Case:
    name: str
    task: str
    rows: Callable[[int, int], Rows]
    auto: Any
    """The plain transformers class that the output must load into."""
    base: Callable[[Path], Path] = tiny_bert
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the spec of `material.spec`."""
    has_own_loss: bool = True
    """Whether the model's class takes `labels` and gives the loss that ours must equal."""

    def spec(self, **changes: Any) -> ResolvedSpec:
        metric, greater = default_metric(self.task, str(self.changes.get("shape", "")))
        chosen = {
            "task": self.task,
            "labels": [],
            "metric": metric,
            "greater_is_better": greater,
            "eval_every": 4,
            "total_steps": 12,
            "learning_rate": 3e-3,
        }
        return spec(**{**chosen, **self.changes, **changes})

    def folder(self, path: Path) -> JobFolder:
        base = self.base(path / "base")
        for name, count, seed in (("train", 64, 0), ("valid", 24, 1)):
            write_rows(path / f"{name}.arrow", self.task, self.rows(count, seed))
        return JobFolder(path, base)


def write_rows(path: Path, task: str, rows: Rows) -> Path:
    """Rows in the schema of their task."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=formats.get(task).schema)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


CASES = [
    Case(
        "many-labels", "text-classification", many_labels, AutoModelForSequenceClassification,
        changes={"shape": "text,labels", "labels": ["bad", "good"]},
    ),
    Case(
        "regression", "text-classification", numbers, AutoModelForSequenceClassification,
        changes={"shape": "text,target"},
    ),
    Case(
        "entities", "token-classification", tagged, AutoModelForTokenClassification,
        changes={"labels": ["B-BAD", "B-GOOD", "I-BAD", "I-GOOD", "O"], "max_length": 24},
    ),
    Case("masks", "fill-mask", plain, AutoModelForMaskedLM),
    Case("chats", "text-generation", chats, AutoModelForCausalLM, tiny_llama),
    Case("completions", "text-generation", completions, AutoModelForCausalLM, tiny_llama),
    Case("passages", "text-generation", plain, AutoModelForCausalLM, tiny_llama),
    Case(
        "chats-lora", "text-generation", chats, AutoModelForCausalLM, tiny_llama,
        changes={"tuning": "lora", "lora": {"rank": 4, "dropout": 0.1}, "learning_rate": 0.02},
    ),
    Case(
        "labels-dora", "text-classification", many_labels, AutoModelForSequenceClassification,
        changes={"shape": "text,labels", "labels": ["bad", "good"], "tuning": "lora",
                 "lora": {"rank": 2, "dora": True, "dropout": 0.2}},
    ),
    Case(
        "masks-frozen", "fill-mask", plain, AutoModelForMaskedLM,
        changes={"tuning": "freeze", "freeze": {"layers": 1, "patterns": ["cls.*"]},
                 "learning_rate": 0.02},
    ),
    Case(
        "questions", "question-answering", questions, AutoModelForQuestionAnswering,
        changes={"max_length": 24}, has_own_loss=False,
    ),
    Case("translation", "translation", echoes, AutoModelForSeq2SeqLM, tiny_t5),
    Case("summaries", "summarization", echoes, AutoModelForSeq2SeqLM, tiny_t5),
    Case(
        "preferences", "preference", preferred, AutoModelForCausalLM, tiny_llama,
        changes={"beta": 0.1}, has_own_loss=False,
    ),
    Case(
        "preferences-lora", "preference", preferred, AutoModelForCausalLM, tiny_llama,
        changes={"beta": 0.3, "tuning": "lora", "lora": {"rank": 4, "dropout": 0.1},
                 "learning_rate": 0.02},
        has_own_loss=False,
    ),
    *(
        Case(
            name, "preference", preferred, AutoModelForCausalLM, tiny_llama,
            changes={"beta": 0.1, "preference_loss": name}, has_own_loss=False,
        )
        for name in ("ipo", "orpo")
    ),
    *(
        Case(
            name, "preference", single_answers, AutoModelForCausalLM, tiny_llama,
            changes={"beta": 0.3, "preference_loss": "kto", **more}, has_own_loss=False,
        )
        for name, more in (
            ("kto", {}),
            ("kto-lora", {"tuning": "lora", "lora": {"rank": 4}, "learning_rate": 0.02}),
        )
    ),
    Case(
        "pairs", "feature-extraction", belonging, AutoModel, has_own_loss=False,
        changes={"shape": "anchor,positive,negative"},
    ),
    Case(
        "pairs-lora", "feature-extraction", belonging, AutoModel, has_own_loss=False,
        changes={"tuning": "lora", "lora": {"rank": 4, "dropout": 0.1}, "learning_rate": 0.02},
    ),
    Case(
        "scores", "feature-extraction", scored, AutoModel, has_own_loss=False,
        changes={"shape": "sentence1,sentence2,score"},
    ),
    Case(
        "judgements", "feature-extraction", judged, AutoModel, has_own_loss=False,
        changes={"shape": "premise,hypothesis,label", "labels": ["blames", "praises"]},
    ),
    Case(
        "images", "image-classification", pictures, AutoModelForImageClassification, tiny_vit,
        changes={"labels": SHAPES, "total_steps": 32},
    ),
    Case(
        "images-scratch", "image-classification", pictures, AutoModelForImageClassification,
        bare_convnext,
        changes={"labels": SHAPES, "tuning": "scratch", "learning_rate": 0.01},
    ),
    Case(
        "ctc", "automatic-speech-recognition", spoken, AutoModelForCTC, tiny_ctc,
        has_own_loss=False,
    ),
    Case(
        "whisper", "automatic-speech-recognition", spoken, AutoModelForSpeechSeq2Seq,
        tiny_whisper,
    ),
    Case(
        "sounds", "audio-classification", clips, AutoModelForAudioClassification, tiny_ctc,
        changes={"labels": ["a", "b"]},
    ),
    Case(
        "spectra", "audio-classification", clips, AutoModelForAudioClassification, tiny_ast,
        changes={"labels": ["a", "b"]},
    ),
    Case(
        "spectra-whisper", "audio-classification", clips, AutoModelForAudioClassification,
        tiny_whisper, changes={"labels": ["a", "b"]},
    ),
    *(
        Case(
            name, "object-detection", patches, AutoModelForObjectDetection, base,
            changes={"labels": COLOURS, "learning_rate": 1e-3}, has_own_loss=False,
        )
        for name, base in (("yolos", tiny_yolos), ("detr", tiny_detr))
    ),
    Case(
        "segments", "image-segmentation", masks, AutoModelForSemanticSegmentation,
        tiny_segformer, changes={"labels": ["background", *COLOURS]},
    ),
    Case(
        "voices", "text-to-speech", voices, AutoModelForTextToSpectrogram, tiny_speecht5,
        has_own_loss=False,
    ),
]  # fmt: skip
