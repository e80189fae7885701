"""Keywords in synthetic speech: ten words, told by a small spectrogram transformer from scratch.

espeak-ng speaks each word in several voices, speeds and pitches; the voices of the held-out clips
are heard in none of the others. Printed is the error rate of the model as it was drawn, and after
training.

    python -m bench.keywords [EPOCHS]          (needs espeak-ng)
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from transformers import ASTConfig, ASTFeatureExtractor

from bench import engine

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
HEARD = ("en-gb+m1", "en-gb+m3", "en-us+f1", "en-us+f4", "en-gb-scotland+m2", "en-gb+f2")
HELD_OUT = ("en-us+m4", "en-gb-x-rp+f3")
SPEEDS, PITCHES = (120, 150, 180), (30, 50, 70)
FRAMES, MELS = 104, 32
"""Of 10 ms each: a second."""


def speak(path: Path, voices: tuple[str, ...]) -> int:
    """Write a zip of class folders; the number of clips."""
    clips = list(itertools.product(WORDS, voices, SPEEDS, PITCHES))
    with zipfile.ZipFile(path, "w") as archive:
        for word, voice, speed, pitch in clips:
            sound = subprocess.run(
                ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), word],
                capture_output=True,
                check=True,
            ).stdout
            archive.writestr(f"{word}/{voice}-{speed}-{pitch}.wav", sound)
    return len(clips)


def write_model(folder: Path) -> Path:
    """A config and what makes its spectra, without weights."""
    ASTConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192,
        patch_size=8, time_stride=8, frequency_stride=8, max_length=FRAMES, num_mel_bins=MELS,
    ).save_pretrained(folder)  # fmt: skip
    ASTFeatureExtractor(max_length=FRAMES, num_mel_bins=MELS).save_pretrained(folder)
    return folder


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, valid = folder / "train.zip", folder / "valid.zip"
        counts = speak(train, HEARD), speak(valid, HELD_OUT)
        model = write_model(folder / "model")
        # A step of no size leaves the weights as they were drawn.
        untrained = {"max_steps": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
        trained = {"n_epochs": epochs, "batch_size": 32, "learning_rate": 1e-3,
                   "lr_scheduler": "cosine"}  # fmt: skip
        errors, seconds = [], 0.0
        for name_, hyperparameters in (("before", untrained), ("after", trained)):
            began = time.perf_counter()
            outcome = engine.run(
                folder / name_, model, "audio-classification", train, valid,
                tuning="scratch", seed=0, hyperparameters=hyperparameters,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            errors.append(1 - outcome.done["metrics"]["valid_accuracy"])
            for step, values in outcome.evaluations():
                print(f"{name_}: step {step:4}  error rate {1 - values['accuracy']:.3f}")
    print(
        f"{len(WORDS)} words, {counts[0]} clips heard, {counts[1]} held out in other voices, "
        f"{epochs} epochs, {seconds:.0f} s: "
        f"error rate {errors[0]:.3f} before, {errors[1]:.3f} after"
    )


if __name__ == "__main__":
    main()
