"""Rows and what the model makes of them, as cells of a page: all that users wrote is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from PIL import Image, ImageDraw

from training.report.run import Run
from training.views import decode, mask_values

LONGEST = 400
"""Characters of a text that are shown."""
SIDE = 240
"""Pixels of a picture's longer side."""
OBJECT_COLOURS = ("#e45756", "#4c78a8", "#54a24b", "#f58518", "#b279a2")

Cells = dict[str, Markup]


@dataclass(frozen=True)
class Picture:
    title: str
    image: Image.Image


@dataclass(frozen=True)
class Score:
    precision: float
    recall: float
    f1: float
    rows: int


def cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def scores(by_label: Sequence[Sequence[int]]) -> list[Score]:
    """Of each label, from (found, wrongly told, missed). What has no value is 0."""
    found = []
    for right, wrong, missed in by_label:
        found.append(
            Score(
                right / max(right + wrong, 1),
                right / max(right + missed, 1),
                2 * right / max(2 * right + wrong + missed, 1),
                right + missed,
            )
        )
    return found


def by_label(counts: dict[str, Any]) -> list[list[int]]:
    """The same three numbers of each class where classes were counted against each other."""
    if "by_label" in counts:
        return list(counts["by_label"])
    matrix = np.array(counts.get("confusion", []), dtype=np.int64)
    if not len(matrix):
        return []
    right = matrix.diagonal()
    three = np.stack([right, matrix.sum(axis=0) - right, matrix.sum(axis=1) - right], axis=1)
    return list(three.tolist())


def cells(run: Run) -> list[Cells]:
    """A row for each sample: under a heading what was given, what was wanted, what was told."""
    return [{"row": _text(row["id"])} | _cells(run, row, told) for row, told in run.samples]


def pictures(run: Run) -> list[Picture]:
    """What can be drawn of the samples of some tasks."""
    found = []
    for row, told in run.samples:
        title = f"row {row['id']}"
        match run.spec.task:
            case "object-detection":
                found.append(Picture(f"{title}: predicted", _with_told_boxes(row, told)))
            case "image-segmentation":
                found.append(Picture(f"{title}: predicted", _told_classes(row, told)))
            case "text-to-speech":
                found.append(Picture(f"{title}: recording", _unpacked(told["expected"])))
                found.append(Picture(f"{title}: predicted", _unpacked(told["predicted"])))
    return found


def _cells(run: Run, row: dict[str, Any], told: Any) -> Cells:
    match run.spec.task:
        case "text-classification":
            wanted = next(row[n] for n in ("label", "labels", "target") if row[n] is not None)
            pair = {"second text": _text(row["text_pair"])} if row["text_pair"] else {}
            return {"text": _text(row["text"])} | pair | _compared(wanted, told)
        case "image-classification":
            return {"image": _image(_thumbnail(row))} | _compared(row["label"], told)
        case "audio-classification":
            return _recording(row) | _compared(row["label"], told)
        case "automatic-speech-recognition":
            return _recording(row) | _compared(row["text"], told)
        case "token-classification":
            return {
                "expected": _tagged(row["tokens"], row["tags"], row["tags"]),
                "predicted": _tagged(row["tokens"], told, row["tags"]),
            }
        case "question-answering":
            answers = [answer["text"] for answer in row["answers"]]
            context = {"context": _with_answer(row)}
            right = told in answers or (not told and not answers)
            answer = _text(told or "no answer", wrong=not right)
            return {"question": _text(row["question"])} | context | {"predicted": answer}
        case "translation" | "summarization":
            return {"source": _text(row["source"])} | _compared(row["target"], told, mark=False)
        case "text-generation":
            wanted = {"prompt": _text(told["prompt"][-LONGEST:])}
            return wanted | _compared(told["expected"], told["predicted"], mark=False)
        case "fill-mask":
            return {"text": _text(told["text"])} | _compared(told["expected"], told["predicted"])
        case "preference":
            sides = ("prompt", "chosen", "rejected")
            texts = {
                side: _text("\n".join(turn["content"] or "" for turn in row[side] or []))
                for side in sides
            }
            return texts | {"margin": _text(told, wrong=told < 0)}
        case "feature-extraction":
            return _embedded(row, told)
        case "object-detection":
            drawn = _with_boxes(row, row["boxes"], row["categories"])
            return {"expected": _image(drawn), "predicted": _image(_with_told_boxes(row, told))}
        case "image-segmentation":
            return {
                "image": _image(_thumbnail(row)),
                "expected": _image(_wanted_classes(run, row)),
                "predicted": _image(_told_classes(row, told)),
            }
        case "text-to-speech":
            return {
                "text": _text(row["text"]),
                "recording": _image(_unpacked(told["expected"])),
                "predicted": _image(_unpacked(told["predicted"])),
            }
        case other:
            raise ValueError(f"The report does not know how to show samples of {other}.")


def _text(value: object, *, wrong: bool = False) -> Markup:
    if isinstance(value, float):
        value = f"{value:.4g}"
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "none"
    shown = escape(cut(str(value)))
    return Markup('<span class="wrong">{}</span>').format(shown) if wrong else shown


def _compared(wanted: Any, told: Any, *, mark: bool = True) -> Cells:
    differs = mark and not isinstance(told, float) and wanted != told
    return {"expected": _text(wanted), "predicted": _text(told, wrong=differs)}


def _recording(row: dict[str, Any]) -> Cells:
    return {"recording": _text(f"{row['file'] or ''} {row['seconds']:.1f} s".strip())}


def _embedded(row: dict[str, Any], told: Any) -> Cells:
    texts = {"text": _text(row["anchor"]), "second text": _text(row["positive"])}
    if isinstance(told, dict):
        nearer = any(one >= told["positive"] for one in told["negatives"])
        cosines = [round(one, 3) for one in told["negatives"]]
        return texts | {
            "cosine": _text(told["positive"], wrong=nearer),
            "those of its negatives": _text(cosines),
        }
    return texts | _compared(row["score"] if isinstance(told, float) else row["label"], told)


def _tagged(words: list[str], tags: list[str], true: list[str]) -> Markup:
    """Words with their tags, those that are wrong marked. Words beyond what the model read have
    none."""
    parts = []
    for place, word in enumerate(words[: LONGEST // 4]):
        tag = tags[place] if place < len(tags) else "O"
        shown = escape(word)
        if tag != "O" or true[place] != "O":
            kind = "" if tag == true[place] else "wrong"
            shown = Markup('{} <b class="tag {}">{}</b>').format(word, kind, tag)
        parts.append(shown)
    return Markup(" ").join(parts)


def _with_answer(row: dict[str, Any]) -> Markup:
    """The context around the answer that is true, which is marked."""
    context = row["context"]
    if not row["answers"]:
        return _text(context)
    answer = row["answers"][0]
    start, end = answer["start"], answer["start"] + len(answer["text"])
    around = LONGEST // 2
    return Markup("{}<mark>{}</mark>{}").format(
        ("…" if start > around else "") + context[max(0, start - around) : start],
        context[start:end],
        context[end : end + around] + ("…" if end + around < len(context) else ""),
    )


def _image(image: Image.Image) -> Markup:
    packed = io.BytesIO()
    image.save(packed, format="PNG")
    data = base64.b64encode(packed.getvalue()).decode()
    return Markup('<img alt="" src="data:image/png;base64,{}">').format(data)


def _unpacked(packed: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(packed))).convert("L")


def _shrunk(size: tuple[int, int]) -> tuple[int, int]:
    """The size at which a picture is shown."""
    scale = SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _thumbnail(row: dict[str, Any]) -> Image.Image:
    image = decode(row["image"])
    return image.resize(_shrunk(image.size))


def _with_boxes(row: dict[str, Any], boxes: list[list[float]], names: list[str]) -> Image.Image:
    """The image with boxes [x, y, width, height] of its own pixels."""
    image = decode(row["image"])
    shown = image.resize(_shrunk(image.size))
    scale = shown.width / image.width
    draw = ImageDraw.Draw(shown)
    kinds = sorted(set(names))
    for box, name in zip(boxes, names, strict=True):
        x, y, width, height = (scale * side for side in box)
        colour = OBJECT_COLOURS[kinds.index(name) % len(OBJECT_COLOURS)]
        right, bottom = max(x, x + width), max(y, y + height)
        draw.rectangle((x, y, right, bottom), outline=colour, width=2)
        draw.text((x + 3, y + 2), cut(name, 24), fill=colour)
    return shown


def _with_told_boxes(row: dict[str, Any], told: list[dict[str, Any]]) -> Image.Image:
    names = [f"{one['category']} {one['score']:.2f}" for one in told]
    return _with_boxes(row, [one["box"] for one in told], names)


def _wanted_classes(run: Run, row: dict[str, Any]) -> Image.Image:
    numbers = {label: number for number, label in enumerate(run.spec.labels)}
    table = np.full(max(255, *row["mask_ids"]) + 1, 255, dtype=np.uint8)
    table[row["mask_ids"]] = [numbers[name] for name in row["mask_labels"]]
    return _coloured(row, table[mask_values(row["mask"])])


def _told_classes(row: dict[str, Any], told: dict[str, str]) -> Image.Image:
    return _coloured(row, np.asarray(_unpacked(told["classes"])))


def _coloured(row: dict[str, Any], classes: Any) -> Image.Image:
    """Class numbers as colours, black where there is none, over the image's own size."""
    colours = (np.array(mpl.colormaps["tab20"](np.arange(256) % 20))[:, :3] * 255).astype(np.uint8)
    colours[255] = 0
    size = _shrunk((row["width"], row["height"]))
    return Image.fromarray(colours[classes]).resize(size, Image.Resampling.NEAREST)
