"""The final model: a plain Hugging Face folder with a card, and luthier.json to do it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from training import checkpoint
from training.job import Job
from training.state import RunState

BARS = "▁▂▃▄▅▆▇█"
SHOWN_EVALUATIONS = 50
SETTINGS = (
    "tuning", "n_epochs", "total_steps", "batch_size", "learning_rate", "lr_scheduler",
    "warmup_steps", "weight_decay", "max_length", "precision", "seed", "train_rows", "valid_rows",
)  # fmt: skip


PIPELINES = {
    "preference": "text-generation",
    **{
        task: task
        for task in (
            "text-classification", "token-classification", "fill-mask", "text-generation",
            "feature-extraction", "image-classification", "object-detection",
            "image-segmentation", "automatic-speech-recognition", "audio-classification",
        )
    },
}  # fmt: skip
"""What a pipeline of transformers for a task's models is called, where there is one."""
OPTIONS = {"token-classification": ', aggregation_strategy="first"'}
"""Only the first token of a word was taught its tag."""
CLASSES = {
    "question-answering": "AutoModelForQuestionAnswering",
    "translation": "AutoModelForSeq2SeqLM",
    "summarization": "AutoModelForSeq2SeqLM",
    "text-to-speech": "AutoModelForTextToSpectrogram",
}
"""What loads the models of the others."""


def export(job: Job, state: RunState, source: Path, environment: dict[str, Any]) -> int:
    """Write `output/` from a checkpoint's model files; its size in bytes.

    The files are the checkpoint's own, so what was evaluated and verified is what is handed over.
    """

    def fill(folder: Path) -> None:
        shutil.copytree(source, folder, ignore=checkpoint.NOT_THE_MODEL, dirs_exist_ok=True)
        (folder / "README.md").write_text(model_card(job, state), encoding="utf-8")
        recipe = {
            "job_id": job.job_id,
            "spec": job.spec.model_dump(),
            "step": state.best_step or state.step,
            "metrics": state.final_metrics(),
            "environment": environment,
        }
        text = json.dumps(recipe, indent=2, ensure_ascii=False)
        (folder / "luthier.json").write_text(text, encoding="utf-8")

    checkpoint.write_folder(job.output, fill)
    return sum(path.stat().st_size for path in job.output.rglob("*") if path.is_file())


def model_card(job: Job, state: RunState) -> str:
    """README.md: what the model is, how it was trained, and how well it does."""
    spec = job.spec
    front = {
        "library_name": "transformers",
        "pipeline_tag": PIPELINES.get(spec.task, spec.task),
        "base_model": spec.model,
        "tags": ["luthier"],
    }
    # JSON values are YAML values, whatever characters a name holds.
    header = "\n".join(f"{name}: {json.dumps(value)}" for name, value in front.items())
    settings = spec.model_dump()
    return f"""---
{header}
---

# {spec.task}, fine-tuned from {_code(spec.model)}

Trained by Luthier in job {_code(job.job_id)}. The weights are those of step \
{state.best_step or state.step} of {state.step}. `luthier.json` holds all that is needed to train \
them again.

## Results

{_table(("metric", "value"), [(k, _number(v)) for k, v in state.final_metrics().items()])}

## Training loss

{_curve(state)}

{_evaluations(state)}
## Settings

{_table(("setting", "value"), [(name, str(settings[name])) for name in SETTINGS])}

Labels: {", ".join(_code(label) for label in spec.labels) or "none"}

## Use

```python
{_use(spec.task)}
```
"""


def _use(task: str) -> str:
    if task in PIPELINES:
        options = OPTIONS.get(task, "")
        return f"""from transformers import pipeline

model = pipeline("{PIPELINES[task]}", model="path/to/this/folder"{options})"""
    return f"""from transformers import AutoTokenizer, {CLASSES[task]}

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = {CLASSES[task]}.from_pretrained("path/to/this/folder")"""


def _curve(state: RunState) -> str:
    points = state.curve.points()
    if not points:
        return "No step had anything to learn."
    losses = [loss for _, loss in points]
    low, high = min(losses), max(losses)
    scale = (len(BARS) - 1) / ((high - low) or 1.0)
    bars = "".join(BARS[round((loss - low) * scale)] for loss in losses)
    return (
        f"```text\n{bars}\n```\n\nSteps 1 to {points[-1][0]}; the highest bar is "
        f"{_number(high)}, the lowest {_number(low)}."
    )


def _evaluations(state: RunState) -> str:
    if not state.evaluations:
        return ""
    # Of very many, every n-th and the last.
    stride = -(-len(state.evaluations) // SHOWN_EVALUATIONS)
    shown = state.evaluations[::-stride][::-1]
    names = list(shown[0][1])
    rows = [(str(step), *(_number(values[name]) for name in names)) for step, values in shown]
    return f"## Evaluations\n\n{_table(('step', *names), rows)}\n"


def _table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [names, ("---",) * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    return f"{value:.5g}"


def _code(text: str) -> str:
    """A user's text as inline code, which no character of it can break out of."""
    return "`" + json.dumps(text, ensure_ascii=False)[1:-1].replace("`", "'") + "`"
