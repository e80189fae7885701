"""Data that people made, through the check and the report: reviews, translations, digits, speech.

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
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from examples import reviews
from ingest.child import prepare_limited
from models.catalogue import PACKAGED
from tests.ingest.make import lines, zipped
from tests.ingest.test_report import codes, finding

pytestmark = pytest.mark.slow

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


def checked(tmp_path: Path, content: bytes, **options: Any) -> dict[str, Any]:
    """The report on a file whose task is told from it, as the service would make it."""
    source = tmp_path / "upload"
    source.write_bytes(content)
    prepared = prepare_limited(
        source, None, out=tmp_path / "out.arrow", role="training", name="upload", **options
    )
    return prepared.report


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


def test_reviews(tmp_path: Path) -> None:
    train, _ = reviews.fetch(tmp_path / "reviews")
    model = PACKAGED["all-MiniLM-L6-v2"].path()
    report = checked(tmp_path, train.read_bytes(), model=model)
    assert (report["task"], report["format"]) == ("text-classification", "csv")
    assert report["rows"] == reviews.ROWS - reviews.HELD_OUT
    assert set(report["labels"]) == {"positive", "negative"}
    assert next(iter(report["profile"]["languages"]["text"])) == "en"
    tokens = report["profile"]["tokens"]
    assert tokens["rows_counted"] == report["rows"]
    assert 15 < tokens["tokens"]["p50"] < 40
    assert "rows_too_long" not in codes(report)
    assert len(report["profile"]["seen"]) == 10


def test_translations(tmp_path: Path) -> None:
    """The messages of Django in German, as pairs, as they stand: with gaps and placeholders."""
    catalogue = fetched(tmp_path, DJANGO) / "django/conf/locale/de/LC_MESSAGES/django.po"
    pairs = [
        tuple("".join(map(ast.literal_eval, part.splitlines())) for part in match.groups())
        for match in PAIR.finditer(catalogue.read_text(encoding="utf-8"))
    ]
    rows = [{"translation": {"en": source, "de": target}} for source, target in pairs[1:]]
    report = checked(tmp_path, lines(*rows), skip_invalid=0.05)
    assert (report["task"], report["shape"]) == ("translation", "translation")
    assert report["rows"] + report["skipped"]["rows"] == len(rows) > 250
    languages = report["profile"]["languages"]
    assert next(iter(languages["source"])) == "en"
    assert next(iter(languages["target"])) == "de"


def test_digits(tmp_path: Path) -> None:
    digits = load_digits()
    files = {}
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        packed = io.BytesIO()
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(packed, "PNG")
        files[f"digits/{label}/{number:04}.png"] = packed.getvalue()
    report = checked(tmp_path, zipped(files))
    assert (report["task"], report["format"]) == ("image-classification", "zip/class_folders")
    assert (report["rows"], len(report["labels"])) == (1797, 10)
    assert sum(report["labels"].values()) == 1797
    assert report["profile"]["numbers"]["width"]["max"] == 8
    assert finding(report, "tiny_images")["count"] == 1797


def test_speech(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        f"clips/{number}.wav": spoken(sentence)
        for number, sentence in enumerate(speech(tmp_path, SENTENCES))
    }
    table = "".join(f"clips/{n}.wav,{text}\n" for n, text in enumerate(SENTENCES))
    files["metadata.csv"] = "file_name,transcription\n" + table
    report = checked(tmp_path, zipped(files))
    assert report["task"] == "automatic-speech-recognition"
    assert report["profile"]["sampling_rates"] == {"22050": len(SENTENCES)}
    assert 1 < report["profile"]["numbers"]["seconds"]["p50"] < 6
    assert codes(report) == set(), "nothing is silent, clipped or too fast"


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
