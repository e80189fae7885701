"""Views of training images: what of one is seen in an epoch, and in which colours.

All that moves pixels is one affine map, made first and applied once, so that boxes and masks follow
by the same map. Pillow does the pixels. What is drawn depends on the key alone (trap 4).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from models.augmentation import Augmentation

VIEW = 2
"""Beside the key of a row, so that its view is not drawn like anything else of it."""
BEYOND = (128, 128, 128)
"""The colour of what lies beyond the image."""
STRETCH = 4 / 3
"""The most by which a crop changes the sides against each other."""
TOP_MAGNITUDE = 30

Matrix = npt.NDArray[np.float64]
"""3 by 3: from places (x, y, 1) in what is seen to those in the image; pixels are unit squares."""


@dataclass(frozen=True)
class View:
    image: Image.Image
    matrix: Matrix | None = None
    """None where the whole image is seen as it is."""

    def mask(self, classes: npt.NDArray[np.uint8], beyond: int) -> npt.NDArray[np.uint8]:
        """The mask (height, width) of the image as one of the view."""
        if self.matrix is None:
            return classes
        mask = _applied(
            Image.fromarray(classes), self.matrix, self.image.size, beyond, Image.Resampling.NEAREST
        )
        return np.asarray(mask)

    def boxes(self, boxes: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
        """Boxes (n, 4) of left, top, width and height around what they were around in the image,
        as far as it is seen. One that is not has no width or no height."""
        assert self.matrix is not None
        x, y, width, height = np.array(boxes, dtype=np.float64).reshape(-1, 4).T
        ones = np.ones_like(x)
        corners = np.stack(
            [[x + across * width, y + down * height, ones] for across in (0, 1) for down in (0, 1)]
        )
        seen = (np.linalg.inv(self.matrix)[:2] @ corners).clip(
            0, np.array(self.image.size, dtype=np.float64)[:, None]
        )
        first, last = seen.min(axis=0), seen.max(axis=0)
        return np.concatenate([first, last - first]).T


def decode(packed: bytes) -> Image.Image:
    """An RGB image, turned as it is shown (EXIF orientation).

    Of 16 bits the upper 8 are taken: Pillow's own conversion makes all beyond 255 white.
    """
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(packed)))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def mask_values(packed: bytes) -> npt.NDArray[Any]:
    """The values (height, width) of a mask's file; of one of single bits they are 0 and 255."""
    image = Image.open(io.BytesIO(packed))
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def wanted(asked: Augmentation) -> bool:
    return bool(
        asked.image_crop < 1 or asked.image_flip or asked.color_jitter or asked.rand_augment
    )


def drawn(image: Image.Image, asked: Augmentation, key: Sequence[int]) -> View:
    """A view of an RGB image: a crop, perhaps mirrored, then RandAugment's moves, then colours."""
    generator = np.random.default_rng([*key, VIEW])
    matrix, size = _crop(image.size, asked.image_crop, generator)
    if generator.random() < asked.image_flip:
        matrix = matrix @ np.array([[-1, 0, size[0]], [0, 1, 0], [0, 0, 1]])
    upright = matrix
    chosen = generator.integers(len(MOVES) + len(COLOURS), size=asked.rand_augment)
    strengths = (
        asked.rand_augment_magnitude
        / TOP_MAGNITUDE
        * generator.choice([-1.0, 1.0], size=asked.rand_augment)
    )
    operations = list(zip(chosen.tolist(), strengths.tolist(), strict=True))
    for number, strength in operations:
        if number < len(MOVES):
            matrix = matrix @ _about_centre(MOVES[number](strength, size), size)
    moved = matrix is not upright
    resampling = Image.Resampling.BILINEAR if moved else Image.Resampling.NEAREST
    seen = _applied(image, matrix, size, BEYOND, resampling)
    seen = _jittered(seen, asked.color_jitter, generator)
    for number, strength in operations:
        if number >= len(MOVES):
            seen = COLOURS[number - len(MOVES)](seen, strength)
    return View(seen, matrix)


def _crop(
    size: tuple[int, int], least: float, generator: np.random.Generator
) -> tuple[Matrix, tuple[int, int]]:
    """Inception's crop (arXiv 1409.4842, section 6), relative to the image's own shape, so that
    one of each share fits into every image."""
    share = generator.uniform(least, 1.0)
    widest = min(STRETCH, 1 / share)
    stretch = math.exp(generator.uniform(-1, 1) * math.log(widest))
    width = max(1, round(size[0] * math.sqrt(share * stretch)))
    height = max(1, round(size[1] * math.sqrt(share / stretch)))
    width, height = min(width, size[0]), min(height, size[1])
    left = float(generator.integers(size[0] - width, endpoint=True))
    top = float(generator.integers(size[1] - height, endpoint=True))
    return _shift(left, top), (width, height)


def _applied(
    image: Image.Image,
    matrix: Matrix,
    size: tuple[int, int],
    beyond: Any,
    resampling: Image.Resampling,
) -> Image.Image:
    return image.transform(
        size, Image.Transform.AFFINE, matrix[:2].ravel().tolist(), resampling, fillcolor=beyond
    )


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def _about_centre(move: Matrix, size: tuple[int, int]) -> Matrix:
    x, y = size[0] / 2, size[1] / 2
    return _shift(x, y) @ move @ _shift(-x, -y)


def _jittered(image: Image.Image, most: float, generator: np.random.Generator) -> Image.Image:
    if not most:
        return image
    factors = generator.uniform(1 - most, 1 + most, size=3).tolist()
    for place in generator.permutation(3).tolist():
        image = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[place](
            image
        ).enhance(factors[place])
    return image


def _shear_x(strength: float, size: tuple[int, int]) -> Matrix:
    return np.array([[1, 0.3 * strength, 0], [0, 1, 0], [0, 0, 1]])


def _shear_y(strength: float, size: tuple[int, int]) -> Matrix:
    return _shear_x(strength, size).T


def _move_x(strength: float, size: tuple[int, int]) -> Matrix:
    return _shift(150 / 331 * strength * size[0], 0)


def _move_y(strength: float, size: tuple[int, int]) -> Matrix:
    return _shift(0, 150 / 331 * strength * size[1])


def _rotate(strength: float, size: tuple[int, int]) -> Matrix:
    sine, cosine = math.sin(math.radians(30 * strength)), math.cos(math.radians(30 * strength))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def _enhancing(kind: Any) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, strength: kind(image).enhance(1 + 0.9 * strength)


MOVES = (_shear_x, _shear_y, _move_x, _move_y, _rotate)
COLOURS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, strength: image,
    *map(
        _enhancing,
        (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast,
         ImageEnhance.Sharpness),
    ),
    lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    lambda image, strength: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    lambda image, strength: ImageOps.autocontrast(image),
    lambda image, strength: ImageOps.equalize(image),
)  # fmt: skip
"""RandAugment's operations, with the strengths of torchvision's."""
