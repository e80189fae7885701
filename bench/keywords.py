"""Keywords in synthetic speech: ten words, told by a small encoder like Whisper's from scratch.

espeak-ng speaks each word in many voices, at speeds and pitches drawn from seed 0. The held-out
clips are in two others: neither of their speakers (variants, in espeak-ng's words) and but one of
their accents are heard in any other clip. Printed is the error rate of the model as it was drawn,
and by epoch; what is told of the training is the last one's, which nothing was chosen by.

    python -m bench.keywords [EPOCHS [VOICES]]          (needs espeak-ng)
"""

from __future__ import annotations

import itertools
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor

from bench import engine

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
SPEAKERS = (
    "m1", "m2", "m3", "m5", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "croak", "whisperf",
    "Alex", "Denis", "Diogo", "Gene", "Jacky", "Lee", "Marco", "Michael", "Nguyen", "antonio",
    "boris", "ed", "edward", "grandpa", "klatt", "klatt2", "norbert", "pablo", "paul", "quincy",
    "rob", "sandro", "travis", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda",
    "grandma", "linda", "shelby", "steph", "zac",
)  # fmt: skip
HEARD = tuple(f"{accent}+{speaker}" for speaker in SPEAKERS for accent in ACCENTS)
HELD_OUT = ("en-us+m4", "en-gb-x-rp+f3")
CLIPS = 2
"""Of each word in each voice that is heard, of any speed and pitch within these bounds."""
SPEED_BOUNDS, PITCH_BOUNDS = (110, 200), (10, 95)
SPEEDS, PITCHES = (120, 150, 180), (30, 50, 70)
"""Of the clips held out: all of each with all of the other."""

RATE, SECONDS, MELS = 16_000, 1, 40
AUGMENTED = {
    "audio_gain": 6.0,
    "audio_shift": 0.05,
    "audio_snr": 10.0,
    "time_masking": 0.1,
    "frequency_masking": 0.1,
}

Clip = tuple[str, str, int, int]
"""Word, voice, speed, pitch."""


def heard(voices: Iterable[str]) -> list[Clip]:
    draw = random.Random(0)
    return [
        (word, voice, draw.randint(*SPEED_BOUNDS), draw.randint(*PITCH_BOUNDS))
        for word, voice, _ in itertools.product(WORDS, voices, range(CLIPS))
    ]


def held_out() -> list[Clip]:
    return list(itertools.product(WORDS, HELD_OUT, SPEEDS, PITCHES))


def speak(path: Path, clips: Iterable[Clip]) -> None:
    """Write a zip of class folders."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (word, voice, speed, pitch) in enumerate(clips):
            sound = subprocess.run(
                ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), word],
                capture_output=True,
                check=True,
            ).stdout
            archive.writestr(f"{word}/{number}-{voice}.wav", sound)


def write_model(folder: Path) -> Path:
    """A config and what makes its spectra, without weights. Only the encoder is ever made."""
    WhisperConfig(
        d_model=96, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=192, dropout=0.1,
        num_mel_bins=MELS, max_source_positions=50 * SECONDS, classifier_proj_size=96,
        mask_time_length=10, mask_time_min_masks=0, mask_feature_length=4,
    ).save_pretrained(folder)  # fmt: skip
    WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, hop_length=RATE // 100, chunk_length=SECONDS
    ).save_pretrained(folder)
    return folder


def errors_by_word(folder: Path) -> dict[str, Any]:
    """What the run left for its report: of each word, how often another was told."""
    told = json.loads((folder / "samples.json").read_text())["confusion"]
    return {
        word: f"{sum(row) - row[place]}/{sum(row)}"
        for place, (word, row) in enumerate(zip(sorted(WORDS), told, strict=True))
    }


def main(epochs: int, voices: int) -> None:
    # Neighbours in the list of voices have one speaker, and a part of it is to have all of them.
    chosen = random.Random(0).sample(HEARD, min(voices, len(HEARD)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, valid = folder / "train.zip", folder / "valid.zip"
        clips = heard(chosen)
        began = time.perf_counter()
        speak(train, clips)
        speak(valid, held_out())
        print(f"{len(clips)} + {len(held_out())} clips in {time.perf_counter() - began:.0f} s")
        model = write_model(folder / "model")
        # A step of no size leaves the weights as they were drawn.
        untrained = {"max_steps": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
        trained = {"n_epochs": epochs, "batch_size": 32, "learning_rate": 2e-3,
                   "lr_scheduler": "cosine", "weight_decay": 0.05, "label_smoothing": 0.1,
                   "ema_decay": 0.995, **AUGMENTED}  # fmt: skip
        errors, seconds, cpu = [], 0.0, 0.0
        for name_, hyperparameters in (("before", untrained), ("after", trained)):
            began, busy = time.perf_counter(), time.process_time()
            outcome = engine.run(
                folder / name_, model, "audio-classification", train, valid,
                tuning="scratch", seed=0, hyperparameters=hyperparameters,
            )  # fmt: skip
            seconds, cpu = time.perf_counter() - began, time.process_time() - busy
            rates = [1 - values["accuracy"] for _, values in outcome.evaluations()]
            for (step, _), rate in zip(outcome.evaluations(), rates, strict=True):
                print(f"{name_}: step {step:4}  error rate {rate:.3f}")
            errors.append(rates[-1])
        print(f"best: {min(rates):.3f}; errors by word: {errors_by_word(folder / 'after')}")
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}: "
        f"{len(WORDS)} words, {len(clips)} clips heard in {len(chosen)} voices, "
        f"{len(held_out())} held out in {len(HELD_OUT)} others, {epochs} epochs, {seconds:.0f} s "
        f"({cpu:.0f} s of processor time): "
        f"error rate {errors[0]:.3f} before, {errors[1]:.3f} after"
    )


if __name__ == "__main__":
    asked = [int(argument) for argument in sys.argv[1:]]
    main(*[*asked, *[14, len(HEARD)][len(asked) :]])
