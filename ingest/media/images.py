"""Images: the header first, so that a huge one is refused before it is decoded."""

from __future__ import annotations

import io
import warnings
from typing import Any

from PIL import Image, UnidentifiedImageError

from ingest.limits import Limits
from ingest.problems import BadValue

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
MOST_VALUE = 65535
"""Of a mask's pixels."""
TINY = 8
"""Pixels a side below which an image is worth a remark."""

# What decoders raise on hostile or broken files, from the formats' own plugins.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
    OverflowError, ZeroDivisionError,
)  # fmt: skip


def inspect(data: bytes, limits: Limits) -> dict[str, Any]:
    """Width and height as shown, after decoding the whole image. Raises BadValue."""
    image = _open(data, limits)
    if image.mode in ("I", "F"):
        raise BadValue(
            "unreadable_image",
            "its pixels are numbers of 32 bits, of which nothing says what is white",
            "Save it with 8 or 16 bits a channel.",
        )
    try:
        sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
        width, height = reversed(image.size) if sideways else image.size
        # A JPEG is decoded at an eighth of its size: enough to find that it is cut off.
        image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except _UNREADABLE as error:
        raise _unreadable(error) from None
    return {"width": width, "height": height}


def class_ids(data: bytes, limits: Limits) -> tuple[tuple[int, int], list[int]]:
    """The size of a mask and the values that occur in it. One channel, 8 or 16 bit, or palette."""
    image = _open(data, limits)
    if image.format not in ("PNG", "TIFF", "BMP") or image.mode not in ("L", "P", "I;16", "1", "I"):
        raise BadValue(
            "invalid_mask",
            f"a mask is a PNG with one channel of class numbers; this is {image.format} "
            f"in mode {image.mode}",
            "Save it with a palette or as grey values, where each value is a class.",
        )
    try:
        if image.mode.startswith("I"):
            import numpy as np  # here, so that text tasks do not load it

            values = np.unique(np.asarray(image)).tolist()
        else:
            values = sorted(int(str(value)) for _, value in image.getcolors() or [])
    except _UNREADABLE as error:
        raise _unreadable(error) from None
    if values and not 0 <= values[0] <= values[-1] <= MOST_VALUE:
        raise BadValue(
            "invalid_mask",
            f"the mask's values go from {values[0]} to {values[-1]}",
            f"They are class numbers from 0 to {MOST_VALUE}.",
        )
    return image.size, values


def _open(data: bytes, limits: Limits) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # The limit below is ours; Pillow's own warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadValue(
            "unreadable_image",
            "not an image of a kind that is read",
            f"Read are {', '.join(FORMATS)}.",
        ) from None
    except Image.DecompressionBombError:
        raise _too_large("far too many", limits) from None
    except _UNREADABLE as error:
        raise _unreadable(error) from None
    if image.width * image.height > limits.max_pixels:
        raise _too_large(f"{image.width:,} x {image.height:,}", limits)
    return image


def _too_large(size: str, limits: Limits) -> BadValue:
    return BadValue(
        "image_too_large",
        f"{size} pixels, and at most {limits.max_pixels:,} are decoded",
        "Scale it down.",
    )


def _unreadable(error: Exception) -> BadValue:
    return BadValue(
        "unreadable_image",
        f"the image cannot be decoded ({str(error)[:120] or type(error).__name__})",
        "Open and save it again, or leave it out.",
    )
