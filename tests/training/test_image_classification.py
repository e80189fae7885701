from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bench import digits
from core.errors import BadData
from tests.training.cases import CASES, Rows, write_rows
from tests.training.material import JobFolder, run
from tests.training.pictures import (
    SHAPES,
    bare_convnext,
    bare_resnet,
    pictures,
    png,
    tiny_vit,
    vit_config,
)
from training import pretrained, tasks, tuning
from training.failures import ModelUnavailable
from training.images import Images
from training.tasks.image_classification import ImageClassification
from training.views import decode

BY_NAME = {case.name: case for case in CASES}
CASE = BY_NAME["images"]

PLAIN_TRANSFORMERS = """
import glob, json, sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
folder, pictures = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
model = AutoModelForImageClassification.from_pretrained(folder)
answers = []
for path in sorted(glob.glob(pictures + "/*.png")):
    with torch.no_grad():
        inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")
        answers.append(model(**inputs).logits[0].tolist())
print(json.dumps({"logits": answers, "labels": [model.config.id2label[i] for i in range(2)]}))
"""


def read(task: ImageClassification, path: Path, rows: Rows) -> Images:
    return task.read(write_rows(path, CASE.task, rows), "training_file", lambda: None)


def test_a_plain_script_gives_the_engines_logits(tmp_path: Path) -> None:
    folder = CASE.folder(tmp_path / "job")
    run(folder.job(CASE.spec(total_steps=4)))
    output = folder.path / "output"
    rows = pictures(6, 9)
    for row in rows:
        (tmp_path / f"{row['id']}.png").write_bytes(row["image"])
    answer = subprocess.run(
        [sys.executable, "-c", PLAIN_TRANSFORMERS, str(output), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    plain = json.loads(answer.stdout.splitlines()[-1])
    task = ImageClassification(CASE.spec(), print)
    model = task.load(output, exact=True).eval()
    batch = task.collate(read(task, tmp_path / "x.arrow", rows), np.arange(6))
    with torch.inference_mode():
        engine = model(**batch.inputs).logits
    assert plain["labels"] == SHAPES
    assert float((engine - torch.tensor(plain["logits"])).abs().max()) < 1e-5
    assert float(engine.std()) > 1e-3


def test_a_head_for_other_labels_is_drawn_anew(tmp_path: Path) -> None:
    task = ImageClassification(CASE.spec(), print)
    model = task.load(tiny_vit(tmp_path), exact=False)
    assert model.classifier.out_features == 2
    assert model.config.id2label == dict(enumerate(SHAPES))
    assert task.drawn == {"classifier.weight", "classifier.bias"}


def test_a_label_that_training_lacks_is_refused_with_its_row(tmp_path: Path) -> None:
    rows = pictures(3, 0)
    rows[1]["label"] = "triangle"
    task = ImageClassification(CASE.spec(), print)
    with pytest.raises(BadData) as caught:
        read(task, tmp_path / "x.arrow", rows)
    assert caught.value.details == [{"row": 2}]


def test_an_image_is_read_as_it_is_shown(tmp_path: Path) -> None:
    """Turned by its orientation, and of three channels whatever it was saved with."""
    wide = Image.fromarray(np.zeros((4, 9), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "x.jpg", exif=exif)
    turned = decode((tmp_path / "x.jpg").read_bytes())
    assert (turned.size, turned.mode) == ((4, 9), "RGB")
    assert decode(png(np.zeros((4, 9, 4), dtype=np.uint8))).mode == "RGB"


def test_scratch_is_drawn_from_the_seed_and_reads_no_weights(tmp_path: Path) -> None:
    folder = tiny_vit(tmp_path)
    first, again, other, base = (
        tasks.create(CASE.spec(tuning=way, seed=seed), print).load(folder, exact=False).state_dict()
        for way, seed in (("scratch", 1), ("scratch", 1), ("scratch", 2), ("full", 1))
    )
    name = next(name for name in first if name.endswith("0.attention.q_proj.weight"))
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], base[name])


def test_a_config_alone_gets_a_plain_processor(tmp_path: Path) -> None:
    vit_config().save_pretrained(tmp_path)
    task = tasks.create(CASE.spec(tuning="scratch"), print)
    task.load(tmp_path, exact=False)
    batch = task.collate(read(task, tmp_path / "x.arrow", pictures(2, 0)), np.arange(2))
    assert batch.inputs["pixel_values"].shape == (2, 3, 16, 16)
    with pytest.raises(ModelUnavailable):
        tasks.create(CASE.spec(), print).load(tmp_path, exact=False)


def test_a_model_for_grey_images_is_refused(tmp_path: Path) -> None:
    config = vit_config()
    config.num_channels = 1
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="1 channels"):
        tasks.create(CASE.spec(tuning="scratch"), print).load(tmp_path, exact=False)


@pytest.mark.parametrize(("way", "moved"), [("full", False), ("scratch", True)])
def test_statistics_of_batch_norms_stay_unless_from_scratch(
    tmp_path: Path, way: str, moved: bool
) -> None:
    base = bare_resnet(tmp_path / "base")
    scratch = tasks.create(CASE.spec(tuning="scratch"), print)
    scratch.save(scratch.load(base, exact=False), base)
    write_rows(tmp_path / "train.arrow", CASE.task, pictures(16, 0))
    spec = CASE.spec(tuning=way, total_steps=3, valid_rows=0, metric="loss",
                     greater_is_better=False)  # fmt: skip
    run(JobFolder(tmp_path, base).job(spec))
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "output"))
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    assert any(not torch.equal(before[name], after[name]) for name in means) is moved


def test_micro_batches_give_the_full_gradient_through_batch_norms(tmp_path: Path) -> None:
    base = bare_resnet(tmp_path / "base")
    scratch = tasks.create(CASE.spec(tuning="scratch"), print)
    scratch.save(scratch.load(base, exact=False), base)
    task = tasks.create(CASE.spec(), print)
    model = tuning.load(task, base, None).train()
    examples = read(task, tmp_path / "x.arrow", pictures(4, 0))
    whole, parts = (
        sum(task.loss(model, task.collate(examples, np.array(rows))).sum.item() for rows in split)
        for split in ([range(4)], [range(1), range(1, 4)])
    )
    assert whole == pytest.approx(parts, rel=1e-5)


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    folder = BY_NAME["chats"].base(tmp_path)
    with pytest.raises(ModelUnavailable):
        tasks.create(CASE.spec(), print).load(folder, exact=False)


def test_convolutions_are_left_by_head_only(tmp_path: Path) -> None:
    base = bare_convnext(tmp_path / "base")
    scratch = tasks.create(CASE.spec(tuning="scratch"), print)
    scratch.save(scratch.load(base, exact=False), base)
    task = tasks.create(CASE.spec(tuning="freeze", freeze={"head_only": True}), print)
    model = tuning.load(task, base, None)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"classifier.weight", "classifier.bias"}
    assert pretrained.load_config(base).num_labels == 2


@pytest.mark.slow
def test_digits_from_scratch(tmp_path: Path) -> None:
    trained = digits.measure(tmp_path, "scratch/convnext-tiny", epochs=8)
    assert trained.done["metrics"]["valid_accuracy"] >= 0.97
