"""Small images, and vision models of some thousand weights."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextImageProcessorPil,
    ResNetConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

SIDE = 16
SHAPES = ["circle", "square"]


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
    torch.manual_seed(0)
    config = vit_config()
    config.num_labels = 1000
    ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessorPil(size=size).save_pretrained(folder)
    return folder


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
