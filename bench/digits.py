"""Handwritten digits by a small vision model from scratch.

The 1,797 digits that scikit-learn carries, as PNG files of 8 x 8 pixels in class folders, zipped;
every fifth is held out. The model is one of the built-in configs, drawn from the seed.

    python -m bench.digits [scratch/convnext-tiny | scratch/vit-tiny] [EPOCHS]
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from bench import engine
from models.catalogue import CONFIGS, SCRATCH


def write(training: Path, validation: Path) -> tuple[int, int]:
    """The digits as two zips of class folders; how many images each holds."""
    digits = load_digits()
    counts = []
    for path, held_out in ((training, False), (validation, True)):
        rows = [row for row in range(len(digits.target)) if (row % 5 == 0) is held_out]
        with zipfile.ZipFile(path, "w") as archive:
            for row in rows:
                packed = io.BytesIO()
                # Sixteen shades of grey.
                Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).save(packed, "PNG")
                archive.writestr(f"{digits.target[row]}/{row}.png", packed.getvalue())
        counts.append(len(rows))
    return counts[0], counts[1]


def measure(folder: Path, model: str, epochs: int, seed: int = 0) -> engine.Trained:
    write(folder / "train.zip", folder / "valid.zip")
    hyperparameters = {"n_epochs": epochs, "batch_size": 32, "learning_rate": 2e-3,
                       "lr_scheduler": "cosine"}  # fmt: skip
    return engine.run(
        folder / "job", CONFIGS / model.removeprefix(SCRATCH), "image-classification",
        folder / "train.zip", folder / "valid.zip",
        tuning="scratch", seed=seed, hyperparameters=hyperparameters,
    )  # fmt: skip


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else f"{SCRATCH}convnext-tiny"
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trained = measure(Path(folder), model, epochs)
        seconds = time.perf_counter() - began
    for step, values in trained.evaluations():
        print(f"step {step:5}  loss {values['loss']:.4f}  accuracy {values['accuracy']:.4f}")
    best = trained.done["metrics"]
    print(
        f"{model}, {epochs} epochs, {seconds:.0f} s: held-out accuracy "
        f"{best['valid_accuracy']:.4f}, macro-F1 {best['valid_f1_macro']:.4f}"
    )


if __name__ == "__main__":
    main()
