"""The report of a run, drawn by the process that draws it, of rows that mean no good."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.material import JobFolder, Row, job_folder, of_type, run, spec, texts
from training.report.run import DRAWN_POINTS, Curve, read_run

LABELS = ["<script>alert(1)</script>", "pay $\\frac{1}$"]
TEXT = '<img src="https://example.com/x.png" onerror="alert(2)"> was "great" & \'dull\''


def write_series(folder: JobFolder, records: list[dict[str, object]]) -> None:
    lines = [json.dumps(record) for record in of_type(records, "metrics")]
    (folder.path / "series.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> JobFolder:
    named = {"negative": LABELS[0], "positive": LABELS[1]}
    rows: list[list[Row]] = [
        [(number, f"{TEXT} {text}", pair, named[str(label)])
         for number, text, pair, label in texts(count, seed=seed)]
        for count, seed in ((64, 0), (24, 1))
    ]  # fmt: skip
    folder = job_folder(tmp_path_factory.mktemp("report") / "job", tiny_model, *rows)
    records = run(folder.job(spec(labels=LABELS, total_steps=6, eval_every=2)))
    write_series(folder, records)
    assert not of_type(records, "log", level="warn")
    assert draw(folder).returncode == 0
    return folder


def draw(folder: JobFolder) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training.report", str(folder.path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"HOME": str(folder.path), "PATH": os.environ["PATH"]},
    )


def written(folder: JobFolder, pattern: str) -> Path:
    (path,) = (folder.path / "report").glob(pattern)
    return path


def test_the_page_holds_all_and_asks_nobody_for_anything(drawn: JobFolder) -> None:
    page = written(drawn, "*.html").read_text()
    assert "default-src 'none'" in page
    for tag in re.findall(r"<[a-z][^>]*>", page):
        # What users wrote stands in no tag, and no tag loads or runs anything.
        assert not re.search(r"alert|onerror|<script|<link|<iframe|\bhref", tag)
        assert "src=" not in tag or 'src="data:image/png;base64,' in tag
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 1
    assert page.count("&lt;img src=") == 12
    assert "Content-Security-Policy" in page


def test_the_picture_is_one(drawn: JobFolder) -> None:
    with Image.open(written(drawn, "*.png")) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 600
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 50


def test_every_validation_row_is_counted(drawn: JobFolder) -> None:
    of_run = read_run(drawn.path)
    counts = of_run.counts["confusion"]
    assert sum(map(sum, counts)) == 24
    right = sum(counts[label][label] for label in range(2))
    accuracy = of_run.curves["valid", "accuracy"].values[-1]
    assert right / 24 == pytest.approx(accuracy)
    assert [row["id"] for row, _ in of_run.samples] == [
        1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 24
    ]  # fmt: skip
    assert {told for _, told in of_run.samples} <= set(LABELS)


def test_tensorboard_reads_the_series(drawn: JobFolder) -> None:
    path = written(drawn, "events.out.tfevents.*")
    events = EventAccumulator(str(path.parent))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= {"train/loss", "valid/loss", "valid/accuracy"}
    for (split, name), curve in read_run(drawn.path).curves.items():
        scalars = events.Scalars(f"{split}/{name}")
        assert [scalar.step for scalar in scalars] == curve.steps.tolist()
        assert [scalar.value for scalar in scalars] == pytest.approx(curve.values.tolist())
        assert all(scalar.wall_time > 1e9 for scalar in scalars)


@pytest.fixture
def spoilt(drawn: JobFolder) -> Iterator[JobFolder]:
    samples = drawn.path / "samples.json"
    good = samples.read_text()
    samples.write_text(good.replace('"confusion": [[', '"confusion": [["x", '))
    yield drawn
    samples.write_text(good)


def test_what_cannot_be_drawn_says_why_and_leaves_nothing_half(spoilt: JobFolder) -> None:
    for path in (spoilt.path / "report").iterdir():
        path.unlink()
    ended = draw(spoilt)
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("ValueError: ")
    names = [p.name for p in (spoilt.path / "report").iterdir() if not p.name.startswith(".")]
    assert [name.split(".")[0] for name in names] == ["events"]


def test_a_long_series_is_drawn_by_few_points_that_keep_its_peaks() -> None:
    import numpy as np

    steps = np.arange(1, 1_000_001)
    values = 1.0 / steps
    values[700_000] = 5.0
    shown = Curve(steps, values).drawn()
    assert len(shown.steps) == DRAWN_POINTS
    assert 5.0 in shown.values
    assert (shown.steps[0], shown.steps[-1]) == (1, 1_000_000)
