from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.augmentation import Augmentation
from tests.training.cases import CASES, write_rows
from tests.training.material import StopAfter, fresh_copy, run, weights_of
from training import tasks, views

BY_NAME = {case.name: case for case in CASES}
ALL: dict[str, Any] = {"image_crop": 0.4, "image_flip": 0.5, "color_jitter": 0.4, "rand_augment": 3}


def batches(path: Path, name: str, rows: list[int], epoch: int | None, **asked: Any) -> Any:
    """The pixels of these rows, one batch for all of them."""
    case = BY_NAME[name]
    task = tasks.create(case.spec(**asked), lambda message: None)
    task.load(case.base(path / "base"), exact=False)
    file = write_rows(path / "x.arrow", case.task, case.rows(12, 0))
    return task.collate(task.read(file, "f", lambda: None), np.array(rows), epoch)


@pytest.mark.parametrize("name", ["images", "detr", "segments"])
def test_what_is_seen_depends_on_seed_epoch_and_row_alone(tmp_path: Path, name: str) -> None:
    def pixels(rows: list[int], epoch: int | None, **asked: Any) -> list[bytes]:
        batch = batches(tmp_path, name, rows, epoch, **asked)
        return [row.numpy().tobytes() for row in batch.inputs["pixel_values"]]

    rows = [7, 0, 3]
    seen = pixels(rows, 2, **ALL)
    assert seen[1:2] == pixels([0], 2, **ALL)
    unlike = [pixels(rows, 3, **ALL), pixels(rows, 2, **ALL, seed=8), pixels(rows, None, **ALL)]
    for other in unlike:
        assert not set(seen) & set(other)
    # An evaluation sees them as they are.
    assert unlike[2] == pixels(rows, 0)


@pytest.mark.parametrize(
    "asked",
    [{"image_crop": 0.3}, {"image_flip": 1.0}, {"rand_augment": 4, "rand_augment_magnitude": 20},
     {"image_crop": 0.5, "image_flip": 0.5, "rand_augment": 2}],
)  # fmt: skip
def test_boxes_and_masks_follow_their_object(asked: dict[str, Any]) -> None:
    """A lone red square, large enough to survive what is done to colours beside."""
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[20:44, 30:62, 0] = 255
    classes = (pixels[:, :, 0] > 0).astype(np.uint8)
    box = [30.0, 20.0, 32.0, 24.0]
    moved = 0
    for row in range(40):
        # Colours are left alone, for the square to be found by its own.
        settings = Augmentation(**asked)
        view = views.drawn(Image.fromarray(pixels), settings, [1, 0, row])
        mask = view.mask(classes, 255)
        assert mask.shape == view.image.size[::-1]
        x, y, width, height = view.boxes([box])[0]
        rows, columns = np.nonzero(mask == 1)
        if not len(rows):
            assert min(width, height) < 1.5
            continue
        assert columns.min() >= x - 1
        assert rows.min() >= y - 1
        assert columns.max() + 1 <= x + width + 1
        assert rows.max() + 1 <= y + height + 1
        if "rand_augment" not in asked:
            # No room around it either, and every pixel of the mask is red in the image.
            assert [x, y, x + width, y + height] == [
                columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            ]  # fmt: skip
            assert np.array_equal(np.asarray(view.image)[:, :, 0] == 255, mask == 1)
        moved += [x, y, width, height] != box
    assert moved > 20


def test_a_mask_lies_on_its_pixels_when_they_are_turned() -> None:
    """Grey values as classes: what the mask says is what the image shows, but for edges."""
    pixels = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 10, np.ones((20, 20), np.uint8))
    image = Image.fromarray(np.stack([pixels] * 3, axis=-1))
    same = []
    for row in range(30):
        matrix = views._about_centre(views.MOVES[row % 5](0.8, image.size), image.size)
        turned = views._applied(image, matrix, image.size, views.BEYOND, Image.Resampling.BILINEAR)
        mask = views.View(turned, matrix).mask(pixels, 255)
        inside = mask != 255
        assert 0.5 < inside.mean() < 1
        same.append((np.asarray(turned)[:, :, 0][inside] == mask[inside]).mean())
    assert min(same) > 0.75


def test_a_crop_has_the_share_that_was_asked_for() -> None:
    image = Image.fromarray(np.zeros((60, 200, 3), dtype=np.uint8))
    sizes = {
        views.drawn(image, Augmentation(image_crop=0.5), [0, 0, row]).image.size
        for row in range(60)
    }
    shares = [width * height / 12000 for width, height in sizes]
    assert 0.48 < min(shares) < 0.6
    assert 0.9 < max(shares) <= 1


def test_an_object_out_of_sight_is_none(tmp_path: Path) -> None:
    batch = batches(tmp_path, "yolos", list(range(12)), 0, image_crop=0.05)
    whole = batches(tmp_path, "yolos", list(range(12)), None)
    counts = [
        sum(len(wanted["class_labels"]) for wanted, _, _ in b.references) for b in (batch, whole)
    ]
    assert 0 < counts[0] < counts[1]
    for wanted, objects, (width, height) in batch.references:
        assert len(wanted["boxes"]) == len(objects)
        for item in objects:
            x, y, w, h = item["bbox"]
            assert 0 <= x < x + w <= width
            assert 0 <= y < y + h <= height


@pytest.mark.parametrize(
    ("name", "asked"),
    [("images", ALL | {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1}),
     ("yolos", ALL), ("segments", ALL)],
)  # fmt: skip
def test_a_stopped_and_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, name: str, asked: dict[str, Any]
) -> None:
    case = BY_NAME[name]
    plan = case.spec(total_steps=12, eval_every=12, checkpoint_every=100, **asked)
    folder = case.folder(tmp_path / "job")
    run(folder.job(plan))
    broken = fresh_copy(folder, tmp_path / "broken")
    run(broken.job(plan), StopAfter(broken, 5))
    run(broken.job(plan, resume_from=broken.newest_checkpoint()))
    assert weights_of(broken.path / "output") == weights_of(folder.path / "output")


def test_an_image_of_16_bits_keeps_its_greys() -> None:
    packed = io.BytesIO()
    Image.fromarray(np.array([[0, 300, 32768, 65535]], dtype=np.uint16)).save(packed, "PNG")
    assert np.asarray(views.decode(packed.getvalue()))[0, :, 0].tolist() == [0, 1, 128, 255]
