"""Small images, and vision models of some thousand weights."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextImageProcessorPil,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessorPil,
    ResNetConfig,
    SegformerConfig,
    SegformerImageProcessorPil,
    SegformerModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
)

from tests.training.material import saved

SIDE = 16
SQUARE = {"height": 32, "width": 32}
SHAPES = ["circle", "square"]
COLOURS = ["blue", "red"]


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG")
    return packed.getvalue()


def drawn(shape: str, draw: random.Random) -> np.ndarray[Any, Any]:
    """A warm disc or the cool edge of a square, anywhere on a dark ground."""
    size, radius = draw.randint(16, 24), draw.randint(4, 6)
    y, x = np.mgrid[:size, :size]
    row, column = (draw.randint(radius, size - radius - 1) for _ in range(2))
    if shape == "circle":
        inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
    else:
        inside = np.maximum(abs(y - row), abs(x - column)) == radius - 1
    noise = np.random.default_rng(draw.randrange(2**32)).integers(0, 60, (size, size, 3))
    strong, weak = draw.randint(180, 255), draw.randint(0, 60)
    colour = np.array([strong, weak, weak] if shape == "circle" else [weak, weak, strong])
    return np.where(inside[..., None], colour, noise).astype(np.uint8)


def pictures(rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of image classification."""
    draw = random.Random(seed)
    made = []
    for row in range(1, rows + 1):
        shape = draw.choice(SHAPES)
        pixels = drawn(shape, draw)
        height, width = pixels.shape[:2]
        made.append(
            {"id": row, "image": png(pixels), "file": f"{shape}/{row}.png", "width": width,
             "height": height, "label": shape}
        )  # fmt: skip
    return made


def vit_config() -> ViTConfig:
    return ViTConfig(
        image_size=SIDE,
        patch_size=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )


def tiny_vit(folder: Path) -> Path:
    """A ViT that was trained for a thousand other classes, in Hugging Face format."""
    config = vit_config()
    config.num_labels = 1000
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return saved(folder, ViTForImageClassification, config, processor)


def bare_convnext(folder: Path) -> Path:
    """A convolutional net as config and processor alone."""
    ConvNextConfig(
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
        patch_size=2,
        image_size=SIDE,
        layer_scale_init_value=1.0,
        initializer_range=0.3,
    ).save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=1.0).save_pretrained(folder)
    return folder


def bare_resnet(folder: Path) -> Path:
    """A net with batch norms, as config alone."""
    ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    ).save_pretrained(folder)
    return folder


def _patch(
    row: int, draw: random.Random, size: int = 32
) -> tuple[dict[str, Any], np.ndarray[Any, Any], str, tuple[int, int, int, int]]:
    """An image of noise with a red or blue patch: its columns, pixels, colour, and the patch's
    left, top, width and height."""
    pixels = np.random.default_rng(draw.randrange(2**32)).integers(0, 60, (size, size, 3))
    width, height = draw.randint(8, 16), draw.randint(8, 16)
    left, top = draw.randint(0, size - width), draw.randint(0, size - height)
    colour = draw.choice(COLOURS)
    pixels[top : top + height, left : left + width] = (
        [250, 20, 20] if colour == "red" else [20, 20, 250]
    )
    columns = {
        "id": row,
        "image": png(pixels.astype(np.uint8)),
        "file": f"{row}.png",
        "width": size,
        "height": size,
    }
    return columns, pixels, colour, (left, top, width, height)


def patches(rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of object detection. Every fifth image has nothing in it that is to be found."""
    draw = random.Random(seed)
    made = []
    for row in range(1, rows + 1):
        columns, _, colour, box = _patch(row, draw)
        there = [] if row % 5 == 0 else [box]
        made.append(
            columns
            | {
                "boxes": [list(map(float, box)) for box in there],
                "categories": [colour] * len(there),
                "crowd": [False] * len(there),
            }
        )
    return made


def masks(rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of segmentation. Values of a mask are not those of the classes, and a corner of each has
    none."""
    draw = random.Random(seed)
    made = []
    for row in range(1, rows + 1):
        columns, pixels, colour, (left, top, width, height) = _patch(row, draw)
        mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
        value = 3 if colour == "red" else 7
        mask[top : top + height, left : left + width] = value
        mask[:2, :2] = 255
        made.append(
            columns
            | {"mask": png(mask), "mask_ids": [0, value], "mask_labels": ["background", colour]}
        )
    return made


def tiny_yolos(folder: Path) -> Path:
    config = YolosConfig(
        image_size=[32, 32],
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_labels=91,
        num_attention_heads=2,
        intermediate_size=64,
        num_detection_tokens=5,
    )
    return saved(folder, YolosForObjectDetection, config, YolosImageProcessorPil(size=SQUARE))


def tiny_detr(folder: Path) -> Path:
    """On a ResNet of transformers' own."""
    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    config = DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        d_model=32,
        num_queries=5,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_labels=91,
    )
    return saved(folder, DetrForObjectDetection, config, DetrImageProcessorPil(size=SQUARE))


def tiny_segformer(folder: Path) -> Path:
    """Without a head."""
    config = SegformerConfig(
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=16,
    )
    return saved(folder, SegformerModel, config, SegformerImageProcessorPil(size=SQUARE))
