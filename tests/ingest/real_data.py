"""Data that people made: reviews, translations, digits, speech.

pip fetches what is not installed here, each file by its hash, so these need an index of packages.
"""

from __future__ import annotations

import ast
import ctypes
import io
import re
import subprocess
import sys
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tests.ingest.make import lines, zipped

DJANGO = (
    "Django==5.2.8",
    "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
)
ESPEAK = (
    "espeakng-loader==0.2.4",
    "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
)
PAIR = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n)+)', re.MULTILINE)
SENTENCES = (
    "The weather is fine today.",
    "Please leave the key under the mat.",
    "Seven ships sailed along the southern coast.",
    "Nobody knew where the noise came from.",
)
_SYNCHRONOUS, _UTF8 = 2, 1


def translations(tmp_path: Path) -> tuple[bytes, int]:
    """The messages of Django in German, as pairs, as they stand: with gaps and placeholders; and
    how many they are."""
    catalogue = fetched(tmp_path, DJANGO) / "django/conf/locale/de/LC_MESSAGES/django.po"
    pairs = [
        tuple("".join(map(ast.literal_eval, part.splitlines())) for part in match.groups())
        for match in PAIR.finditer(catalogue.read_text(encoding="utf-8"))
    ]
    rows = [{"translation": {"en": source, "de": target}} for source, target in pairs[1:]]
    return lines(*rows), len(rows)


def digits() -> bytes:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels each, in class folders."""
    files = {}
    data = load_digits()
    for number, (pixels, label) in enumerate(zip(data.images, data.target, strict=True)):
        packed = io.BytesIO()
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(packed, "PNG")
        files[f"digits/{label}/{number:04}.png"] = packed.getvalue()
    return zipped(files)


def sentences(tmp_path: Path) -> bytes:
    """What espeak-ng says, with its text."""
    files: dict[str, bytes | str] = {
        f"clips/{number}.wav": spoken(sentence)
        for number, sentence in enumerate(speech(tmp_path, SENTENCES))
    }
    table = "".join(f"clips/{n}.wav,{text}\n" for n, text in enumerate(SENTENCES))
    files["metadata.csv"] = "file_name,transcription\n" + table
    return zipped(files)


def fetched(tmp_path: Path, requirement: tuple[str, str]) -> Path:
    """The wheel of a requirement, unpacked."""
    name, sha256 = requirement
    wanted = tmp_path / "requirements.txt"
    wanted.write_text(f"{name} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary", ":all:", "-d", tmp_path / "wheels", "-r", wanted]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def speech(tmp_path: Path, sentences: tuple[str, ...]) -> list[bytes]:
    """What espeak-ng says, as 16-bit samples at 22,050 Hz."""
    folder = fetched(tmp_path, ESPEAK) / "espeakng_loader"
    espeak = ctypes.CDLL(str(folder / "libespeak-ng.so"))
    said: list[bytes] = []
    shape = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )

    @shape
    def heard(samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            said[-1] += ctypes.string_at(samples, 2 * count)
        return 0

    data = str(folder / "espeak-ng-data").encode()
    assert espeak.espeak_Initialize(_SYNCHRONOUS, 0, data, 0) == 22050
    espeak.espeak_SetSynthCallback(heard)
    assert espeak.espeak_SetVoiceByName(b"en") == 0
    for sentence in sentences:
        said.append(b"")
        text = sentence.encode() + b"\0"
        assert espeak.espeak_Synth(text, len(text), 0, 1, 0, _UTF8, None, None) == 0
        espeak.espeak_Synchronize()
    espeak.espeak_Terminate()
    return said


def spoken(samples: bytes) -> bytes:
    packed = io.BytesIO()
    with wave.open(packed, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(22050)
        recording.writeframes(samples)
    return packed.getvalue()
